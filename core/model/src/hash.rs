//! Hash tables whose order and hash are functions of the state's seed.
//!
//! Ids come from strangers, so a fixed hash would be an attack; a random one would make runs
//! unrepeatable. The keys are drawn from the state's [`Rng`](crate::Rng).

use std::hash::BuildHasher;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// The hasher of [`Map`].
pub type SeededHasher = SipHasher13;

/// The two keys of a state's hash tables. There is no default on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub u64, pub u64);

impl BuildHasher for Seed {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A map in insertion order; make it with `Map::with_hasher(seed)`.
pub type Map<K, V> = IndexMap<K, V, Seed>;

/// A set in insertion order; make it with `Set::with_hasher(seed)`.
pub type Set<K> = indexmap::IndexSet<K, Seed>;
