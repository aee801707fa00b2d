//! Pretended containers and the executors that the agent plays for them.

use std::time::Duration;

use tepui_executor::{Input, Output};
use tepui_model::id::ContainerId;
use tepui_state_agent::{ContainerEnd, Event, ExecutorKind, Launch};

use super::{Container, Run};
use crate::process::Process;
use crate::simulation::Simulation;
use crate::step::Step;

impl Simulation {
    pub(super) fn launch_container(&mut self, index: usize, launch: Launch) -> Result<(), String> {
        self.has_volumes(index, &launch)?;
        let task = launch
            .task
            .map_or_else(String::new, |task| task.task_id.value.clone());
        let process = (launch.kind == ExecutorKind::Custom).then(|| {
            let framework = launch.framework.id.clone().unwrap_or_default();
            Process::new(framework, launch.executor.executor_id.clone())
        });
        let container = Container {
            task,
            process,
            tied: !launch.checkpoint,
            state: Run::Launching,
        };
        let agent = &mut self.agents[index];
        agent.containers.insert(launch.container.clone(), container);
        agent.watched.insert(launch.container.clone());
        let run = agent.run;
        let wait = self.delay(5, 300);
        self.after(
            wait,
            Step::GateOpens {
                agent: index,
                run,
                container: launch.container,
            },
        );
        Ok(())
    }

    /// A container gets no volume that is not there.
    fn has_volumes(&self, index: usize, launch: &Launch) -> Result<(), String> {
        let resources = launch.resources.iter().filter_map(|one| one.disk.as_ref());
        let mut ids = resources.filter_map(|disk| Some(&disk.persistence.as_ref()?.id));
        match ids.find(|id| !self.agents[index].volumes.contains(*id)) {
            Some(id) => Err(format!(
                "R4: container {} is launched with volume {id}, which is not there",
                launch.container
            )),
            None => Ok(()),
        }
    }

    /// The command starts, or cannot.
    pub(crate) fn gate_opens(&mut self, index: usize, id: ContainerId) -> Result<(), String> {
        let fails = self.strikes("launches failed", self.chances.launch_failure);
        let lasts = self.delay(10, 40_000);
        let agent = &mut self.agents[index];
        let Some(container) = agent.containers.get_mut(&id) else {
            return Ok(());
        };
        if container.state != Run::Launching {
            return Ok(());
        }
        if fails {
            agent.containers.remove(&id);
            let message = "it was not meant to be".into();
            return self.agent_event(
                index,
                Event::LaunchFailed {
                    container: id,
                    message,
                },
            );
        }
        container.state = Run::Running;
        let task = container.task.clone();
        let custom = container.process.is_some();
        if custom {
            self.process_begins(index, &id);
        } else {
            self.oracle.started(&task)?;
        }
        // A process ends by itself when it is idle, some earlier.
        let status = if self.rng.below(4) == 0 { 256 } else { 0 };
        if !custom || status != 0 {
            self.after(
                lasts,
                Step::ContainerEnds {
                    agent: index,
                    container: id.clone(),
                    status,
                },
            );
        }
        self.agent_event(
            index,
            Event::Launched {
                container: id,
                pid: 7,
            },
        )
    }

    /// A command is over, whether its agent is there or not.
    pub(crate) fn container_ends(
        &mut self,
        index: usize,
        id: ContainerId,
        status: i32,
    ) -> Result<(), String> {
        let agent = &mut self.agents[index];
        let Some(container) = agent.containers.get_mut(&id) else {
            return Ok(());
        };
        match container.state {
            Run::Ended(_) => return Ok(()),
            Run::Launching => {
                agent.containers.remove(&id);
                let message = "destroyed".into();
                return self.agent_event(
                    index,
                    Event::LaunchFailed {
                        container: id,
                        message,
                    },
                );
            }
            Run::Running => container.state = Run::Ended(status),
        }
        self.reaped(index, id)
    }

    /// The agent sees that a container it watches is over.
    pub(crate) fn reaped(&mut self, index: usize, id: ContainerId) -> Result<(), String> {
        let agent = &mut self.agents[index];
        let Some(Run::Ended(status)) = agent.containers.get(&id).map(|container| container.state)
        else {
            return Ok(());
        };
        if agent.state.is_none() || !agent.watched.remove(&id) {
            return Ok(());
        }
        let run = agent.run;
        let status = Some(status);
        let ended = Input::Ended {
            status,
            limited: false,
        };
        self.tell_executor(index, &id, ended)?;
        // The executor's word comes before the agent's own.
        let end = ContainerEnd {
            status,
            ..Default::default()
        };
        self.after(
            Duration::ZERO,
            Step::Ended {
                agent: index,
                run,
                container: id,
                end,
            },
        );
        Ok(())
    }

    pub(super) fn tell_executor(
        &mut self,
        index: usize,
        id: &ContainerId,
        input: Input,
    ) -> Result<(), String> {
        let now = self.now;
        let mut outputs = Vec::new();
        if let Some(executor) = self.agents[index].executors.get_mut(id) {
            executor.apply(input, now, &mut outputs);
        }
        self.executor_outputs(index, id, outputs);
        Ok(())
    }

    pub(super) fn executor_outputs(
        &mut self,
        index: usize,
        id: &ContainerId,
        outputs: Vec<Output>,
    ) {
        let run = self.agents[index].run;
        for output in outputs {
            match output {
                Output::Call(call) => self.after(
                    Duration::ZERO,
                    Step::ExecutorCall {
                        agent: index,
                        run,
                        container: id.clone(),
                        call: Box::new(call),
                    },
                ),
                // Simulated tasks have no checks.
                Output::Probe(_) => {}
                Output::Record(_) if self.disk_is_full(index) => {}
                Output::Record(record) => {
                    self.agents[index].disk.executors.insert(id.clone(), record);
                }
                Output::Stop { grace } => {
                    // Most commands end on SIGTERM; stubborn ones are killed after the grace period.
                    let (wait, status) = match self.rng.below(4) {
                        0 => (grace, 9),
                        _ => (self.delay(1, 100), 15),
                    };
                    self.after(
                        wait,
                        Step::ContainerEnds {
                            agent: index,
                            container: id.clone(),
                            status,
                        },
                    );
                }
            }
        }
    }
}
