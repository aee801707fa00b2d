//! Who has which GPUs. Knows neither devices nor cgroups.

use std::collections::BTreeMap;

use tepui_module_sdk::prelude::*;

/// Minor numbers of GPUs.
pub(super) type Gpus = BTreeSet<u32>;

/// The GPUs of the agent. Those of a container are its own; what is nested in it has some of them, or shares all.
#[derive(Debug, Default)]
pub(super) struct Pool {
    all: Gpus,
    held: BTreeMap<ContainerId, Gpus>,
}

impl Pool {
    pub(super) fn new(all: Gpus) -> Self {
        Self {
            all,
            held: BTreeMap::new(),
        }
    }

    /// What a container has; none where it has nothing of its own.
    pub(super) fn of(&self, id: &ContainerId) -> Option<&Gpus> {
        self.held.get(id)
    }

    /// The GPUs that a container may use: its own, or those of the nearest around it that has some.
    pub(super) fn usable(&self, id: &ContainerId) -> Gpus {
        let mut home = id.clone();
        loop {
            if let Some(gpus) = self.held.get(&home) {
                return gpus.clone();
            }
            match home.parent() {
                Some(around) => home = around,
                None => return Gpus::new(),
            }
        }
    }

    /// Gives a container so many: more of those that are free, or fewer than it has. The lowest come first. GPUs that what is
    /// nested in it has of its own stay until that is over.
    ///
    /// # Errors
    /// Where there are not so many. Nothing is changed then.
    pub(super) fn give(&mut self, id: &ContainerId, wanted: usize) -> Result<Gpus> {
        let mut gpus = self.held.get(id).cloned().unwrap_or_default();
        let free = self.free_for(id);
        if wanted > gpus.len() + free.len() {
            return Err(Failure::invalid(format!(
                "{wanted} GPUs are asked for and {} are there: {} are free{}",
                gpus.len() + free.len(),
                free.len(),
                if id.parent().is_some() {
                    " in the container around it"
                } else {
                    ""
                },
            )));
        }
        let more = wanted.saturating_sub(gpus.len());
        gpus.extend(free.into_iter().take(more));
        let inside = self.inside(id);
        while gpus.len() > wanted {
            let Some(least) = gpus.iter().rev().find(|gpu| !inside.contains(gpu)).copied() else {
                break;
            };
            gpus.remove(&least);
        }
        self.held.insert(id.clone(), gpus.clone());
        Ok(gpus)
    }

    /// Takes back what a container had, and what is nested in it.
    pub(super) fn take_back(&mut self, id: &ContainerId) {
        let inside = format!("{id}.");
        self.held
            .retain(|other, _| other != id && !other.as_str().starts_with(&inside));
    }

    /// What a container of an earlier agent has. The outer ones come first.
    ///
    /// # Errors
    /// Where it cannot have these.
    pub(super) fn recover(&mut self, id: &ContainerId, gpus: Gpus) -> Result<()> {
        let free = self.free_for(id);
        if let Some(other) = gpus.difference(&free).next() {
            return Err(Failure::invalid(format!(
                "the GPU with minor number {other} is another container's, or not among the agent's any more"
            )));
        }
        self.held.insert(id.clone(), gpus);
        Ok(())
    }

    /// What a container can still be given.
    fn free_for(&self, id: &ContainerId) -> Gpus {
        let mut free = match id.parent() {
            Some(around) => self.usable(&around),
            None => self.all.clone(),
        };
        let around = id.parent();
        let beside = self.held.iter();
        for (_, taken) in beside.filter(|(other, _)| other.parent() == around) {
            free.retain(|gpu| !taken.contains(gpu));
        }
        free
    }

    /// What is held by those that are nested in a container.
    fn inside(&self, id: &ContainerId) -> Gpus {
        let nested = self.held.iter();
        let nested = nested.filter(|(other, _)| other.parent().as_ref() == Some(id));
        nested.flat_map(|(_, gpus)| gpus.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers from a seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    fn check(pool: &Pool) {
        for (id, gpus) in &pool.held {
            let around = id.parent();
            let above = match &around {
                Some(around) => pool.usable(around),
                None => pool.all.clone(),
            };
            assert!(gpus.is_subset(&above), "{id} in {pool:?}");
            let beside = pool.held.iter();
            for (other, theirs) in beside.filter(|(other, _)| other.parent() == around) {
                assert!(
                    other == id || gpus.is_disjoint(theirs),
                    "{id}, {other}: {pool:?}"
                );
            }
        }
    }

    /// Whatever is asked for and given back, no GPU has two owners, and what is nested has no more than what is around it.
    #[test]
    fn every_gpu_has_one_owner() {
        let ids = ["a", "b", "c", "a.x", "a.y", "b.x"].map(ContainerId::from);
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut pool = Pool::new((0..random.below(6) as u32).collect());
            for _ in 0..100 {
                let id = &ids[random.below(6) as usize];
                if random.below(3) == 0 {
                    pool.take_back(id);
                    assert_eq!(pool.of(id), None);
                } else {
                    let wanted = random.below(5) as usize;
                    let room = pool.of(id).map_or(0, Gpus::len) + pool.free_for(id).len();
                    let inside = pool.inside(id);
                    match pool.give(id, wanted) {
                        Ok(given) => assert_eq!(given.len(), wanted.max(inside.len())),
                        Err(_) => assert!(wanted > room, "seed {seed}: {pool:?}"),
                    }
                }
                check(&pool);
            }
            // The next agent finds all of it.
            let mut later = Pool::new(pool.all.clone());
            for (id, gpus) in &pool.held {
                later.recover(id, gpus.clone()).unwrap();
            }
            assert_eq!(later.held, pool.held);
            if let Some(gpu) = pool.held.values().flatten().next() {
                assert!(
                    later
                        .recover(&ContainerId::from("d"), [*gpu].into())
                        .is_err()
                );
            }
        }
    }
}
