//! The owner's dealings with the executors of single commands, which it plays.

use tepui_executor::{CommandExecutor, Identity, Input as ExecutorInput, Output};
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId};
use tepui_proto::v1::TaskState;
use tepui_state_agent::{Event, Resumed};

use crate::clock;
use crate::owner::{Input, Owner};

impl Owner {
    /// Begins to play an executor.
    pub(crate) fn begin(
        &mut self,
        container: ContainerId,
        framework: FrameworkId,
        executor: ExecutorId,
        seed: u64,
        resumed: Option<Resumed>,
    ) {
        let identity = Identity {
            framework,
            executor,
        };
        let mut outputs = Vec::new();
        let machine = match resumed {
            None => CommandExecutor::start(identity, seed, &mut outputs),
            Some(resumed) => {
                let resumable = self.resumable.remove(&container).unwrap_or_default();
                let record = resumable.played;
                let state = TaskState::try_from(resumed.state).unwrap_or(TaskState::TaskStaging);
                let task = resumed.task.0;
                CommandExecutor::resume(identity, seed, record, task, state, &mut outputs)
            }
        };
        self.deadlines.set(&container, machine.next_deadline());
        self.played.insert(container.clone(), Box::new(machine));
        self.outputs(&container, outputs);
    }

    pub(crate) fn play(&mut self, container: &ContainerId, input: ExecutorInput) {
        let Some(executor) = self.played.get_mut(container) else {
            return;
        };
        let mut outputs = Vec::new();
        executor.apply(input, clock::now(), &mut outputs);
        self.deadlines.set(container, executor.next_deadline());
        self.outputs(container, outputs);
    }

    fn outputs(&mut self, container: &ContainerId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Call(call) => self.events.push_back(Event::ExecutorCall {
                    container: container.clone(),
                    call,
                }),
                Output::Record(record) => {
                    // Frameworks without checkpoint have no records.
                    if let Err(error) = self.store.played(container, &record) {
                        tracing::debug!(%container, error = %crate::chain(&error), "not recorded");
                    }
                }
                Output::Probe(probe) => {
                    let (own, id) = (container.clone(), probe.id);
                    let answer = move |finding| Input::Probed(own, id, finding);
                    self.probe(container.clone(), probe, answer);
                }
                Output::Stop { grace } => {
                    if let Err(error) = self.containers.stop(container, grace) {
                        tracing::debug!(%container, %error, "nothing to stop");
                    }
                }
            }
        }
    }
}
