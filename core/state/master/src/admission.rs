//! Who may sync when: agents that come at once are admitted a few at a time, in the order in which
//! they came.
//!
//! A sync is one large event. After a change of leaders all agents come within a second; those that
//! would wait for others anyhow keep their session and wait for their `Welcome`.

use std::collections::VecDeque;

use tepui_model::time::Now;
use tepui_proto::link::{self, link_frame::Body};

use crate::agent::Session;
use crate::event::SessionKey;
use crate::{Effect, MasterState};

/// Hellos that wait. Some of their sessions may be over.
#[derive(Debug, Default)]
pub(crate) struct Queue(VecDeque<(SessionKey, Box<link::Hello>)>);

impl MasterState {
    /// Sessions that are being admitted or have not told everything yet.
    fn syncing(&self) -> usize {
        self.sessions.len() - self.synced_count - self.queued_count
    }

    /// Keeps a hello for later, unless there is room now.
    pub(crate) fn queue_agent(
        &mut self,
        session: SessionKey,
        hello: link::Hello,
    ) -> Option<link::Hello> {
        if self.syncing() < self.settings.max_syncing_agents {
            return Some(hello);
        }
        self.sessions.insert(session, Session::Queued);
        self.queued_count += 1;
        self.queue.0.push_back((session, Box::new(hello)));
        None
    }

    /// Removes a session of the link; its agent, where it was welcomed.
    pub(crate) fn remove_session(&mut self, session: SessionKey) -> Option<Session> {
        let removed = self.sessions.remove(&session);
        if let Some(Session::Queued) = removed {
            self.queued_count -= 1;
        }
        removed
    }

    /// Admits who waits, as far as there is room.
    pub(crate) fn admit_queued(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.queued_count > 0 && self.syncing() < self.settings.max_syncing_agents {
            let Some((session, hello)) = self.queue.0.pop_front() else {
                return;
            };
            if let Some(Session::Queued) = self.sessions.get(&session) {
                self.remove_session(session);
                self.register(session, *hello, now, effects);
            }
        }
        if self.queued_count == 0 {
            // What is left belongs to sessions that are over.
            self.queue.0.clear();
        }
    }

    /// Refuses a session.
    pub(crate) fn refuse_agent(
        &mut self,
        session: SessionKey,
        refuse: link::Refuse,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::to_agent(session, Body::Refuse(refuse)));
        effects.push(Effect::CloseAgent { session });
    }
}
