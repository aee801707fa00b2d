//! What can happen next, and to whom.

use tepui_model::allocation::Proposal;
use tepui_model::id::ContainerId;
use tepui_proto::Wire;
use tepui_proto::link::LinkFrame;
use tepui_proto::v1::{executor, scheduler};
use tepui_state_agent::ContainerEnd;
use tepui_state_master::{Entry as StoreEntry, Reply, StoreId, StreamKey};

use crate::link::Up;
use crate::process::Act;
use crate::scheduler::Down;
use crate::simulation::Simulation;

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Step {
    StartMaster,
    MasterTick {
        run: u32,
    },
    Proposals {
        run: u32,
        round: u64,
        proposals: Vec<Proposal>,
    },
    Written {
        run: u32,
        id: StoreId,
        puts: Vec<StoreEntry>,
        deletes: Vec<String>,
    },
    StartAgent {
        agent: usize,
    },
    AgentTick {
        agent: usize,
        run: u32,
    },
    Hello {
        agent: usize,
        run: u32,
    },
    Up {
        session: u64,
        message: Up,
    },
    Down {
        session: u64,
        frame: Box<LinkFrame>,
    },
    ClosedByMaster {
        session: u64,
    },
    LostByMaster {
        session: u64,
        silent: bool,
    },
    LostByAgent {
        session: u64,
    },
    GateOpens {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    ContainerEnds {
        agent: usize,
        container: ContainerId,
        status: i32,
    },
    Reaped {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    Ended {
        agent: usize,
        run: u32,
        container: ContainerId,
        end: ContainerEnd,
    },
    NotRecorded {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    ExecutorCall {
        agent: usize,
        run: u32,
        container: ContainerId,
        call: Box<Wire<executor::Call>>,
    },
    Process {
        agent: usize,
        container: ContainerId,
        act: Act,
    },
    ToProcess {
        agent: usize,
        run: u32,
        container: ContainerId,
        event: Box<executor::Event>,
    },
    Subscribe {
        scheduler: usize,
    },
    StreamGone {
        run: u32,
        stream: StreamKey,
    },
    Scheduled {
        scheduler: usize,
        connection: u64,
        what: Down,
    },
    SchedulerActs {
        scheduler: usize,
    },
    Call {
        scheduler: usize,
        stream_id: String,
        call: Box<scheduler::Call>,
    },
    Reply {
        scheduler: usize,
        reply: Reply,
    },
    Fault,
}

impl Simulation {
    pub(crate) fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::StartMaster => self.start_master(),
            Step::MasterTick { run } => self.master_tick(run),
            Step::Proposals {
                run,
                round,
                proposals,
            } => {
                if self.master.as_ref().is_some_and(|master| master.run == run) {
                    let event = tepui_state_master::Event::Proposals { round, proposals };
                    return self.master_event(event);
                }
                Ok(())
            }
            Step::Written {
                run,
                id,
                puts,
                deletes,
            } => self.written(run, id, puts, deletes),
            Step::StartAgent { agent } => self.start_agent(agent),
            Step::AgentTick { agent, run } if self.runs(agent, run) => self.agent_tick(agent),
            Step::Hello { agent, run } if self.runs(agent, run) => {
                self.say_hello(agent);
                Ok(())
            }
            Step::Up { session, message } => self.arrived_up(session, message),
            Step::Down { session, frame } => self.arrived_down(session, *frame),
            Step::ClosedByMaster { session } => self.closed_by_master(session),
            Step::LostByMaster { session, silent } => self.lost_by_master(session, silent),
            Step::LostByAgent { session } => self.lost_by_agent(session),
            Step::GateOpens {
                agent,
                run,
                container,
            } if self.runs(agent, run) => self.gate_opens(agent, container),
            Step::ContainerEnds {
                agent,
                container,
                status,
            } => self.container_ends(agent, container, status),
            Step::Reaped {
                agent,
                run,
                container,
            } if self.runs(agent, run) => self.reaped(agent, container),
            Step::Ended {
                agent,
                run,
                container,
                end,
            } if self.runs(agent, run) => self.agent_event(
                agent,
                tepui_state_agent::Event::ContainerEnded { container, end },
            ),
            Step::NotRecorded {
                agent,
                run,
                container,
            } if self.runs(agent, run) => {
                let message = "No space left on device".into();
                self.agent_event(
                    agent,
                    tepui_state_agent::Event::CheckpointFailed { container, message },
                )
            }
            Step::ExecutorCall {
                agent,
                run,
                container,
                call,
            } if self.runs(agent, run) => {
                let call = *call;
                self.agent_event(
                    agent,
                    tepui_state_agent::Event::ExecutorCall { container, call },
                )
            }
            Step::Process {
                agent,
                container,
                act,
            } => self.process_acts(agent, &container, act),
            Step::ToProcess {
                agent,
                run,
                container,
                event,
            } => self.process_hears(agent, run, &container, *event),
            Step::Subscribe { scheduler } => self.subscribe(scheduler),
            Step::StreamGone { run, stream } => self.stream_gone(run, stream),
            Step::Scheduled {
                scheduler,
                connection,
                what,
            } => self.scheduled(scheduler, connection, what),
            Step::SchedulerActs { scheduler } => {
                self.scheduler_acts(scheduler);
                Ok(())
            }
            Step::Call {
                scheduler,
                stream_id,
                call,
            } => self.called(scheduler, stream_id, *call),
            Step::Reply { scheduler, reply } => self.replied(scheduler, &reply),
            Step::Fault => self.fault(),
            // Of a process that is not there any more.
            Step::AgentTick { .. }
            | Step::Hello { .. }
            | Step::GateOpens { .. }
            | Step::Reaped { .. }
            | Step::Ended { .. }
            | Step::NotRecorded { .. }
            | Step::ExecutorCall { .. } => Ok(()),
        }
    }

    fn runs(&self, agent: usize, run: u32) -> bool {
        self.agents[agent].run == run && self.agents[agent].state.is_some()
    }
}
