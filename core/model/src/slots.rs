//! Values under numbers that are given out one after the other.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Index;

/// A map whose keys are numbers that grow with each new value and are never given again, such as those of agents. A
/// look-up is one step however many there are, the order is that of the numbers, and what is gone at the beginning
/// takes no memory.
#[derive(Clone, Debug)]
pub struct Slots<K, V> {
    first: u32,
    slots: VecDeque<Option<Box<V>>>,
    len: usize,
    key: PhantomData<K>,
}

impl<K, V> Default for Slots<K, V> {
    fn default() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            len: 0,
            key: PhantomData,
        }
    }
}

impl<K: Copy + From<u32> + Into<u32>, V> Slots<K, V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, key: &K) -> Option<usize> {
        let key: u32 = (*key).into();
        Some(key.checked_sub(self.first)? as usize)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(self.at(key)?)?.as_deref()
    }

    /// The value of a key, for a change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.at(key)?;
        self.slots.get_mut(at)?.as_deref_mut()
    }

    /// Puts in a value; the one that had the key.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let number: u32 = key.into();
        if self.slots.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.first -= 1;
            self.slots.push_front(None);
        }
        let at = (number - self.first) as usize;
        while self.slots.len() <= at {
            self.slots.push_back(None);
        }
        let old = self.slots[at].replace(Box::new(value));
        self.len += usize::from(old.is_none());
        old.map(|old| *old)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.at(key)?;
        let value = self.slots.get_mut(at)?.take()?;
        self.len -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(*value)
    }

    /// All values with their keys, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let numbered = (self.first..).zip(&self.slots);
        numbered.filter_map(|(number, slot)| Some((K::from(number), slot.as_deref()?)))
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.iter().filter_map(Option::as_deref)
    }
}

impl<K: Copy + From<u32> + Into<u32>, V> Index<&K> for Slots<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("a key that has a value")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_is_a_map_in_the_order_of_the_keys() {
        let mut rng = Rng::new(7);
        let (mut slots, mut map) = (Slots::<u32, u64>::default(), BTreeMap::new());
        for step in 0..10_000_u64 {
            // Mostly in order, sometimes one that came late.
            let key = (step / 2 + rng.below(50)) as u32;
            if rng.below(3) == 0 {
                assert_eq!(slots.remove(&key), map.remove(&key));
            } else {
                assert_eq!(slots.insert(key, step), map.insert(key, step));
            }
            let old = key.saturating_sub(60);
            assert_eq!(slots.remove(&old), map.remove(&old));
            assert_eq!(slots.get(&key), map.get(&key));
            assert_eq!(slots.get_mut(&(key + 1)), map.get_mut(&(key + 1)));
            assert_eq!(slots.len(), map.len());
        }
        let all: Vec<_> = slots.iter().map(|(key, value)| (key, *value)).collect();
        assert_eq!(all, map.into_iter().collect::<Vec<_>>());
        for key in 0..4_900 {
            slots.remove(&key);
        }
        assert!(slots.slots.len() < 200, "what is gone takes no memory");
    }
}
