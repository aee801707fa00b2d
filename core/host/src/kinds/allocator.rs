//! Client of an allocator: synchronous, for a thread of its own.

use prost::Message as _;
use tepui_model::allocation::{Fact, Proposal, Round};
use tepui_module_proto::allocator::{Method, Proposals};
use tepui_module_proto::columns::{self, Columns};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// The allocator, as the ledger's owner tells it facts and asks for proposals.
///
/// After a failure the module has a new instance that knows nothing: [`Self::needs_snapshot`] is true until
/// [`Self::apply`] gets facts that begin with [`Fact::Reset`]. Until then every call is refused.
#[derive(Debug)]
pub struct AllocatorClient {
    instance: Instance,
    columns: Columns,
    /// The generation that has the facts; 0: none.
    told: u64,
}

impl AllocatorClient {
    /// A client of this instance. Begin with a snapshot.
    pub fn new(instance: Instance) -> Self {
        AllocatorClient {
            instance,
            columns: Columns::default(),
            told: 0,
        }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Whether the next facts must be a snapshot. While the module is away this is true as well.
    pub fn needs_snapshot(&self) -> bool {
        self.told == 0 || self.told != self.instance.generation() || !self.instance.is_active()
    }

    /// Tells facts, in order.
    pub fn apply(&mut self, facts: &[Fact]) -> Result<(), CallError> {
        let generation = self.instance.generation();
        if self.told != generation {
            if !matches!(facts.first(), Some(Fact::Reset)) {
                return Err(self.untold());
            }
            // A new instance has no numbers of roles and kinds yet.
            self.columns = Columns::default();
        }
        let request = self.columns.pack_facts(facts).encode_to_vec();
        let result = self.instance.call(Method::Apply as u32, &request).map(drop);
        // Facts that were not taken are missing for good.
        self.told = if result.is_ok() { generation } else { 0 };
        result
    }

    /// Asks for proposals.
    pub fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, CallError> {
        if self.told == 0 || self.told != self.instance.generation() {
            return Err(self.untold());
        }
        let request = columns::pack_round(round).encode_to_vec();
        let answer = self
            .instance
            .call(Method::Allocate as u32, &request)
            .and_then(|bytes| {
                let proposals: Proposals = decode(&self.instance, "ALLOCATE", &bytes)?;
                self.columns
                    .unpack_proposals(&proposals)
                    .map_err(|error| CallError::Answer {
                        module: self.instance.name().into(),
                        method: "ALLOCATE",
                        message: error.to_string(),
                    })
            });
        // Proposals count as taken when they are made: what they were is not known now.
        if answer.is_err() {
            self.told = 0;
        }
        answer
    }

    fn untold(&self) -> CallError {
        CallError::Away {
            module: self.instance.name().into(),
            why: "its instance needs a snapshot of the facts".into(),
        }
    }
}
