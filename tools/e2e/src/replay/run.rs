//! The recorded run as a script: which session goes how far, and what is asked in between.
//!
//! Lines of a script, `#` for comments:
//! - `play SESSION until SECOND`: plays a session up to a second of its own; `play SESSION` to its end.
//! - `leave SESSION`: ends a session whose client left at once.
//! - `clear SESSION`: the framework gives back all offers that the recorded one did not have in hand.
//! - `amounts SESSION`: what is free there depends on which task ends first, so its offers are
//!   compared without amounts.
//! - `without TASK`: lists are compared without this task and its executor, which wait for something
//!   that is not there yet; `with TASK` takes that back.
//! - `watch FRAMEWORK...`: an operator watches from here on, and what these frameworks did is compared at the end.
//! - `ask GROUP/NAME` or `ask GROUP/`: one recorded exchange, or a group of them in the order of their names.
//! - `post PATH BODY`: a step that the recording lacks, or that Mesos was given otherwise; recorded ids
//!   are replaced in it. It has to succeed.

use std::collections::BTreeMap;

use super::mask::Figures;
use super::session::Session;
use super::{Exchange, Outcome, Play, Request, Target, Watch, ask, replay_one};

/// Runs a script against a cluster.
///
/// # Errors
/// A line that says nothing or names what is not recorded, and a derived step that was refused.
pub fn run(
    script: &str,
    exchanges: &[Exchange],
    sessions: &[Session],
    listed: &BTreeMap<String, String>,
    target: &mut Target,
) -> Result<Outcome, String> {
    let mut run = Run {
        exchanges,
        sessions,
        listed,
        loose: Vec::new(),
        plays: BTreeMap::new(),
        watch: None,
        outcome: Outcome::new(),
    };
    for line in script.lines().map(str::trim) {
        if !line.is_empty() && !line.starts_with('#') {
            run.line(line, target)
                .map_err(|problem| format!("{line}: {problem}"))?;
        }
    }
    if let Some(watch) = run.watch.take() {
        run.outcome.extend(watch.finish(target));
    }
    match run.plays.keys().next() {
        Some(name) => Err(format!("{name} is not played to its end")),
        None => Ok(run.outcome),
    }
}

struct Run<'a> {
    exchanges: &'a [Exchange],
    sessions: &'a [Session],
    listed: &'a BTreeMap<String, String>,
    loose: Vec<String>,
    plays: BTreeMap<String, Play<'a>>,
    watch: Option<Watch>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn line(&mut self, line: &str, target: &mut Target) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').ok_or("no argument")?;
        match word {
            "amounts" => self.loose.push(rest.to_owned()),
            "play" => match rest.split_once(" until ") {
                Some((name, second)) => {
                    let second = second.parse().map_err(|_| "no second")?;
                    self.play(name)?.until(second, target);
                }
                None => {
                    self.play(rest)?;
                    let play = self.plays.remove(rest).expect("just looked up");
                    self.outcome.extend(play.finish(target));
                }
            },
            "leave" => {
                self.play(rest)?;
                let play = self.plays.remove(rest).expect("just looked up");
                self.outcome.extend(play.leave(target));
            }
            "clear" => self.play(rest)?.clear(target),
            "without" => target.without.push(rest.to_owned()),
            "with" => target.without.retain(|task| task != rest),
            "watch" => {
                let frameworks: Vec<&str> = rest.split(' ').collect();
                self.watch = Some(Watch::open(&frameworks, target)?);
            }
            "ask" => self.ask(rest, target)?,
            "post" => post(rest, target)?,
            _ => return Err("unknown word".to_owned()),
        }
        Ok(())
    }

    fn play(&mut self, name: &str) -> Result<&mut Play<'a>, String> {
        let sessions = self.sessions;
        let session = sessions
            .iter()
            .find(|session| session.name.strip_suffix(".json") == Some(name))
            .ok_or("no such session")?;
        let figures = if self.loose.iter().any(|loose| loose == name) {
            Figures::Amounts
        } else {
            Figures::Named
        };
        let play = self.plays.entry(name.to_owned());
        let listed = self.listed;
        Ok(play.or_insert_with(|| Play::new(session, figures, listed)))
    }

    fn ask(&mut self, name: &str, target: &Target) -> Result<(), String> {
        let is_group = name.ends_with('/');
        let mut asked = self.exchanges.iter().filter(|exchange| {
            if is_group {
                exchange.name.starts_with(name)
            } else {
                exchange.name.strip_suffix(".json") == Some(name)
            }
        });
        let first = asked.next().ok_or("no such recording")?;
        for exchange in std::iter::once(first).chain(asked) {
            let difference = replay_one(exchange, target);
            self.outcome
                .entry(exchange.name.clone())
                .or_insert(difference);
        }
        Ok(())
    }
}

fn post(rest: &str, target: &Target) -> Result<(), String> {
    let (path, body) = rest.split_once(' ').ok_or("no body")?;
    let request = Request::post_json(path, body.to_owned());
    let (address, request) = target.address(&request);
    let answer = ask(address, &request, false).map_err(|error| error.to_string())?;
    if answer.status / 100 == 2 {
        Ok(())
    } else {
        let body = String::from_utf8_lossy(&answer.body);
        Err(format!("{} {body}", answer.status))
    }
}
