//! Plays a recorded session against a cluster.
//!
//! Calls are made in their order, each after all that the recording has before it: its events have
//! come, and the recorded pause has passed (a long one is cut). Events are compared in the order of
//! their subject: the updates of a task, the offers of an agent, the end of an executor. What
//! different subjects do at one time has no order in the recording either.
//!
//! The outcome has a name for each call and each subject, so one that waits for something that is
//! not there yet does not hide the others: `scheduler/session-life.json#updates(t-stay)`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::wait_for;

use super::compare::{compare, protobuf_as_json};
use super::ids::Ids;
use super::mask::{self, Figures};
use super::session::{Row, Session, Step, call_type};
use super::stream::{Next, Stream};
use super::{Exchange, Outcome, Request, Target, ask};

/// An event that has not come by then does not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How long an event is waited for that is listed to differ.
const LISTED: Duration = Duration::from_millis(1500);

/// How long a stream that the server does not end is listened to after its last row: more than
/// the time between two rounds of offers.
const LISTENED: Duration = Duration::from_millis(1300);

/// The longest pause that is kept between two rows.
const LONGEST_PAUSE: f64 = 2.0;

/// When the pieces of an offer have come together: they are declined for no time, so with the batch.
const WHOLE: Duration = Duration::from_secs(10);

/// How much earlier than recorded an event may come after the call before it: offers are made each
/// second, and the recording begins anywhere in it.
const EARLIER: f64 = 1.5;

/// A part of an event that is compared by itself.
#[derive(Clone, Debug)]
struct Part {
    subject: String,
    text: String,
    at: Instant,
}

/// A session that is being played.
pub struct Play<'a> {
    session: &'a Session,
    figures: Figures,
    listed: &'a BTreeMap<String, String>,
    /// Whether the framework launches tasks.
    launches: bool,
    next: usize,
    stream: Option<Stream>,
    has_ended: bool,
    /// Whether the heartbeat that comes with the subscription was compared.
    has_heartbeat: bool,
    /// What came and was not compared yet, by subject.
    came: BTreeMap<String, VecDeque<Part>>,
    /// Subjects that went another way than recorded and are not waited for any more.
    given_up: BTreeSet<String>,
    /// Recorded and own time of the last call, and of the last row.
    called: (f64, Instant),
    last: (f64, Instant),
    /// How many seconds more than recorded lay between the last two calls.
    late: f64,
    outcome: Outcome,
}

impl<'a> Play<'a> {
    /// A session to be played. What is listed to differ is not waited for long.
    pub fn new(
        session: &'a Session,
        figures: Figures,
        listed: &'a BTreeMap<String, String>,
    ) -> Self {
        let now = (0.0, Instant::now());
        let is_accept = |row: &Row| matches!(&row.step, Step::Call(call) if call_type(&call.request).as_deref() == Some("ACCEPT"));
        Self {
            session,
            figures,
            listed,
            launches: session.rows.iter().any(is_accept),
            next: 0,
            stream: None,
            has_ended: false,
            has_heartbeat: false,
            came: BTreeMap::new(),
            given_up: BTreeSet::new(),
            called: now,
            last: now,
            late: 0.0,
            outcome: Outcome::new(),
        }
    }

    /// Plays all rows that were recorded before this second.
    pub fn until(&mut self, at: f64, target: &mut Target) {
        while let Some(row) = self.session.rows.get(self.next).filter(|row| row.at < at) {
            self.next += 1;
            match &row.step {
                Step::Call(exchange) => self.call(row.at, exchange, target),
                Step::Event(event) => self.event(row.at, event, target),
            }
            self.last = (row.at, Instant::now());
        }
    }

    /// Ends the session as the client did that left at once: what else would come is not looked at.
    /// No other framework may be connected.
    pub fn leave(mut self, target: &mut Target) -> Outcome {
        self.until(f64::INFINITY, target);
        drop(self.stream.take());
        let call = Request::post_json("/api/v1", r#"{"type":"GET_FRAMEWORKS"}"#.to_owned());
        wait_for("the master to notice", || {
            let answer = ask(target.master, &call, false).map_err(|error| error.to_string())?;
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let frameworks = body["get_frameworks"]["frameworks"].as_array().into_iter();
            match frameworks.flatten().find(|one| one["connected"] == true) {
                Some(framework) => Err(framework["framework_info"]["name"].to_string()),
                None => Ok(()),
            }
        });
        self.outcome()
    }

    /// Gives back the offers that came and were not recorded: the recorded framework had none in hand.
    pub fn clear(&mut self, target: &mut Target) {
        let deadline = Instant::now() + LISTENED;
        while self.receive(deadline, target) {}
        let subjects: Vec<String> = self.came.keys().cloned().collect();
        for subject in subjects.iter().filter(|s| s.starts_with("offers(")) {
            for piece in self.came.remove(subject).unwrap_or_default() {
                self.decline(&piece, target);
            }
        }
    }

    /// Plays the rest, and looks whether there was more than recorded and the stream ended as recorded.
    pub fn finish(mut self, target: &mut Target) -> Outcome {
        self.until(f64::INFINITY, target);
        if self.session.is_ended_by_server() {
            let deadline = Instant::now() + PATIENCE;
            while !self.has_ended && self.receive(deadline, target) {}
            let difference = (!self.has_ended).then(|| "the stream goes on".to_owned());
            self.note("end".to_owned(), difference);
        } else {
            let deadline = Instant::now() + LISTENED;
            while self.receive(deadline, target) {}
        }
        for (subject, parts) in std::mem::take(&mut self.came) {
            let mut parts = parts.into_iter();
            if let Some(part) = parts.find(|part| !self.is_surplus(part, &target.ids)) {
                let surplus = format!("not in the recording: {}", part.text);
                self.note(subject, Some(surplus));
            }
        }
        self.outcome()
    }

    /// Whether an event that nobody waited for is a matter of time: a piece of an offer, the end of one,
    /// or an update that the agent sent again.
    fn is_surplus(&self, part: &Part, ids: &Ids) -> bool {
        let event: Value = serde_json::from_str(&part.text).unwrap_or_default();
        let is_recorded = |id: &str| ids.recorded(id) != id;
        match part.subject.as_str() {
            "RESCIND" => self.launches && !is_recorded(text_at(&event, "/rescind/offer_id/value")),
            offers if offers.starts_with("offers(") => self.launches,
            operation if operation.starts_with("operation(") => {
                let uuid = "/update_operation_status/status/uuid/value";
                is_recorded(text_at(&event, uuid))
            }
            _ => is_recorded(text_at(&event, "/update/status/uuid")),
        }
    }

    /// What came of it, under the session's name.
    fn outcome(&mut self) -> Outcome {
        let name = &self.session.name;
        let outcome = std::mem::take(&mut self.outcome);
        outcome
            .into_iter()
            .map(|(subject, difference)| (format!("{name}#{subject}"), difference))
            .collect()
    }

    /// Keeps the first difference of a subject.
    fn note(&mut self, subject: String, difference: Option<String>) {
        let subject = subject.replace(char::is_whitespace, "_");
        let known = self.outcome.entry(subject).or_default();
        if known.is_none() {
            *known = difference;
        }
    }

    fn call(&mut self, at: f64, exchange: &Exchange, target: &mut Target) {
        let pause = Duration::from_secs_f64((at - self.last.0).clamp(0.0, LONGEST_PAUSE));
        // The framework took its time here, and what must not happen meanwhile would.
        std::thread::sleep(pause.saturating_sub(self.last.1.elapsed()));
        let request = target.current(&exchange.request);
        let is_first = self.stream.is_none();
        // What comes by a clock of its own goes on while a busy machine makes the framework late.
        let late = self.called.1.elapsed().as_secs_f64() - (at - self.called.0);
        self.late = if is_first { 0.0 } else { late.max(0.0) };
        self.called = (at, Instant::now());
        let answer = if is_first {
            Stream::open(target.master, &request).map(|stream| {
                let answer = stream.answer.clone();
                self.stream = Some(stream);
                answer
            })
        } else {
            ask(target.master, &request, false)
        };
        let difference = match answer {
            Ok(mut answer) => {
                target.as_recorded(&mut answer);
                let header = "Mesos-Stream-Id";
                if let (Some(recorded), Some(current)) =
                    (exchange.answer.header(header), answer.header(header))
                {
                    target.ids.note(recorded, current);
                }
                answer.is_stream = false;
                compare(exchange, &answer, &[]).err()
            }
            Err(error) => Some(format!("no answer: {error}")),
        };
        let kind = call_type(&exchange.request).unwrap_or_else(|| "SUBSCRIBE".to_owned());
        self.note(format!("{at}:{kind}"), difference);
    }

    fn event(&mut self, at: f64, event: &str, target: &mut Target) {
        let parts = match parts(event, &Ids::default(), Instant::now()) {
            Ok(parts) => parts,
            Err(problem) => return self.note("recording".to_owned(), Some(problem)),
        };
        for part in parts {
            let is_heartbeat = part.subject == "HEARTBEAT";
            // When later ones come is a matter of time.
            if !(is_heartbeat && self.has_heartbeat) {
                self.part(at, &part, target);
            }
            if is_heartbeat {
                self.has_heartbeat = true;
                self.came.remove("HEARTBEAT");
            }
        }
    }

    fn part(&mut self, at: f64, recorded: &Part, target: &mut Target) {
        let subject = &recorded.subject;
        let is_listed = self
            .listed
            .contains_key(&format!("{}#{subject}", self.session.name));
        let patience = match is_listed {
            true if self.launches && subject.starts_with("offers(") => WHOLE,
            true => LISTED,
            false => PATIENCE,
        };
        let deadline = Instant::now() + patience;
        let whole_by = Instant::now() + WHOLE;
        let came = loop {
            let came = self.came.get_mut(subject).and_then(VecDeque::pop_front);
            if let Some(part) = came {
                if !self.comes_in_pieces(recorded, &part) || Instant::now() > whole_by {
                    break part;
                }
                self.decline(&part, target);
            } else if self.given_up.contains(subject) || !self.receive(deadline, target) {
                self.given_up.insert(subject.clone());
                let missing = format!("did not come: {}", recorded.text);
                return self.note(subject.clone(), Some(missing));
            }
        };
        let mut difference = target
            .ids
            .compare(&recorded.text, &came.text, self.figures)
            .err();
        let earliest = at - self.called.0 - EARLIER - self.late;
        let after = came
            .at
            .saturating_duration_since(self.called.1)
            .as_secs_f64();
        if difference.is_none() && after < earliest {
            difference = Some(format!(
                "came {after:.1} s after the call before it, Mesos: {:.1} s",
                at - self.called.0
            ));
        }
        // A framework needs offers, the wrong ones too.
        if difference.is_some() && !subject.starts_with("offers(") {
            self.given_up.insert(subject.clone());
        }
        self.note(subject.clone(), difference);
    }

    /// Whether this is only a part of the recorded offer: what a task sets free is offered at once by
    /// Tepui, and with the next batch by Mesos.
    fn comes_in_pieces(&self, recorded: &Part, came: &Part) -> bool {
        let masked = |text: &str| mask::json_with_ids(text, self.figures).text;
        if !self.launches
            || !recorded.subject.starts_with("offers(")
            || masked(&recorded.text) == masked(&came.text)
        {
            return false;
        }
        let (whole, piece) = (amounts(&recorded.text), amounts(&came.text));
        whole
            .iter()
            .any(|(name, amount)| match (self.figures, piece.get(name)) {
                (_, None) => true,
                (Figures::Amounts, Some(_)) => false,
                (_, Some(piece)) => piece < amount,
            })
    }

    /// Gives a piece back, so that it comes again with the rest.
    fn decline(&mut self, piece: &Part, target: &Target) {
        let Some(stream) = &self.stream else { return };
        let offer: Value = serde_json::from_str(&piece.text).unwrap_or_default();
        let call = json!({
            "framework_id": offer["framework_id"],
            "type": "DECLINE",
            "decline": { "offer_ids": [offer["id"]], "filters": { "refuse_seconds": 0 } },
        });
        let stream_id = stream.answer.header("Mesos-Stream-Id").unwrap_or_default();
        let mut request = Request::post_json("/api/v1/scheduler", call.to_string());
        request
            .headers
            .push(("Mesos-Stream-Id".to_owned(), stream_id.to_owned()));
        let difference = match ask(target.master, &request, false) {
            Ok(answer) if answer.status == 202 => None,
            Ok(answer) => Some(format!("{} {}", answer.status, answer.reason)),
            Err(error) => Some(error.to_string()),
        };
        self.note("decline".to_owned(), difference);
    }

    /// Takes the next event from the stream; false when none comes in time or at all.
    fn receive(&mut self, deadline: Instant, target: &Target) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        let record = match stream.next(deadline.saturating_duration_since(Instant::now())) {
            Next::Record(record) => record,
            Next::Nothing => return false,
            Next::Ended => {
                self.has_ended = true;
                return false;
            }
            Next::Broken(problem) => {
                if !self.has_ended {
                    self.note("stream".to_owned(), Some(problem));
                }
                return false;
            }
        };
        let is_protobuf = stream.answer.header("Content-Type") == Some("application/x-protobuf");
        let json = if is_protobuf {
            protobuf_as_json("/scheduler", &record.bytes)
        } else {
            Ok(record.bytes)
        };
        let parts = json
            .and_then(|json| String::from_utf8(json).map_err(|error| error.to_string()))
            .map(|json| target.texts_as_recorded(json))
            .and_then(|json| parts(&json, &target.ids, record.at));
        match parts {
            Ok(parts) => {
                for part in parts {
                    if part.subject != "HEARTBEAT" || !self.has_heartbeat {
                        let came = self.came.entry(part.subject.clone()).or_default();
                        came.push_back(part);
                    }
                }
            }
            Err(problem) => self.note("stream".to_owned(), Some(problem)),
        }
        true
    }
}

#[derive(Deserialize)]
struct OffersEvent<'a> {
    #[serde(borrow)]
    offers: OffersBody<'a>,
}

#[derive(Deserialize)]
struct OffersBody<'a> {
    #[serde(borrow)]
    offers: Vec<&'a RawValue>,
}

/// Splits an event into what is compared: each offer by itself, since agents come in any order.
fn parts(event: &str, ids: &Ids, at: Instant) -> Result<Vec<Part>, String> {
    let value: Value = serde_json::from_str(event).map_err(|error| error.to_string())?;
    let kind = value["type"].as_str().unwrap_or_default();
    let part = |subject: String, text: &str| Part {
        subject,
        text: text.to_owned(),
        at,
    };
    let subject = match kind {
        "OFFERS" => {
            let event_of: OffersEvent<'_> =
                serde_json::from_str(event).map_err(|error| error.to_string())?;
            let offers: Vec<&str> = event_of.offers.offers.iter().map(|raw| raw.get()).collect();
            let whole = format!(
                r#"{{"type":"OFFERS","offers":{{"offers":[{}]}}}}"#,
                offers.join(",")
            );
            if whole == event {
                let agents = value["offers"]["offers"].as_array().into_iter().flatten();
                let agents = agents.map(|offer| text_at(offer, "/agent_id/value"));
                return Ok(agents
                    .zip(offers)
                    .map(|(agent, text)| part(format!("offers({})", ids.recorded(agent)), text))
                    .collect());
            }
            kind.to_owned()
        }
        "UPDATE" => {
            let task = text_at(&value, "/update/status/task_id/value");
            format!("updates({})", task.chars().take(40).collect::<String>())
        }
        "UPDATE_OPERATION_STATUS" => {
            let status = "/update_operation_status/status/operation_id/value";
            format!("operation({})", text_at(&value, status))
        }
        // Executors end in any order; an agent that is lost names none.
        "FAILURE" => format!(
            "failure({}@{})",
            text_at(&value, "/failure/executor_id/value"),
            ids.recorded(text_at(&value, "/failure/agent_id/value"))
        ),
        _ => kind.to_owned(),
    };
    Ok(vec![part(subject, event)])
}

/// How much of each resource an offer has, in thousandths; ranges and sets count as nothing.
fn amounts(offer: &str) -> BTreeMap<String, i64> {
    let offer: Value = serde_json::from_str(offer).unwrap_or_default();
    let mut amounts = BTreeMap::new();
    for resource in offer["resources"].as_array().into_iter().flatten() {
        let amount = resource["scalar"]["value"].as_f64().unwrap_or_default();
        *amounts
            .entry(text_at(resource, "/name").to_owned())
            .or_default() += (amount * 1000.0).round() as i64;
    }
    amounts
}

pub(super) fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executors_that_end_are_told_from_each_other_and_from_agents() {
        let subject = |failure: Value| {
            let event = json!({ "type": "FAILURE", "failure": failure }).to_string();
            let parts = parts(&event, &Ids::default(), Instant::now()).expect("an event");
            parts[0].subject.clone()
        };
        let of = |executor: &str| {
            subject(json!({ "agent_id": { "value": "S1" }, "executor_id": { "value": executor } }))
        };
        assert_ne!(of("x-bad"), of("x-pair"));
        assert_ne!(
            of("x-bad"),
            subject(json!({ "agent_id": { "value": "S1" } }))
        );
    }
}
