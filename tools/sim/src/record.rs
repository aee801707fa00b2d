//! What happened, in a form that can be kept, hashed and played again.

use std::collections::BTreeMap;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use tepui_model::time::Now;
use tepui_state_agent::{AgentSettings, AgentState};
use tepui_state_master::{MasterState, Settings};

/// Version of the recording's format.
pub(crate) const FORMAT: u32 = 1;

/// Running hash over the bytes of all effects: equal seeds must give equal hashes.
#[derive(Clone, Debug)]
pub struct EffectHash(SipHasher13);

impl Default for EffectHash {
    fn default() -> Self {
        Self(SipHasher13::new_with_keys(0x7465_7075, 0x6566_6665))
    }
}

impl EffectHash {
    /// Takes in the effects of one event.
    pub fn add(&mut self, effects: &impl Serialize) {
        let bytes = postcard::to_stdvec(effects).expect("effects are plain data");
        self.0.write(&bytes);
    }

    /// The hash so far.
    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// Whose event it is. A crash ends one and the next start makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Node {
    /// A run of a master.
    Master(u32),
    /// A run of an agent.
    Agent(u32, u32),
}

/// What a recording consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A master starts.
    Master(Node, Box<Settings>),
    /// An agent starts.
    Agent(Node, Box<AgentSettings>),
    /// An event of a master, and the hash after its effects.
    MasterEvent(Node, Now, Box<tepui_state_master::Event>, u64),
    /// An event of an agent, and the hash after its effects.
    AgentEvent(Node, Now, Box<tepui_state_agent::Event>, u64),
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// Version of the format.
    pub format: u32,
    /// Seed of the run.
    pub seed: u64,
    /// Everything, in order.
    pub entries: Vec<Entry>,
}

impl Recording {
    /// An empty recording.
    pub fn new(seed: u64) -> Self {
        Self {
            format: FORMAT,
            seed,
            entries: Vec::new(),
        }
    }

    /// Bytes for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("recordings are plain data")
    }

    /// Reads a file's bytes.
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let recording: Self = postcard::from_bytes(bytes)?;
        anyhow::ensure!(
            recording.format == FORMAT,
            "recordings of format {} cannot be read",
            recording.format
        );
        Ok(recording)
    }

    /// Events of which the debug text contains this one, each with its number and owner.
    pub fn mentions<'a>(&'a self, text: &'a str) -> impl Iterator<Item = String> + 'a {
        let lines = self
            .entries
            .iter()
            .enumerate()
            .map(|(number, entry)| match entry {
                Entry::Master(node, _) | Entry::Agent(node, _) => {
                    format!("{number} {node:?} starts")
                }
                Entry::MasterEvent(node, now, event, _) => {
                    format!("{number} {} {node:?} {event:?}", now.mono)
                }
                Entry::AgentEvent(node, now, event, _) => {
                    format!("{number} {} {node:?} {event:?}", now.mono)
                }
            });
        lines.filter(move |line| line.contains(text))
    }

    /// Feeds the events to new states and compares the effects. The error names the first event whose
    /// effects differ.
    pub fn replay(&self) -> anyhow::Result<u64> {
        let mut masters: BTreeMap<Node, MasterState> = BTreeMap::new();
        let mut agents: BTreeMap<Node, AgentState> = BTreeMap::new();
        let mut hash = EffectHash::default();
        for (number, entry) in self.entries.iter().enumerate() {
            let (expected, text) = match entry {
                Entry::Master(node, settings) => {
                    masters.insert(*node, MasterState::new((**settings).clone()));
                    continue;
                }
                Entry::Agent(node, settings) => {
                    agents.insert(*node, AgentState::new((**settings).clone()));
                    continue;
                }
                Entry::MasterEvent(node, now, event, expected) => {
                    let mut effects = Vec::new();
                    let state = masters.get_mut(node).expect("started before");
                    state.apply((**event).clone(), *now, &mut effects);
                    hash.add(&effects);
                    (expected, format!("{node:?} {event:?}"))
                }
                Entry::AgentEvent(node, now, event, expected) => {
                    let mut effects = Vec::new();
                    let state = agents.get_mut(node).expect("started before");
                    state.apply((**event).clone(), *now, &mut effects);
                    hash.add(&effects);
                    (expected, format!("{node:?} {event:?}"))
                }
            };
            anyhow::ensure!(
                hash.value() == *expected,
                "effects differ after entry {number}: {text}"
            );
        }
        Ok(hash.value())
    }
}
