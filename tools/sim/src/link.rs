//! The agent link: ordered both ways, and cut at any point. What is under way when it is cut is lost.

use std::time::Duration;

use bytes::Bytes;
use tepui_model::time::Mono;
use tepui_proto::Wire;
use tepui_proto::link::{self, LinkFrame, link_frame::Body};
use tepui_state_master::{Event, SessionKey};

use crate::simulation::Simulation;
use crate::step::Step;

/// A connection of one agent run to one master run.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) agent: usize,
    pub(crate) agent_run: u32,
    pub(crate) master_run: u32,
    pub(crate) up: bool,
    to_master: Mono,
    to_agent: Mono,
}

/// What an agent's end sends.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Hello(Box<link::Hello>),
    Sync(Box<link::Sync>, Bytes),
    Frame(Box<LinkFrame>),
}

impl Simulation {
    /// An agent without a session looks for the leader.
    pub(crate) fn say_hello(&mut self, index: usize) {
        let retry = self.delay(2_000, 6_000);
        let run = self.agents[index].run;
        if self.agents[index].session.is_some() || self.agents[index].state.is_none() {
            return;
        }
        self.after(retry, Step::Hello { agent: index, run });
        if self.is_away(self.agents[index].away_until) {
            return;
        }
        let Some(master) = &self.master else { return };
        let master_run = master.run;
        if let Some(old) = self.agents[index].link {
            self.break_link(old);
        }
        self.agents[index].hellos += 1;
        let Some(hello) = self.hello(index) else {
            return;
        };
        self.sessions += 1;
        let session = self.sessions;
        self.links.insert(
            session,
            Link {
                agent: index,
                agent_run: run,
                master_run,
                up: true,
                to_master: self.now.mono,
                to_agent: self.now.mono,
            },
        );
        self.agents[index].link = Some(session);
        self.send_up(session, Up::Hello(Box::new(hello)));
    }

    pub(crate) fn agent_sync(&mut self, session: u64, sync: link::Sync, version: Bytes) {
        self.send_up(session, Up::Sync(Box::new(sync), version));
    }

    pub(crate) fn agent_frame(&mut self, session: u64, frame: LinkFrame) {
        self.send_up(session, Up::Frame(Box::new(frame)));
    }

    fn send_up(&mut self, session: u64, message: Up) {
        let latency = self.delay(0, 20) + self.held_up();
        let Some(link) = self.links.get_mut(&session).filter(|link| link.up) else {
            return;
        };
        link.to_master = link.to_master.max(self.now.mono + latency);
        let at = link.to_master;
        self.at(at, Step::Up { session, message });
    }

    pub(crate) fn send_down(&mut self, session: u64, frame: LinkFrame) {
        let latency = self.delay(0, 20) + self.held_up();
        let Some(link) = self.links.get_mut(&session).filter(|link| link.up) else {
            return;
        };
        link.to_agent = link.to_agent.max(self.now.mono + latency);
        let at = link.to_agent;
        self.at(
            at,
            Step::Down {
                session,
                frame: Box::new(frame),
            },
        );
    }

    /// The master closed the session: what it sent before still arrives.
    pub(crate) fn close_down(&mut self, session: u64) {
        if let Some(link) = self.links.get(&session) {
            let at = link.to_agent.max(self.now.mono);
            self.at(at, Step::ClosedByMaster { session });
        }
    }

    /// Cuts a connection: both ends see it, each in its time.
    pub(crate) fn break_link(&mut self, session: u64) {
        let Some(link) = self.links.get_mut(&session).filter(|link| link.up) else {
            return;
        };
        link.up = false;
        let (at_master, at_agent) = (self.delay(0, 2_000), self.delay(0, 2_000));
        self.after(
            at_master,
            Step::LostByMaster {
                session,
                silent: false,
            },
        );
        self.after(at_agent, Step::LostByAgent { session });
    }

    /// Nothing passes any more, and nobody is told: both ends find out by missing pings.
    pub(crate) fn hang_link(&mut self, session: u64) {
        let Some(link) = self.links.get_mut(&session).filter(|link| link.up) else {
            return;
        };
        link.up = false;
        let pings = Duration::from_secs(75);
        let (at_master, at_agent) = (self.delay(0, 15_000), self.delay(0, 15_000));
        self.after(
            pings + at_master,
            Step::LostByMaster {
                session,
                silent: true,
            },
        );
        self.after(pings + at_agent, Step::LostByAgent { session });
    }

    /// A message reached the master.
    pub(crate) fn arrived_up(&mut self, session: u64, message: Up) -> Result<(), String> {
        let run = self.master.as_ref().map(|master| master.run);
        let link = self.links.get(&session);
        if !link.is_some_and(|link| link.up && Some(link.master_run) == run) {
            return Ok(());
        }
        let session = SessionKey(session);
        let event = match message {
            Up::Hello(hello) => Event::AgentHello {
                session,
                principal: None,
                hello: Wire(*hello),
            },
            Up::Sync(sync, resource_version) => Event::AgentSynced {
                session,
                sync: Wire(*sync),
                resource_version,
            },
            Up::Frame(frame) => match frame.body {
                Some(Body::Updates(updates)) => Event::AgentUpdates {
                    session,
                    updates: Wire(updates),
                },
                Some(Body::OperationUpdate(update)) => Event::AgentOperationUpdate {
                    session,
                    update: Wire(update),
                },
                Some(Body::ExecutorEnded(ended)) => Event::AgentExecutorEnded {
                    session,
                    ended: Wire(ended),
                },
                Some(Body::Unregister(_)) => Event::AgentUnregister { session },
                _ => return Ok(()),
            },
        };
        self.master_event(event)
    }

    /// A message reached the agent.
    pub(crate) fn arrived_down(&mut self, session: u64, frame: LinkFrame) -> Result<(), String> {
        let Some(link) = self.links.get(&session).filter(|link| link.up) else {
            return Ok(());
        };
        let (index, run) = (link.agent, link.agent_run);
        if self.agents[index].run != run {
            return Ok(());
        }
        self.agent_told(index, session, frame)
    }

    pub(crate) fn closed_by_master(&mut self, session: u64) -> Result<(), String> {
        if let Some(link) = self.links.get_mut(&session) {
            link.up = false;
        }
        self.lost_by_agent(session)
    }

    pub(crate) fn lost_by_master(&mut self, session: u64, silent: bool) -> Result<(), String> {
        let run = self.master.as_ref().map(|master| master.run);
        if self.links.get(&session).map(|link| link.master_run) != run {
            return Ok(());
        }
        let session = SessionKey(session);
        self.master_event(if silent {
            Event::AgentSilent { session }
        } else {
            Event::AgentClosed { session }
        })
    }

    pub(crate) fn lost_by_agent(&mut self, session: u64) -> Result<(), String> {
        let Some(link) = self.links.get(&session) else {
            return Ok(());
        };
        let (index, run) = (link.agent, link.agent_run);
        if self.agents[index].run != run {
            return Ok(());
        }
        if self.agents[index].session == Some(session) {
            self.agents[index].session = None;
            self.agent_event(index, tepui_state_agent::Event::Disconnected { session })?;
            let wait = self.delay(10, 3_000);
            self.after(wait, Step::Hello { agent: index, run });
        }
        Ok(())
    }
}
