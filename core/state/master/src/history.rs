//! A framework's ended tasks: the newest of them, oldest first.

use std::hash::BuildHasher as _;

use tepui_model::hash::{Map, Seed};
use tepui_model::id::TaskId;
use tepui_view::{DoneRow, Rows, Table};

/// The history, bounded by who adds to it.
#[derive(Debug)]
pub(crate) struct History {
    /// Keyed by a running number: ids may come again.
    rows: Table<u64, DoneRow>,
    first: u64,
    next: u64,
    /// The number of the newest row by the hash of its task's and agent's id. A hash takes a tenth of what
    /// the ids would take, which are in the rows.
    newest: Map<u64, u64>,
}

impl History {
    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            rows: Table::new(seed),
            first: 0,
            next: 0,
            newest: Map::with_hasher(seed),
        }
    }

    /// Adds a task; the oldest go while there are more than `limit`.
    pub(crate) fn push(&mut self, row: DoneRow, limit: usize) {
        let hash = self.hash(&row.id, row.agent.as_str());
        self.newest.insert(hash, self.next);
        self.rows.insert(self.next, row);
        self.next += 1;
        while self.rows.len() > limit {
            if let Some(row) = self.rows.remove(&self.first) {
                let hash = self.hash(&row.id, row.agent.as_str());
                if self.newest.get(&hash) == Some(&self.first) {
                    self.newest.swap_remove(&hash);
                }
            }
            self.first += 1;
        }
    }

    /// Whether the task is there, ended on that agent.
    pub(crate) fn contains(&self, id: &TaskId, agent: &str) -> bool {
        let is_it = |row: &DoneRow| row.id == *id && row.agent.as_str() == agent;
        let Some(number) = self.newest.get(&self.hash(id, agent)) else {
            return false;
        };
        // Of two with the same hash the older one is not found at once.
        self.rows.get(number).is_some_and(is_it) || self.rows.iter().any(is_it)
    }

    /// Takes back the newest end of a task on an agent.
    pub(crate) fn remove(&mut self, id: &TaskId, agent: &str) {
        let hash = self.hash(id, agent);
        let Some(newest) = self.newest.get(&hash).copied() else {
            return;
        };
        let same_hash: Vec<u64> = { (self.first..=newest).rev() }
            .filter(|number| {
                let row = self.rows.get(number);
                row.is_some_and(|row| self.hash(&row.id, row.agent.as_str()) == hash)
            })
            .collect();
        let is_it = |number: &&u64| {
            let row = self.rows.get(number);
            row.is_some_and(|row| row.id == *id && row.agent.as_str() == agent)
        };
        let Some(found) = same_hash.iter().find(is_it).copied() else {
            return;
        };
        self.rows.remove(&found);
        match same_hash.into_iter().find(|number| *number != found) {
            Some(left) => self.newest.insert(hash, left),
            None => self.newest.swap_remove(&hash),
        };
    }

    fn hash(&self, id: &TaskId, agent: &str) -> u64 {
        self.newest.hasher().hash_one((id, agent))
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn version(&self) -> u64 {
        self.rows.version()
    }

    pub(crate) fn publish(&mut self) -> Rows<DoneRow> {
        self.rows.publish()
    }
}

#[cfg(test)]
mod tests {
    use tepui_model::authorization::ClassKey;
    use tepui_model::id::AgentId;
    use tepui_model::time::Wall;
    use tepui_proto::v1::TaskState;

    use super::*;

    fn row(id: u64, agent: u64) -> DoneRow {
        DoneRow {
            id: TaskId::from(format!("t{id}")),
            agent: AgentId::from(format!("a{agent}")),
            class: ClassKey(0),
            state: TaskState::TaskFinished,
            ended: Wall(0),
            bytes: Default::default(),
        }
    }

    /// Ids come again while older ones with the same id go, and some ends are taken back.
    #[test]
    fn it_contains_what_its_rows_say() {
        const LIMIT: usize = 7;
        let mut history = History::new(Seed(3, 4));
        let mut last: Vec<(u64, u64)> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..2000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let (id, agent) = (random >> 40 & 3, random >> 50 & 3);
            history.push(row(id, agent), LIMIT);
            last.push((id, agent));
            last.drain(..last.len().saturating_sub(LIMIT));
            if random >> 60 & 3 == 0 {
                let (id, agent) = (random >> 20 & 3, random >> 30 & 3);
                let at = last.iter().rposition(|known| *known == (id, agent));
                let row = row(id, agent);
                history.remove(&row.id, row.agent.as_str());
                at.map(|at| last.remove(at));
            }
            assert_eq!(history.len(), last.len());
            for (id, agent) in (0..4).flat_map(|id| (0..4).map(move |agent| (id, agent))) {
                let row = row(id, agent);
                let found = history.contains(&row.id, row.agent.as_str());
                assert_eq!(found, last.contains(&(id, agent)), "t{id} on a{agent}");
            }
        }
    }
}
