//! Scalar amounts: fixed point with three decimals.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// An amount in thousandths.
///
/// Mesos computes with doubles that it rounds to three decimals at every step
/// (`common/values.cpp`); an integer is the same without the detour.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Scalar(pub i64);

impl Scalar {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The nearest amount, halves away from zero; what is not a number is nothing.
    #[must_use]
    pub fn from_f64(value: f64) -> Self {
        // The cast saturates and makes zero of NaN.
        Self((value * 1000.0).round() as i64)
    }

    /// This many whole units.
    #[must_use]
    pub const fn units(units: i64) -> Self {
        Self(units.saturating_mul(1000))
    }

    /// The amount as a double, exactly as Mesos gives it back.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        (self.0 / 1000) as f64 + (self.0 % 1000) as f64 / 1000.0
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add for Scalar {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Sub for Scalar {
    type Output = Self;

    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl AddAssign for Scalar {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl SubAssign for Scalar {
    fn sub_assign(&mut self, rhs: Self) {
        *self = *self - rhs;
    }
}

impl Sum for Scalar {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// As C++ streams print a double with 15 digits, which is what Mesos does.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PLAIN: u64 = 1_000_000_000_000_000;
        let thousandths = self.0.unsigned_abs();
        if thousandths >= PLAIN {
            return general(f, self.to_f64());
        }
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (thousandths / 1000, thousandths % 1000);
        match rest {
            0 => write!(f, "{sign}{whole}"),
            r if r % 100 == 0 => write!(f, "{sign}{whole}.{}", r / 100),
            r if r % 10 == 0 => write!(f, "{sign}{whole}.{:02}", r / 10),
            r => write!(f, "{sign}{whole}.{r:03}"),
        }
    }
}

/// `%.15g` for amounts of more than twelve digits before the point.
fn general(f: &mut fmt::Formatter<'_>, value: f64) -> fmt::Result {
    let scientific = format!("{value:.14e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("scientific notation");
    let exponent: usize = exponent.parse().expect("amounts are not tiny");
    if exponent < 15 {
        let fixed = format!("{value:.*}", 14 - exponent);
        let fixed = match fixed.contains('.') {
            true => fixed.trim_end_matches('0').trim_end_matches('.'),
            false => &fixed,
        };
        f.write_str(fixed)
    } else {
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{mantissa}e+{exponent:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_and_prints_as_mesos() {
        for (value, text) in [
            (0.1 + 0.2, "0.3"),
            (1.0, "1"),
            (1.2345, "1.235"),
            (0.0004, "0"),
            (0.0005, "0.001"),
            (-1.05, "-1.05"),
            (31000.25, "31000.25"),
            (1e12, "1000000000000"),
            (1234567890123.125, "1234567890123.12"),
            (1e15, "1e+15"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(Scalar::from_f64(value).to_string(), text, "{value}");
        }
        assert_eq!(Scalar::from_f64(3.7).to_f64(), 3.7);
        assert_eq!((Scalar::from_f64(f64::MAX) + Scalar(1)).0, i64::MAX);
    }
}
