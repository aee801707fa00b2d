//! What a master is made of besides itself: modules and stores, behind the narrowest interface.

use std::sync::Arc;

use tepui_http::shared::{Files, Logging, Metrics, Modules};
use tepui_model::allocation::{Fact, Proposal, Round};

use crate::authorize::Authorizer;
use crate::leadership::Leadership;
use crate::store::Store;

/// An allocator on its own thread. It may block; it is called by one thread only.
pub trait Allocator: Send {
    /// Tells facts, in order. After an error everything is told again.
    fn apply(&mut self, facts: Vec<Fact>) -> Result<(), String>;

    /// Asks for proposals.
    fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, String>;
}

/// The parts of a master that the daemon chooses.
pub struct Parts {
    /// Who gets what.
    pub allocator: Box<dyn Allocator>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Who leads.
    pub leadership: Arc<dyn Leadership>,
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// Body of `/tepui/v1/modules`.
    pub modules: Modules,
    /// Log level.
    pub logging: Logging,
    /// Metrics.
    pub metrics: Metrics,
    /// Virtual files.
    pub files: Files,
}
