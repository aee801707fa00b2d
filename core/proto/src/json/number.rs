//! Doubles as RapidJSON 1.1 prints them: Grisu2, always with a decimal point or an exponent.
//!
//! Grisu2 finds digits that read back as the same double, nearly always the fewest, but of equally
//! many not always the closest; so another algorithm would differ from Mesos in the last digit.
//! (Florian Loitsch: Printing floating-point numbers quickly and accurately with integers.)

use smallvec::SmallVec;

use super::plant::{Bug, is_planted};
use super::powers::POWERS;

/// Infinity as JSON has it: in a string, which Mesos documents for the limits of tasks (`docs/running-workloads.md`).
const INFINITE: &str = "Infinity";

/// The infinity that a string stands for, if it does.
pub(super) fn read_infinity(text: &str) -> Option<f64> {
    let (sign, word) = match text.strip_prefix('-') {
        Some(word) => (-1.0, word),
        None => (1.0, text),
    };
    (word == INFINITE).then_some(sign * f64::INFINITY)
}

/// Appends a double. Infinities are strings; NaN has no JSON form, and `null` keeps the document readable.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    /// Integers below this have fewer digits than a double can tell apart.
    const EXACT: f64 = 1e15;
    if value.is_nan() {
        out.extend_from_slice(b"null");
        return;
    }
    if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        out.extend_from_slice(format!("\"{sign}{INFINITE}\"").as_bytes());
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let magnitude = value.abs();
    if magnitude < EXACT && magnitude.fract() == 0.0 {
        out.extend_from_slice(itoa::Buffer::new().format(magnitude as u64).as_bytes());
        if !is_planted(Bug::Encoder) {
            out.extend_from_slice(b".0");
        }
    } else {
        let (digits, exponent) = grisu2(magnitude);
        lay_out(&digits, exponent, out);
    }
}

/// Writes `digits * 10^exponent`.
fn lay_out(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let count = digits.len() as i32;
    let point = count + exponent;
    match point {
        _ if exponent >= 0 && point <= 21 => {
            out.extend_from_slice(digits);
            out.resize(out.len() + exponent as usize, b'0');
            out.extend_from_slice(b".0");
        }
        1..=21 => {
            out.extend_from_slice(&digits[..point as usize]);
            out.push(b'.');
            out.extend_from_slice(&digits[point as usize..]);
        }
        -5..=0 => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-point) as usize, b'0');
            out.extend_from_slice(digits);
        }
        _ => {
            out.push(digits[0]);
            if count > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(point - 1).as_bytes());
        }
    }
}

/// A number `significand * 2^exponent`.
#[derive(Clone, Copy)]
struct Scaled {
    significand: u64,
    exponent: i32,
}

impl Scaled {
    fn normalized(self) -> Self {
        let shift = self.significand.leading_zeros();
        Self {
            significand: self.significand << shift,
            exponent: self.exponent - shift as i32,
        }
    }

    /// The upper half of the product, rounded.
    fn times(self, other: Self) -> Self {
        let product = u128::from(self.significand) * u128::from(other.significand);
        let rounded = (product + (1 << 63)) >> 64;
        Self {
            significand: rounded as u64,
            exponent: self.exponent + other.exponent + 64,
        }
    }
}

const HIDDEN_BIT: u64 = 1 << 52;

type Digits = SmallVec<[u8; 24]>;

/// Digits of a positive double and the power of ten of the last one.
fn grisu2(value: f64) -> (Digits, i32) {
    let bits = value.to_bits();
    let fraction = bits & (HIDDEN_BIT - 1);
    let exact = match (bits >> 52) as i32 {
        0 => Scaled {
            significand: fraction,
            exponent: -1074,
        },
        biased => Scaled {
            significand: fraction | HIDDEN_BIT,
            exponent: biased - 1075,
        },
    };
    // Everything strictly between these two reads back as the value.
    let upper = Scaled {
        significand: exact.significand * 2 + 1,
        exponent: exact.exponent - 1,
    };
    let upper = upper.normalized();
    let lower = if exact.significand == HIDDEN_BIT {
        Scaled {
            significand: exact.significand * 4 - 1,
            exponent: exact.exponent - 2,
        }
    } else {
        Scaled {
            significand: exact.significand * 2 - 1,
            exponent: exact.exponent - 1,
        }
    };
    let lower = Scaled {
        significand: lower.significand << (lower.exponent - upper.exponent),
        exponent: upper.exponent,
    };

    let (power, decimal_exponent) = power_for(upper.exponent);
    let scaled = exact.normalized().times(power);
    let mut upper = upper.times(power);
    let mut lower = lower.times(power);
    lower.significand += 1;
    upper.significand -= 1;
    generate(
        scaled,
        upper,
        upper.significand - lower.significand,
        decimal_exponent,
    )
}

/// The power of ten that brings a number with this binary exponent into reach of 64-bit integers,
/// and the decimal exponent that it takes away.
fn power_for(exponent: i32) -> (Scaled, i32) {
    const LOG10_OF_2: f64 = 0.301_029_995_663_981_14;
    let rank = (f64::from(-61 - exponent) * LOG10_OF_2 + 347.0).ceil() as i32;
    let index = (rank >> 3) + 1;
    let (significand, exponent) = POWERS[index as usize];
    (
        Scaled {
            significand,
            exponent: i32::from(exponent),
        },
        348 - (index << 3),
    )
}

/// Generates digits of `upper` until what is left is within `delta`, so below `upper` and above the
/// lower bound; then steps towards `scaled`.
fn generate(scaled: Scaled, upper: Scaled, mut delta: u64, exponent: i32) -> (Digits, i32) {
    let shift = -upper.exponent;
    let one = 1_u64 << shift;
    let distance = upper.significand - scaled.significand;
    let mut whole = (upper.significand >> shift) as u32;
    let mut part = upper.significand & (one - 1);
    let mut digits = Digits::new();

    let mut place = whole.checked_ilog10().map_or(1, |log| log + 1);
    while place > 0 {
        place -= 1;
        let unit = 10_u32.pow(place);
        let digit = whole / unit;
        whole %= unit;
        if digit != 0 || !digits.is_empty() {
            digits.push(b'0' + digit as u8);
        }
        let rest = (u64::from(whole) << shift) + part;
        if rest <= delta {
            approach(&mut digits, delta, rest, u64::from(unit) << shift, distance);
            return (digits, exponent + place as i32);
        }
    }
    let mut place = 0;
    loop {
        part *= 10;
        delta *= 10;
        place += 1;
        let digit = (part >> shift) as u8;
        part &= one - 1;
        if digit != 0 || !digits.is_empty() {
            digits.push(b'0' + digit);
        }
        if part < delta {
            // RapidJSON's table of powers ends here: it gives up on coming closer.
            let distance = if place < 9 {
                distance.wrapping_mul(10_u64.pow(place as u32))
            } else {
                0
            };
            approach(&mut digits, delta, part, one, distance);
            return (digits, exponent - place);
        }
    }
}

/// Lowers the last digit while that brings the number closer to the exact value.
fn approach(digits: &mut Digits, delta: u64, mut rest: u64, unit: u64, distance: u64) {
    let last = digits.last_mut().expect("digits were generated");
    while rest < distance
        && delta - rest >= unit
        && (rest + unit < distance || distance - rest > rest + unit - distance)
    {
        *last -= 1;
        rest += unit;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write_f64(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_as_rapidjson() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (4.0, "4.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (3.8, "3.8"),
            (0.001, "0.001"),
            (1606232317.0, "1606232317.0"),
            (1795349925.2690414, "1795349925.2690414"),
            (2.04833984375, "2.04833984375"),
            (0.00001, "0.00001"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (1e20, "100000000000000000000.0"),
            (1e21, "1e21"),
            (1.5e300, "1.5e300"),
            (123456789012345680.0, "123456789012345680.0"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (f64::NAN, "null"),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn nearly_all_numbers_are_shortest() {
        let mut state = 1_u64;
        let longer = (0..20_000)
            .filter(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let value = f64::from_bits(state).abs();
                if !value.is_normal() {
                    return false;
                }
                let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
                let (ours, _) = grisu2(value);
                let shortest = format!("{value:e}");
                let (mantissa, _) = shortest.split_once('e').unwrap();
                ours.len() > digits(mantissa)
            })
            .count();
        assert!(
            longer < 100,
            "{longer} of 20000 are longer than they need be"
        );
    }

    proptest! {
        #[test]
        fn reads_back(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }

        #[test]
        fn short_decimals_are_short(thousandths in -10_000_000_000_i64..10_000_000_000) {
            let value = thousandths as f64 / 1000.0;
            let printed = text(value);
            prop_assert_eq!(printed.trim_end_matches(".0"), value.to_string());
        }
    }
}
