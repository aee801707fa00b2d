//! The stream of operators' events over the recorded run.
//!
//! One operator watched all of it. Here the run is replayed in parts, so a watch compares what concerns the
//! frameworks of its part: the snapshot it begins with, and each subject's events in their order. A subject is a
//! task, a framework or an agent; what several do at one time has no order in the recording either.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mask::Figures;
use super::play::{PATIENCE, text_at};
use super::session::records;
use super::{Next, Outcome, Request, Stream, Target, recordings};

/// Below `recordings`.
const RECORDING: &str = "events/master-subscribe";

/// A heartbeat comes this often; Mesos and Tepui have the interval built in.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How far heartbeats may be away from their times, more than a busy machine takes.
const LATE: Duration = Duration::from_secs(5);

/// An operator who watches.
pub struct Watch {
    recorded: Vec<String>,
    frameworks: Vec<String>,
    stream: Stream,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    /// Name of the framework that it belongs to, as it was first seen.
    framework: Option<String>,
    name: String,
}

impl Watch {
    /// Begins to watch what these frameworks do; with the snapshot if there are any recorded agents to see in it.
    ///
    /// # Errors
    /// No stream, or a recording that cannot be read.
    pub fn open(frameworks: &[&str], target: &Target) -> Result<Self, String> {
        let file = recordings().join(RECORDING).with_extension("recordio");
        let recorded = std::fs::read(file).map_err(|error| error.to_string())?;
        let recorded = records(&recorded).map_err(|error| error.to_string())?;
        let request = Request::post_json("/api/v1", r#"{"type":"SUBSCRIBE"}"#.to_owned());
        let stream = Stream::open(target.master, &request).map_err(|error| error.to_string())?;
        Ok(Self {
            recorded,
            frameworks: frameworks.iter().map(|&name| name.to_owned()).collect(),
            stream,
        })
    }

    /// Compares what came.
    pub fn finish(self, target: &mut Target) -> Outcome {
        let mut outcome = Outcome::new();
        let mut names = Names::default();
        let mut recorded: BTreeMap<Subject, VecDeque<String>> = BTreeMap::new();
        for event in &self.recorded {
            let subject = names.subject(event);
            if self.is_watched(&subject) {
                recorded
                    .entry(subject)
                    .or_default()
                    .push_back(event.clone());
            }
        }
        let (mut came, beats) = self.received(&recorded, target);
        outcome.insert(format!("{RECORDING}.json#HEARTBEAT"), late(&beats));
        for (subject, events) in recorded {
            let came = came.remove(&subject).unwrap_or_default();
            let difference = compare(&events, &came, target);
            outcome.insert(format!("{RECORDING}.json#{}", subject.name), difference);
        }
        for (subject, events) in came {
            if self.is_watched(&subject) {
                let surplus = format!("not in the recording: {}", events[0]);
                outcome.insert(format!("{RECORDING}.json#{}", subject.name), Some(surplus));
            }
        }
        outcome
    }

    fn is_watched(&self, subject: &Subject) -> bool {
        let framework = subject.framework.as_ref();
        framework.is_some_and(|name| self.frameworks.contains(name))
    }

    /// What came by subject, and when the heartbeats did. Waits until as much came as was recorded.
    fn received(
        &self,
        recorded: &BTreeMap<Subject, VecDeque<String>>,
        target: &Target,
    ) -> (BTreeMap<Subject, VecDeque<String>>, Vec<Instant>) {
        let mut names = Names::default();
        let (mut came, mut beats) = (BTreeMap::<Subject, VecDeque<String>>::new(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        let lacks = |came: &BTreeMap<Subject, VecDeque<String>>| {
            let mut subjects = recorded.iter();
            subjects
                .any(|(subject, events)| came.get(subject).map_or(0, VecDeque::len) < events.len())
        };
        loop {
            let patience = match lacks(&came) {
                true => deadline.saturating_duration_since(Instant::now()),
                false => Duration::from_millis(300),
            };
            let Next::Record(record) = self.stream.next(patience) else {
                return (came, beats);
            };
            let event = String::from_utf8_lossy(&record.bytes).into_owned();
            if event.starts_with(r#"{"type":"HEARTBEAT""#) {
                beats.push(record.at);
                continue;
            }
            let event = target.texts_as_recorded(event);
            let subject = names.subject(&target.ids.as_recorded(event.clone()));
            came.entry(subject).or_default().push_back(event);
        }
    }
}

/// Names of frameworks by their recorded ids.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn subject(&mut self, event: &str) -> Subject {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        let kind = event["type"].as_str().unwrap_or_default();
        let body = &event[kind.to_lowercase()];
        let (id, name) = match kind {
            "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED" => {
                let info = &body["framework"]["framework_info"];
                (text_at(info, "/id/value"), text_at(info, "/name"))
            }
            "FRAMEWORK_REMOVED" => {
                let info = &body["framework_info"];
                (text_at(info, "/id/value"), text_at(info, "/name"))
            }
            "TASK_ADDED" => (text_at(body, "/task/framework_id/value"), ""),
            "TASK_UPDATED" => (text_at(body, "/framework_id/value"), ""),
            _ => ("", ""),
        };
        let framework = (!id.is_empty()).then(|| {
            let known = self.0.entry(id.to_owned());
            known.or_insert_with(|| name.to_owned()).clone()
        });
        let name = match kind {
            "TASK_ADDED" => format!("task({})", text_at(body, "/task/task_id/value")),
            "TASK_UPDATED" => format!("task({})", text_at(body, "/status/task_id/value")),
            _ => match &framework {
                Some(name) => format!("framework({name})"),
                None => kind.to_owned(),
            },
        };
        Subject { framework, name }
    }
}

fn compare(
    recorded: &VecDeque<String>,
    came: &VecDeque<String>,
    target: &mut Target,
) -> Option<String> {
    for (number, (theirs, ours)) in (1..).zip(recorded.iter().zip(came)) {
        let is_last = number == recorded.len();
        let (theirs, ours) = (latest(theirs, is_last), latest(ours, is_last));
        if let Err(difference) = target.ids.compare(&theirs, &ours, Figures::Named) {
            return Some(difference);
        }
    }
    if let Some(missing) = recorded.get(came.len()) {
        return Some(format!("did not come: {missing}"));
    }
    let surplus = came.get(recorded.len())?;
    Some(format!("not in the recording: {surplus}"))
}

/// An update names the latest state of its task beside its own: which that is before the last one is a matter of
/// time.
fn latest(event: &str, is_last: bool) -> String {
    match event.rsplit_once(r#","state":"#) {
        Some((before, _)) if !is_last && event.starts_with(r#"{"type":"TASK_UPDATED""#) => {
            format!(r#"{before},"state":"<latest>"}}}}"#)
        }
        _ => event.to_owned(),
    }
}

/// Whether heartbeats did not come at once and each 15 s. What is busy makes one of them late, and the gap behind it
/// short: so each is held against the clock and not against the one before.
fn late(beats: &[Instant]) -> Option<String> {
    let Some(first) = beats.first() else {
        return Some("none came".to_owned());
    };
    let lateness = (0_u32..).zip(beats).map(|(number, beat)| {
        let due = HEARTBEAT.as_secs_f64() * f64::from(number);
        (*beat - *first).as_secs_f64() - due
    });
    let (least, most) = lateness.fold((0.0_f64, 0.0_f64), |(least, most), late| {
        (least.min(late), most.max(late))
    });
    (most - least > LATE.as_secs_f64())
        .then(|| format!("up to {:.1} s away from each 15 s", most - least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_may_be_late_and_keep_their_interval() {
        let start = Instant::now();
        let judged = |seconds: &[f64]| {
            let at = |seconds: &f64| start + Duration::from_secs_f64(*seconds);
            late(&seconds.iter().map(at).collect::<Vec<_>>())
        };
        assert_eq!(judged(&[0.1, 15.0, 31.9, 45.1]), None);
        assert_eq!(judged(&[1.9, 15.0, 30.0]), None);
        for wrong in [
            &[][..],
            &[0.0, 15.0, 45.0],
            &[0.0, 21.0],
            &[0.0, 13.0, 26.0, 39.0],
            &[0.0, 1.0],
        ] {
            assert!(judged(wrong).is_some(), "{wrong:?}");
        }
    }
}
