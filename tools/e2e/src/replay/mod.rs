//! Replays exchanges that were recorded from Mesos 1.11 and compares the answers.
//!
//! Equal means: status line; header names and values, in any order; body byte for byte, so the order
//! of keys and the form of numbers count. Before that both sides are masked by rule ([`mask`]):
//! ids, times, releases, addresses, figures of the machine.
//!
//! `recordings/differences.txt` lists the exchanges that are expected to differ, with the reason.
//! The list can only shrink: [`verdict`] fails when a listed exchange is equal, and when an unlisted
//! one differs.

mod compare;
mod exchange;
mod ids;
pub mod mask;
mod play;
mod raw;
pub mod recorded;
pub mod run;
pub mod session;
mod stream;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use compare::compare;
pub use exchange::{Answer, Exchange, Request, load};
pub use ids::Ids;
pub use play::Play;
pub use raw::{ReplayError, ask, open};
pub use stream::{Next, Record, Stream};
pub use watch::Watch;

/// The folder of the recordings that come with the tests.
pub fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

/// The cluster that is asked instead of the recorded one.
///
/// The recorded master and its agents shared one address, where agent 1 was `/slave(1)`; here each
/// has its own, and each agent calls itself `/slave(1)`.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address of the master.
    pub master: SocketAddr,
    /// Addresses of the agents, in the order of their numbers.
    pub agents: Vec<SocketAddr>,
    /// Which id stands for which recorded one.
    pub ids: Ids,
    /// Recorded texts, such as folders, and what stands for them now.
    pub texts: Vec<(String, String)>,
    /// Texts in answers that come from how the cluster was started, and what the recorded one had.
    pub start: Vec<(String, String)>,
    /// Tasks that are left out of lists.
    pub without: Vec<String>,
}

impl Target {
    /// Daemons that have seen nothing of the recording yet.
    pub fn new(master: SocketAddr, agents: Vec<SocketAddr>) -> Self {
        Self {
            master,
            agents,
            ids: Ids::default(),
            texts: Vec::new(),
            start: Vec::new(),
            without: Vec::new(),
        }
    }

    /// A recorded request with what stands for its ids and texts now.
    fn current(&self, request: &Request) -> Request {
        let mut request = request.clone();
        for (recorded, current) in &self.texts {
            request.substitute(recorded, current);
        }
        self.ids.substitute(&mut request);
        request
    }

    /// Where a recorded request goes, and the request as it is sent there.
    fn address(&self, request: &Request) -> (SocketAddr, Request) {
        let mut request = self.current(request);
        for (index, agent) in self.agents.iter().enumerate() {
            if let Some(rest) = request.path.strip_prefix(&format!("/slave({})", index + 1)) {
                request.path = format!("/slave(1){rest}");
                return (*agent, request);
            }
        }
        match self.agents.first() {
            // All recorded files are in agent 1's sandboxes.
            Some(agent) if request.path.starts_with("/files/") => (*agent, request),
            _ => (self.master, request),
        }
    }

    fn texts_as_recorded(&self, mut text: String) -> String {
        for (recorded, current) in &self.texts {
            text = text.replace(current, recorded);
        }
        text
    }

    /// Puts the recorded texts back where they were replaced in the request.
    fn as_recorded(&self, answer: &mut Answer) {
        if let Ok(text) = String::from_utf8(answer.body.clone()) {
            let mut text = self.ids.as_recorded(self.texts_as_recorded(text));
            for (current, recorded) in &self.start {
                text = text.replace(current, recorded);
            }
            answer.body = text.into_bytes();
        }
    }
}

/// What came of a replay: for each exchange `None` when it was equal, or what differed.
pub type Outcome = BTreeMap<String, Option<String>>;

/// Replays all exchanges against the target, one after the other.
pub fn replay(exchanges: &[Exchange], target: &Target) -> Outcome {
    exchanges
        .iter()
        .map(|exchange| (exchange.name.clone(), replay_one(exchange, target)))
        .collect()
}

/// What is different in the answer to one exchange.
fn replay_one(exchange: &Exchange, target: &Target) -> Option<String> {
    let (address, request) = target.address(&exchange.request);
    match ask(address, &request, exchange.answer.is_stream) {
        Ok(mut answer) => {
            target.as_recorded(&mut answer);
            compare(exchange, &answer, &target.without).err()
        }
        Err(error) => Some(format!("no answer: {error}")),
    }
}

/// Reads a list of expected differences: `group/name.json reason` a line, `#` for comments.
///
/// # Errors
/// A line without a reason, or an exchange listed twice.
pub fn expected_differences(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut listed = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (name, reason) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("no reason: {line}"))?;
        if listed
            .insert(name.to_owned(), reason.trim().to_owned())
            .is_some()
        {
            return Err(format!("listed twice: {name}"));
        }
    }
    Ok(listed)
}

/// The lines of `recordings/differences.txt` for the exchanges and sessions whose names begin so.
///
/// # Panics
/// A list that cannot be read.
pub fn listed_differences(groups: &[&str]) -> BTreeMap<String, String> {
    let list = std::fs::read_to_string(recordings().join("differences.txt")).expect("the list");
    let mut listed = expected_differences(&list).expect("a readable list");
    listed.retain(|name, _| groups.iter().any(|group| name.starts_with(group)));
    listed
}

/// Judges an outcome by the list of expected differences.
///
/// # Errors
/// What to fix: exchanges that differ and are not listed, exchanges that are listed and are equal,
/// and listed names that no recording has.
pub fn verdict(outcome: &Outcome, listed: &BTreeMap<String, String>) -> Result<(), String> {
    let mut report = String::new();
    let known: BTreeSet<&String> = outcome.keys().collect();
    for name in listed.keys().filter(|name| !known.contains(name)) {
        let _ = writeln!(
            report,
            "{name}: listed in differences.txt, but there is no such recording"
        );
    }
    for (name, difference) in outcome {
        match (difference, listed.contains_key(name)) {
            (None, true) => {
                let _ = writeln!(report, "{name}: is equal now; take it off differences.txt");
            }
            (Some(difference), false) => {
                let _ = writeln!(report, "{name}: {difference}");
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    if report.is_empty() {
        Ok(())
    } else {
        Err(report)
    }
}
