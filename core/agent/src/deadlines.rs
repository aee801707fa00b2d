//! When which of many containers is due, without a look at all of them.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::id::ContainerId;
use tepui_model::time::Mono;

/// The next deadline of each container that has one.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    first: BTreeSet<(Mono, ContainerId)>,
    of: BTreeMap<ContainerId, Mono>,
}

impl Deadlines {
    /// A container's next deadline is this now.
    pub(crate) fn set(&mut self, container: &ContainerId, at: Option<Mono>) {
        let before = self.of.get(container).copied();
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.first.remove(&(before, container.clone()));
            self.of.remove(container);
        }
        if let Some(at) = at {
            self.first.insert((at, container.clone()));
            self.of.insert(container.clone(), at);
        }
    }

    /// The first of all.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.first.first().map(|(at, _)| *at)
    }

    /// The containers that are due, the first one first.
    pub(crate) fn due(&self, now: Mono) -> Vec<ContainerId> {
        let due = self.first.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, container)| container.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_has_its_newest_deadline() {
        let mut deadlines = Deadlines::default();
        let [a, b] = ["a", "b"].map(ContainerId::new);
        assert_eq!(deadlines.next(), None);
        deadlines.set(&a, Some(Mono(3)));
        deadlines.set(&b, Some(Mono(2)));
        assert_eq!(deadlines.next(), Some(Mono(2)));
        assert_eq!(deadlines.due(Mono(3)), [b.clone(), a.clone()]);
        deadlines.set(&b, Some(Mono(5)));
        assert_eq!(deadlines.due(Mono(4)), std::slice::from_ref(&a));
        deadlines.set(&a, None);
        assert_eq!(
            (deadlines.next(), deadlines.due(Mono(4))),
            (Some(Mono(5)), Vec::new())
        );
    }
}
