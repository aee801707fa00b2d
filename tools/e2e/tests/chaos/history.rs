//! What ran, and what a scheduler was told of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tepui_e2e::scheduler::task;
use tepui_e2e::{Scheduler, wait_for};
use tepui_proto::v1::{self, TaskState};

/// Tasks that leave a line each time they start.
pub(super) struct History {
    ran: PathBuf,
    /// Those that were launched, and on which agent.
    launched: BTreeMap<String, v1::AgentId>,
}

impl History {
    pub(super) fn new(dir: &Path) -> Self {
        let ran = dir.join("ran");
        fs::create_dir(&ran).expect("a folder");
        Self {
            ran,
            launched: BTreeMap::new(),
        }
    }

    /// Launches tasks, each of which lasts so many tenths of a second.
    pub(super) fn launch(&mut self, scheduler: &mut Scheduler, tasks: &[(String, u64)]) {
        let infos = tasks.iter().map(|(name, tenths)| {
            let path = self.ran.join(name);
            let (seconds, tenths) = (tenths / 10, tenths % 10);
            let command = format!("echo ran >> {}; sleep {seconds}.{tenths}", path.display());
            task(name, &command, 0.1, 32.0)
        });
        let offer = scheduler.launch(infos.collect());
        let names = tasks.iter().map(|(name, _)| name.clone());
        let launched = names.map(|name| (name, offer.agent_id.clone()));
        self.launched.extend(launched);
    }

    /// Times that a task started.
    pub(super) fn starts(&self, name: &str) -> usize {
        fs::read_to_string(self.ran.join(name)).map_or(0, |text| text.lines().count())
    }

    /// Waits until the scheduler knows how every task ended; it asks for those that it does not know.
    pub(super) fn wait_ended(&self, scheduler: &mut Scheduler) {
        self.wait_ended_but(scheduler, "");
    }

    /// The same of all but one, which lasts.
    pub(super) fn wait_ended_but(&self, scheduler: &mut Scheduler, lasting: &str) {
        wait_for("the end of all tasks", || {
            scheduler.listen(Duration::from_millis(200));
            let states = scheduler.states();
            let over = |name: &str| {
                let last = states.get(name).and_then(|states| states.last());
                last.is_some_and(|state| !is_alive(*state))
            };
            let open = self
                .launched
                .iter()
                .map(|(name, agent)| (name.as_str(), agent));
            let open: Vec<_> = open
                .filter(|(name, _)| *name != lasting && !over(name))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            scheduler.reconcile(open.iter().copied());
            Err(format!("{open:?}"))
        });
    }

    /// Compares what ran with what was told; how many tasks started.
    pub(super) fn judge(&self, scheduler: &Scheduler) -> usize {
        let mut starts = 0;
        for name in self.launched.keys() {
            let times = self.starts(name);
            let states = &scheduler.states()[name.as_str()];
            assert!(times <= 1, "{name} ran {times} times: {states:?}");
            let finished = states.contains(&TaskState::TaskFinished);
            assert!(times == 1 || !finished, "{name} finished and did not run");
            let lost = states.last() == Some(&TaskState::TaskLost);
            assert!(
                times == 0 || !lost,
                "{name} ran and was reported lost: {states:?}"
            );
            starts += times;
        }
        starts
    }

    /// How many tasks were launched.
    pub(super) fn launched(&self) -> usize {
        self.launched.len()
    }
}

fn is_alive(state: TaskState) -> bool {
    use TaskState::{TaskRunning, TaskStaging, TaskStarting, TaskUnreachable};
    matches!(
        state,
        TaskStaging | TaskStarting | TaskRunning | TaskUnreachable
    )
}
