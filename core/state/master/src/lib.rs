//! The cluster as its master sees it: a pure, deterministic state machine.
//!
//! [`MasterState::apply`] takes one [`Event`] and appends what has to be done as [`Effect`]s. It does no
//! I/O, reads no clock, and draws all ids, uuids and shuffles from one seeded generator, so that equal
//! seeds and events give equal effects; a run can be recorded, replayed and compared.

mod effect;
mod event;
mod settings;

use tepui_model::time::{Mono, Now};
use tepui_view::View;

pub use effect::{Effect, Reply};
pub use event::{CallId, Entry, Event, OperatorCall, Refused, SessionKey, StoreId, StreamKey};
pub use settings::Settings;

/// The whole state of a leading master.
#[derive(Debug)]
pub struct MasterState {
    settings: Settings,
    applied: u64,
}

impl MasterState {
    /// State of a master that has just been elected. The first event must be [`Event::Recovered`].
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            applied: 0,
        }
    }

    /// Id of this master run.
    pub fn master_id(&self) -> &str {
        &self.settings.master_id
    }

    /// Number of events applied: a view with this version contains all of them.
    pub fn version(&self) -> u64 {
        self.applied
    }

    /// Applies one event and appends its effects, in order.
    pub fn apply(&mut self, _event: Event, _now: Now, _effects: &mut Vec<Effect>) {
        self.applied += 1;
    }

    /// Next time at which `apply` must be called, with [`Event::Tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }

    /// Picture of everything for readers. Cheap: shares all rows.
    pub fn view(&mut self) -> View {
        View::default()
    }

    /// Checks the invariants of the ledger and the tables.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
