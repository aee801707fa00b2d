//! Which id of this run stands for which recorded one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Request;
use super::mask::{self, Figures};

/// Recorded ids and those of this run, one to one.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    current: BTreeMap<String, String>,
    recorded: BTreeMap<String, String>,
}

impl Ids {
    /// Notes that one id stands for the other, unless one of them is known already.
    pub fn note(&mut self, recorded: &str, current: &str) {
        if !self.current.contains_key(recorded) && !self.recorded.contains_key(current) {
            self.current.insert(recorded.to_owned(), current.to_owned());
            self.recorded
                .insert(current.to_owned(), recorded.to_owned());
        }
    }

    /// The recorded id that one of this run stands for.
    pub fn recorded<'a>(&'a self, current: &'a str) -> &'a str {
        self.recorded.get(current).map_or(current, String::as_str)
    }

    /// Puts this run's ids into a recorded request.
    pub fn substitute(&self, request: &mut Request) {
        // An agent's id contains the master's: from the end, the longer one comes first.
        for (recorded, current) in self.current.iter().rev() {
            request.substitute(recorded, current);
        }
    }

    /// A text of this run with the recorded ids.
    pub fn as_recorded(&self, mut text: String) -> String {
        for (current, recorded) in self.recorded.iter().rev() {
            text = text.replace(current, recorded);
        }
        text
    }

    /// Learns ids from two messages that should be equal: where both have one at the same place.
    pub fn learn(&mut self, recorded: &Value, current: &Value) {
        match (recorded, current) {
            (Value::Object(recorded), Value::Object(current)) => {
                for (key, value) in recorded {
                    if let Some(other) = current.get(key) {
                        self.learn_member(key, value, other);
                    }
                }
            }
            (Value::Array(recorded), Value::Array(current)) => {
                for (value, other) in recorded.iter().zip(current) {
                    self.learn(value, other);
                }
            }
            _ => {}
        }
    }

    fn learn_member(&mut self, key: &str, recorded: &Value, current: &Value) {
        match (recorded.as_str(), current.as_str()) {
            (Some(recorded), Some(current)) if key == "uuid" => self.note(recorded, current),
            (Some(recorded), Some(current)) => {
                if matches!(mask::text(recorded).as_str(), "<id>" | "<uuid>")
                    && mask::text(recorded) == mask::text(current)
                {
                    self.note(recorded, current);
                }
            }
            // A uuid of an operation is a message of its own.
            _ if key == "uuid" => {
                let bytes = |uuid: &Value| uuid["value"].as_str().map(str::to_owned);
                if let (Some(recorded), Some(current)) = (bytes(recorded), bytes(current)) {
                    self.note(&recorded, &current);
                }
            }
            _ => self.learn(recorded, current),
        }
    }

    /// Compares two JSON texts: equal once masked, and with ids that stand for each other.
    ///
    /// # Errors
    /// What differs first.
    pub fn compare(
        &mut self,
        recorded: &str,
        current: &str,
        figures: Figures,
    ) -> Result<(), String> {
        if let (Ok(recorded), Ok(current)) = (
            serde_json::from_str(recorded),
            serde_json::from_str(current),
        ) {
            self.learn(&recorded, &current);
        }
        let (theirs, ours) = (
            mask::json_with_ids(recorded, figures),
            mask::json_with_ids(current, figures),
        );
        super::compare::texts(&ours.text, &theirs.text)?;
        for (recorded, current) in theirs.ids.iter().zip(&ours.ids) {
            self.note(recorded, current);
            if self.current.get(recorded) != Some(current) {
                return Err(format!(
                    "{current} is there for {recorded}, which was {:?} before",
                    self.current.get(recorded)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a";
    const CURRENT: &str = "0bb699ce-0000-4d4d-ad59-74064e38038b";

    fn offer(master: &str, offer: u32, agent: u32) -> String {
        format!(r#"{{"id":{{"value":"{master}-O{offer}"}},"agent":"{master}-S{agent}"}}"#)
    }

    #[test]
    fn an_id_stands_for_the_same_one_throughout() {
        let mut ids = Ids::default();
        let mut equal =
            |recorded: &str, current: &str| ids.compare(recorded, current, Figures::Named).is_ok();
        assert!(equal(&offer(RECORDED, 1, 0), &offer(CURRENT, 7, 1)));
        assert!(equal(&offer(RECORDED, 2, 0), &offer(CURRENT, 8, 1)));
        // The other agent, and an offer that was there before.
        assert!(!equal(&offer(RECORDED, 3, 0), &offer(CURRENT, 9, 0)));
        assert!(!equal(&offer(RECORDED, 4, 0), &offer(CURRENT, 8, 1)));

        let mut request = Request::post_json("/x", offer(RECORDED, 2, 0));
        ids.substitute(&mut request);
        assert_eq!(request.body, Some(offer(CURRENT, 8, 1).into_bytes()));
        assert_eq!(ids.as_recorded(offer(CURRENT, 7, 1)), offer(RECORDED, 1, 0));
    }
}
