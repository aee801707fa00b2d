//! What an agent wants done, done on the pretended machine.

use std::time::Duration;

use tepui_executor::{CommandExecutor, Identity, Input};
use tepui_proto::v1;
use tepui_state_agent::{Effect, RecordBody};

use super::{Disk, Run};
use crate::operations::volume_of;
use crate::simulation::Simulation;
use crate::step::Step;

impl Simulation {
    pub(super) fn perform_agent(&mut self, index: usize, effect: Effect) -> Result<(), String> {
        let full = self.disk_is_full(index);
        let agent = &mut self.agents[index];
        match effect {
            Effect::Checkpoint(record) => {
                let disk = &mut agent.disk;
                if matches!(record.body, RecordBody::Launch { .. }) {
                    disk.order.push(record.container.clone());
                }
                disk.records
                    .entry(record.container)
                    .or_default()
                    .push(record.body);
            }
            Effect::CheckpointResources { record, .. } => agent.disk.resources = record,
            Effect::MakeVolumes { volumes, .. } => {
                let made = volumes.iter().filter_map(volume_of);
                agent.volumes.extend(made.map(str::to_owned));
            }
            Effect::RemoveVolumes { volumes } => {
                for volume in volumes.iter().filter_map(volume_of) {
                    agent.volumes.remove(volume);
                }
            }
            // An agent that cannot write down who it is ends.
            Effect::CheckpointAgent { .. } if full => self.crash_agent(index),
            Effect::CheckpointAgent {
                agent_id,
                cluster_id,
                epoch,
            } => agent.disk.identity = Some((agent_id, cluster_id, epoch)),
            Effect::Sync {
                session,
                frameworks,
                executors,
                tasks,
                total,
                operations,
                resource_version,
            } => {
                let sync = tepui_proto::link::Sync {
                    frameworks: frameworks.into_iter().map(|wire| wire.0).collect(),
                    executors: executors.into_iter().map(|wire| wire.0).collect(),
                    tasks: tasks.into_iter().map(|wire| wire.0).collect(),
                    total: total.into_iter().map(|wire| wire.0).collect(),
                    operations: operations.into_iter().map(|wire| wire.0).collect(),
                };
                self.agent_sync(session, sync, resource_version.into());
            }
            Effect::ToMaster { session, frame } => self.agent_frame(session, frame.0),
            // The agent hears of it as of every other end, and connects again.
            Effect::CloseSession { session, .. } => self.break_link(session),
            Effect::Launch(launch) => self.launch_container(index, *launch)?,
            Effect::Watch { container } => {
                agent.watched.insert(container.clone());
                if let Some(Run::Ended(_)) = agent.containers.get(&container).map(|c| c.state) {
                    let run = agent.run;
                    self.after(
                        Duration::ZERO,
                        Step::Reaped {
                            agent: index,
                            run,
                            container,
                        },
                    );
                }
            }
            Effect::Destroy { container } => {
                let wait = self.delay(1, 200);
                self.after(
                    wait,
                    Step::ContainerEnds {
                        agent: index,
                        container,
                        status: 9,
                    },
                );
            }
            Effect::Play {
                container,
                framework,
                executor,
                seed,
                resumed,
            } => {
                let identity = Identity {
                    framework,
                    executor,
                };
                let mut outputs = Vec::new();
                let machine = match resumed {
                    None => CommandExecutor::start(identity, seed, &mut outputs),
                    Some(resumed) => CommandExecutor::resume(
                        identity,
                        seed,
                        agent
                            .disk
                            .executors
                            .get(&container)
                            .cloned()
                            .unwrap_or_default(),
                        resumed.task.0,
                        v1::TaskState::try_from(resumed.state).unwrap_or_default(),
                        &mut outputs,
                    ),
                };
                agent.executors.insert(container.clone(), machine);
                self.executor_outputs(index, &container, outputs);
            }
            Effect::PlayGroups { .. } => {
                unreachable!("frameworks of the simulator launch no groups")
            }
            Effect::ToExecutor { container, event } => {
                if agent.executors.contains_key(&container) {
                    self.tell_executor(index, &container, Input::Event(event))?;
                } else {
                    self.tell_process(index, container, event.0);
                }
            }
            Effect::CloseExecutor { container } => self.process_closed(index, &container),
            Effect::Retire { container, .. } => {
                agent.containers.remove(&container);
                agent.executors.remove(&container);
                agent.watched.remove(&container);
                agent.disk.records.remove(&container);
                agent.disk.executors.remove(&container);
                agent.disk.order.retain(|known| *known != container);
            }
            Effect::UpdateContainer { .. } | Effect::RetireFramework { .. } => {}
            Effect::Exit { forget, .. } => {
                if forget {
                    // What is reserved stays so for the agent that registers next.
                    agent.disk = Disk {
                        resources: std::mem::take(&mut agent.disk.resources),
                        ..Disk::default()
                    };
                }
                self.crash_agent(index);
            }
        }
        Ok(())
    }
}
