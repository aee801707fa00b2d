//! Tables that one owner changes and many readers see: chunks of 64 rows, shared by copy on write.
//!
//! A [`Table`] belongs to the owner of a state. [`Table::publish`] hands out [`Rows`], a snapshot that
//! costs one pointer per chunk; the first change of a row in a chunk after that copies the chunk's
//! pointers and that row. Rows keep the order in which they were made, which is the order that the
//! endpoints print. Slots are never reused; a table whose slots are mostly empty is compacted.

use std::hash::Hash;
use std::sync::Arc;

use tepui_model::hash::{Map, Seed};

/// Rows in one chunk.
pub const CHUNK: usize = 64;

/// Up to 64 rows that are shared together.
#[derive(Debug)]
pub struct Chunk<R> {
    rows: [Option<Arc<R>>; CHUNK],
}

impl<R> Clone for Chunk<R> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
        }
    }
}

impl<R> Default for Chunk<R> {
    fn default() -> Self {
        Self {
            rows: std::array::from_fn(|_| None),
        }
    }
}

/// The owner's table.
#[derive(Debug)]
pub struct Table<K, R> {
    chunks: Vec<Arc<Chunk<R>>>,
    at: Map<K, u32>,
    next: u32,
    version: u64,
    published: Option<(u64, Rows<R>)>,
}

impl<K: Hash + Eq + Clone, R: Clone> Table<K, R> {
    /// Empty table whose index is keyed by `seed`.
    pub fn new(seed: Seed) -> Self {
        Self {
            chunks: Vec::new(),
            at: Map::with_hasher(seed),
            next: 0,
            version: 0,
            published: None,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Whether there is a row for `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Row of `key`.
    pub fn get(&self, key: &K) -> Option<&R> {
        let slot = *self.at.get(key)? as usize;
        self.chunks[slot / CHUNK].rows[slot % CHUNK].as_deref()
    }

    /// Row of `key` for a change. Readers that hold an older snapshot keep the old row.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut R> {
        let slot = *self.at.get(key)? as usize;
        self.version += 1;
        let chunk = Arc::make_mut(&mut self.chunks[slot / CHUNK]);
        chunk.rows[slot % CHUNK].as_mut().map(Arc::make_mut)
    }

    /// Adds a row at the end. A row with the same key is replaced and moves to the end.
    pub fn insert(&mut self, key: K, row: R) {
        self.remove(&key);
        let slot = self.next as usize;
        self.next += 1;
        self.version += 1;
        if slot / CHUNK == self.chunks.len() {
            self.chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut self.chunks[slot / CHUNK]);
        chunk.rows[slot % CHUNK] = Some(Arc::new(row));
        self.at.insert(key, slot as u32);
    }

    /// Takes the row of `key` out.
    pub fn remove(&mut self, key: &K) -> Option<Arc<R>> {
        let slot = self.at.swap_remove(key)? as usize;
        self.version += 1;
        let row = Arc::make_mut(&mut self.chunks[slot / CHUNK]).rows[slot % CHUNK].take();
        if self.next as usize > 4 * CHUNK && self.at.len() < self.next as usize / 2 {
            self.compact();
        }
        row
    }

    /// Rows in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.rows.iter())
            .filter_map(Option::as_deref)
    }

    /// Keys in no particular, but reproducible order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.at.keys()
    }

    /// Snapshot of all rows. The same one as last time while nothing has changed.
    pub fn publish(&mut self) -> Rows<R> {
        if let Some((version, rows)) = &self.published
            && *version == self.version
        {
            return rows.clone();
        }
        let rows = Rows {
            chunks: self.chunks.as_slice().into(),
            len: self.at.len(),
        };
        self.published = Some((self.version, rows.clone()));
        rows
    }

    fn compact(&mut self) {
        let mut order: Vec<(u32, usize)> = self
            .at
            .values()
            .enumerate()
            .map(|(index, slot)| (*slot, index))
            .collect();
        order.sort_unstable();
        let mut chunks: Vec<Chunk<R>> = Vec::with_capacity(order.len() / CHUNK + 1);
        for (new, (old, index)) in order.into_iter().enumerate() {
            if new % CHUNK == 0 {
                chunks.push(Chunk::default());
            }
            let old = old as usize;
            chunks[new / CHUNK].rows[new % CHUNK] =
                self.chunks[old / CHUNK].rows[old % CHUNK].clone();
            self.at[index] = new as u32;
        }
        self.next = self.at.len() as u32;
        self.chunks = chunks.into_iter().map(Arc::new).collect();
    }
}

/// Snapshot of a table's rows, cheap to clone and safe to read from any thread.
#[derive(Debug)]
pub struct Rows<R> {
    chunks: Arc<[Arc<Chunk<R>>]>,
    len: usize,
}

impl<R> Clone for Rows<R> {
    fn clone(&self) -> Self {
        Self {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
        }
    }
}

impl<R> Default for Rows<R> {
    fn default() -> Self {
        Self {
            chunks: Arc::new([]),
            len: 0,
        }
    }
}

impl<R> Rows<R> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows in the order in which they were added.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &R> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.rows.iter())
            .filter_map(Option::as_deref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: u32) -> Table<u32, String> {
        let mut table = Table::new(Seed(1, 2));
        for n in 0..rows {
            table.insert(n, n.to_string());
        }
        table
    }

    #[test]
    fn a_snapshot_keeps_what_it_saw() {
        let mut table = table(200);
        let before = table.publish();
        *table.get_mut(&70).expect("row 70") = "changed".into();
        table.remove(&3);
        table.insert(1000, "new".into());
        let after = table.publish();
        assert_eq!(before.len(), 200);
        assert_eq!(before.iter().nth(70).map(String::as_str), Some("70"));
        assert_eq!(after.len(), 200);
        assert_eq!(after.iter().nth(69).map(String::as_str), Some("changed"));
        assert_eq!(after.iter().next_back().map(String::as_str), Some("new"));
    }

    #[test]
    fn compaction_keeps_order_and_keys() {
        let mut table = table(1000);
        for n in 0..900 {
            table.remove(&n);
        }
        let left: Vec<String> = table.iter().cloned().collect();
        let expected: Vec<String> = (900..1000).map(|n| n.to_string()).collect();
        assert_eq!(left, expected);
        assert_eq!(table.get(&950).map(String::as_str), Some("950"));
        assert!(table.chunks.len() < 8, "{} chunks", table.chunks.len());
    }

    #[test]
    fn publishing_twice_without_a_change_shares_the_snapshot() {
        let mut table = table(100);
        let (one, two) = (table.publish(), table.publish());
        assert!(Arc::ptr_eq(&one.chunks, &two.chunks));
    }
}
