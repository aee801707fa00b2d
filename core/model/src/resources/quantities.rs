//! Amounts by name, without anything else that tells resources apart.

use std::fmt;
use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Name, Resources, Scalar};

/// Amounts by name, sorted by name; a name that is not there has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantities(SmallVec<[(Name, Scalar); 4]>);

impl Quantities {
    /// Nothing of anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The amounts in these resources. Shared ones count once.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        let mut all = Self::new();
        for resource in resources {
            if let Some(amount) = resource.amount() {
                all.add(resource.name(), amount);
            }
        }
        all
    }

    /// The amount under this name.
    #[must_use]
    pub fn get(&self, name: &Name) -> Scalar {
        self.at(name).map_or(Scalar::ZERO, |at| self.0[at].1)
    }

    fn at(&self, name: &Name) -> Result<usize, usize> {
        // A handful of names: walking is quicker than halving.
        for (at, (have, _)) in self.0.iter().enumerate() {
            match have.cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(at),
                std::cmp::Ordering::Greater => return Err(at),
            }
        }
        Err(self.0.len())
    }

    /// Adds to the amount under this name.
    pub fn add(&mut self, name: &Name, amount: Scalar) {
        match self.at(name) {
            Ok(at) => self.0[at].1 += amount,
            Err(at) if amount.0 > 0 => self.0.insert(at, (name.clone(), amount)),
            Err(_) => {}
        }
    }

    /// Takes from the amount under this name, down to nothing.
    pub fn sub(&mut self, name: &Name, amount: Scalar) {
        if let Ok(at) = self.at(name) {
            self.0[at].1 -= amount;
            if self.0[at].1.0 <= 0 {
                self.0.remove(at);
            }
        }
    }

    /// Names and amounts, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, Scalar)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Whether there is nothing of anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is at least as much of everything as in `other`.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(name, amount)| self.get(name) >= amount)
    }
}

impl FromIterator<(Name, Scalar)> for Quantities {
    fn from_iter<I: IntoIterator<Item = (Name, Scalar)>>(iter: I) -> Self {
        let mut all = Self::new();
        for (name, amount) in iter {
            all.add(&name, amount);
        }
        all
    }
}

impl AddAssign<&Self> for Quantities {
    fn add_assign(&mut self, rhs: &Self) {
        for (name, amount) in rhs.iter() {
            self.add(name, amount);
        }
    }
}

impl SubAssign<&Self> for Quantities {
    fn sub_assign(&mut self, rhs: &Self) {
        for (name, amount) in rhs.iter() {
            self.sub(name, amount);
        }
    }
}

/// `cpus:1; mem:128`, as Mesos prints them.
impl fmt::Display for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (i, (name, amount)) in self.iter().enumerate() {
            let semicolon = if i > 0 { "; " } else { "" };
            write!(f, "{semicolon}{name}:{amount}")?;
        }
        Ok(())
    }
}
