//! SUBSCRIBE: checks, the first events of a stream, and its heartbeats.

use tepui_model::allocation::FrameworkKey;
use tepui_model::id::{FrameworkId, Role};
use tepui_model::time::{Mono, Now};
use tepui_proto::v1::{self, FrameworkInfo, scheduler};
use tepui_proto::{Message as _, Wire};

use crate::counts::Count;
use crate::event::{CallId, StreamKey};
use crate::framework::{Standing, Stream};
use crate::timers::Timer;
use crate::{Effect, MasterState, validate};

fn error_event(message: String) -> scheduler::Event {
    scheduler::Event {
        r#type: Some(scheduler::event::Type::Error as i32),
        error: Some(scheduler::event::Error { message }),
        ..Default::default()
    }
}

fn heartbeat_event() -> scheduler::Event {
    scheduler::Event {
        r#type: Some(scheduler::event::Type::Heartbeat as i32),
        ..Default::default()
    }
}

impl MasterState {
    pub(crate) fn subscribe(
        &mut self,
        call: CallId,
        principal: Option<String>,
        request: scheduler::Call,
        refused: Option<String>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let subscribe = request.subscribe.unwrap_or_default();
        let mut info = subscribe.framework_info;
        let id = info
            .id
            .take()
            .filter(|id| !id.value.is_empty())
            .map(|id| FrameworkId::from(id.value));
        self.counts.add(match id {
            None => Count::SubscribedNew,
            Some(_) => Count::SubscribedAgain,
        });
        if let Err(message) = self.may_subscribe(
            id.as_ref(),
            &info,
            &subscribe.suppressed_roles,
            subscribe.offer_constraints.as_ref(),
            principal.as_deref(),
            refused,
        ) {
            return self.refuse_subscription(call, message, effects);
        }
        let known = id
            .as_ref()
            .and_then(|id| self.framework_ids.get(id))
            .copied();
        let mut brought = false;
        let key = match known {
            Some(key) => key,
            None => {
                brought = id.is_some();
                let id = id.unwrap_or_else(|| self.new_framework_id());
                self.new_framework(id)
            }
        };
        self.frameworks[&key]
            .counts
            .call(scheduler::call::Type::Subscribe);
        let was = self.frameworks[&key].standing;
        self.discard_offers_of_framework(key, now);
        if info.principal.is_none() {
            info.principal = principal;
        }
        self.update_info(
            key,
            info,
            &subscribe.suppressed_roles,
            subscribe.offer_constraints,
            brought,
            effects,
        );
        let new = known.is_none();
        let stream = Stream {
            key: StreamKey(self.next_stream),
            id: self.rng.uuid(),
        };
        self.next_stream += 1;
        self.replace_stream(key, stream, effects);
        let framework = self.frameworks.get_mut(&key).expect("just found or made");
        if was == Standing::Recovered {
            framework.registered = now.wall;
        }
        framework.standing = Standing::Active;
        framework.reregistered = Some(now.wall);
        framework.unregistered = None;
        framework.version += 1;
        let framework_id = framework.id.clone();
        effects.push(Effect::OpenStream {
            call,
            stream: stream.key,
            stream_id: stream.id,
            framework: Some(framework_id.clone()),
        });
        let event = self.subscribed_event(&framework_id);
        let framework = &self.frameworks[&key];
        framework.send(event, effects);
        framework.send(heartbeat_event(), effects);
        self.timers.set(
            now.mono + self.settings.heartbeat_interval,
            Timer::Heartbeat(stream.key),
        );
        self.tell_framework(key, new);
        self.operators_framework(key, new && !brought, effects);
        if !new {
            self.resend_updates(key, effects);
        }
        self.allocation.want_all();
    }

    /// Takes over what a subscriber says of itself. Subscribers of the operator API see a framework that brought
    /// its id as recovered, or one with another info, before they see it connected, as with Mesos.
    fn update_info(
        &mut self,
        key: FrameworkKey,
        mut info: FrameworkInfo,
        suppressed: &[String],
        constraints: Option<scheduler::OfferConstraints>,
        brought: bool,
        effects: &mut Vec<Effect>,
    ) {
        let framework = &self.frameworks[&key];
        let old = framework.info.clone();
        let recovered = framework.standing == Standing::Recovered;
        if !recovered {
            // user and checkpoint cannot change: the old ones stay, as in Mesos.
            info.user = old.user.clone();
            info.checkpoint = old.checkpoint;
        }
        let suppressed = suppressed.iter().map(|role| Role::from(role.as_str()));
        self.change_framework(key, info, suppressed.collect(), constraints);
        let changed = !recovered && self.frameworks[&key].info != old;
        if brought || changed {
            self.operators_framework(key, brought, effects);
        }
    }

    fn may_subscribe(
        &self,
        id: Option<&FrameworkId>,
        info: &FrameworkInfo,
        suppressed: &[String],
        constraints: Option<&scheduler::OfferConstraints>,
        principal: Option<&str>,
        refused: Option<String>,
    ) -> Result<(), String> {
        if let Some(id) = id {
            validate::framework_id(id.as_str())?;
        }
        validate::framework_info(info)?;
        self.may_have_roles(info)?;
        validate::suppressed_roles(info, suppressed)?;
        if let Some(constraints) = constraints {
            validate::offer_constraints(constraints)?;
        }
        if let Some(message) = refused {
            return Err(message);
        }
        let Some(id) = id else { return Ok(()) };
        if self.removed_frameworks.contains(id) {
            return Err("Framework has been removed".into());
        }
        if let Some(framework) = self.framework_ids.get(id).map(|key| &self.frameworks[key])
            && framework.standing != Standing::Recovered
        {
            let new = info.principal.as_deref().or(principal);
            let old = framework.info.principal.as_deref();
            if new != old {
                return Err(format!(
                    "Changing framework's principal is not allowed. Attempted to change from '{}' to '{}'",
                    old.unwrap_or("<none>"),
                    new.unwrap_or("<none>"),
                ));
            }
        }
        Ok(())
    }

    fn refuse_subscription(&mut self, call: CallId, message: String, effects: &mut Vec<Effect>) {
        let stream = StreamKey(self.next_stream);
        self.next_stream += 1;
        effects.push(Effect::OpenStream {
            call,
            stream,
            stream_id: self.rng.uuid(),
            framework: None,
        });
        effects.push(Effect::ToScheduler {
            stream,
            event: Wire(error_event(message)),
        });
        effects.push(Effect::CloseStream { stream });
    }

    fn new_framework_id(&mut self) -> FrameworkId {
        let number = self.next_framework;
        self.next_framework += 1;
        FrameworkId::from(format!("{}-{number:04}", self.master_id))
    }

    fn replace_stream(&mut self, key: FrameworkKey, new: Stream, effects: &mut Vec<Effect>) {
        let framework = self.frameworks.get_mut(&key).expect("framework exists");
        if let Some(old) = framework.stream {
            framework.send(error_event("Framework failed over".into()), effects);
            effects.push(Effect::CloseStream { stream: old.key });
            self.streams.remove(&old.key);
        }
        framework.stream = Some(new);
        self.streams.insert(new.key, key);
    }

    fn subscribed_event(&self, id: &FrameworkId) -> scheduler::Event {
        let mut master =
            v1::MasterInfo::decode(self.settings.master_info.clone()).unwrap_or_default();
        master.id = self.master_id.clone();
        scheduler::Event {
            r#type: Some(scheduler::event::Type::Subscribed as i32),
            subscribed: Some(scheduler::event::Subscribed {
                framework_id: v1::FrameworkId {
                    value: id.to_string(),
                },
                heartbeat_interval_seconds: Some(self.settings.heartbeat_interval.as_secs_f64()),
                master_info: Some(master),
            }),
            ..Default::default()
        }
    }

    pub(crate) fn heartbeat(
        &mut self,
        stream: StreamKey,
        due: Mono,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.streams.get(&stream) else {
            return;
        };
        self.frameworks[key].send(heartbeat_event(), effects);
        let next = (due + self.settings.heartbeat_interval).max(now.mono);
        self.timers.set(next, Timer::Heartbeat(stream));
    }
}
