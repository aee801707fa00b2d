//! Executors with processes of their own: their event streams, and changes of what their containers
//! have.
//!
//! While a container is being given more, what its executor is told waits, played ones included: a task begins only
//! once there is room for it.

use std::collections::{BTreeMap, VecDeque};

use tepui_containerizer::Limits;
use tepui_executor::{GroupInput, Input as ExecutorInput};
use tepui_http::{Media, StreamBody, StreamSender};
use tepui_model::Resources;
use tepui_model::id::ContainerId;
use tepui_proto::v1;
use tepui_proto::v1::executor::{self, call};
use tepui_proto::{Message as _, Wire, json, recordio};
use tepui_state_agent::{Event, Refusal};
use tokio::sync::oneshot;

use crate::launching::{amounts, limits};
use crate::owner::{Input, Owner};

/// An event stream that is read.
pub(crate) struct Stream {
    pub(crate) media: Media,
    pub(crate) sender: StreamSender,
}

impl Stream {
    /// False when it cannot be written to any more.
    fn send(&self, event: &executor::Event) -> bool {
        let record = match self.media {
            Media::Json => json::from_message(event),
            Media::Protobuf => event.encode_to_vec(),
        };
        self.sender.send(recordio::encode(&record)).is_ok()
    }
}

/// What a container has: resources, and limits by name.
#[derive(Debug)]
pub(crate) struct Share {
    resources: Vec<Wire<v1::Resource>>,
    limits: BTreeMap<String, f64>,
}

impl Share {
    pub(crate) fn amounts(&self) -> Result<(Resources, Limits), String> {
        Ok((amounts(&self.resources)?, limits(&self.limits)))
    }
}

/// All of them, by container.
#[derive(Default)]
pub(crate) struct Executors {
    /// Streams with their numbers.
    streams: BTreeMap<ContainerId, (u64, Stream)>,
    numbers: u64,
    changes: BTreeMap<ContainerId, Change>,
}

/// A change that is under way.
#[derive(Default)]
struct Change {
    /// The newest that has to follow it.
    next: Option<Share>,
    /// What the executor is told after it.
    held: VecDeque<Wire<executor::Event>>,
}

impl Executors {
    /// Takes a new stream in the place of an earlier one, which ends. Answers its number.
    pub(crate) fn open(&mut self, container: &ContainerId, stream: Stream) -> u64 {
        self.numbers += 1;
        if let Some(change) = self.changes.get_mut(container) {
            // It was for the reader before.
            change.held.clear();
        }
        self.streams
            .insert(container.clone(), (self.numbers, stream));
        self.numbers
    }

    /// Ends a stream after what was sent.
    pub(crate) fn close(&mut self, container: &ContainerId) {
        self.streams.remove(container);
        if let Some(change) = self.changes.get_mut(container) {
            change.held.clear();
        }
    }

    /// Nobody reads a stream any more; true unless another has taken its place.
    pub(crate) fn over(&mut self, container: &ContainerId, number: u64) -> bool {
        let current = self
            .streams
            .get(container)
            .is_some_and(|(n, _)| *n == number);
        if current {
            self.close(container);
        }
        current
    }

    /// Tells an executor something.
    pub(crate) fn send(&mut self, container: &ContainerId, event: Wire<executor::Event>) {
        if let Some((_, stream)) = self.streams.get(container)
            && !stream.send(&event)
        {
            tracing::warn!(%container, "executor does not read its events: disconnected");
        }
    }

    /// Notes a change; answers it if it may begin at once.
    pub(crate) fn update(
        &mut self,
        container: &ContainerId,
        resources: Vec<Wire<v1::Resource>>,
        limits: BTreeMap<String, f64>,
    ) -> Option<Share> {
        let share = Share { resources, limits };
        match self.changes.get_mut(container) {
            Some(change) => {
                change.next = Some(share);
                None
            }
            None => {
                self.changes.insert(container.clone(), Change::default());
                Some(share)
            }
        }
    }

    /// A change is done; answers the one that follows. Where none does: what waited, to be told now.
    pub(crate) fn updated(
        &mut self,
        container: &ContainerId,
    ) -> (Option<Share>, VecDeque<Wire<executor::Event>>) {
        let Some(change) = self.changes.get_mut(container) else {
            return Default::default();
        };
        if let Some(next) = change.next.take() {
            return (Some(next), VecDeque::new());
        }
        let held = self.changes.remove(container).map(|change| change.held);
        (None, held.unwrap_or_default())
    }

    /// Keeps an event while the container is being given more, answers it otherwise.
    pub(crate) fn hold(
        &mut self,
        container: &ContainerId,
        event: Wire<executor::Event>,
    ) -> Option<Wire<executor::Event>> {
        match self.changes.get_mut(container) {
            Some(change) => {
                change.held.push_back(event);
                None
            }
            None => Some(event),
        }
    }

    /// A container is over: no change of it ends any more.
    pub(crate) fn forget(&mut self, container: &ContainerId) {
        self.close(container);
        self.changes.remove(container);
    }
}

impl Owner {
    /// Takes a call of an executor with a process. A new stream replaces the one it had.
    pub(crate) fn executor_call(
        &mut self,
        call: executor::Call,
        media: Media,
        answer: oneshot::Sender<Result<Option<StreamBody>, Refusal>>,
    ) {
        let container = match self.state.caller(&call) {
            Ok(container) => container,
            Err(refusal) => {
                // Whoever called may be gone.
                let _ = answer.send(Err(refusal));
                return;
            }
        };
        let mut body = None;
        if call.r#type() == call::Type::Subscribe {
            let (sender, stream) = tepui_http::stream::stream();
            let gone = sender.gone();
            let number = self.executors.open(&container, Stream { media, sender });
            let (handle, container) = (self.handle.clone(), container.clone());
            self.runtime.spawn(async move {
                gone.cancelled().await;
                handle.tell(Input::StreamOver(container, number));
            });
            body = Some(stream);
        }
        // One that is gone has dropped its stream, and is heard of by that.
        let _ = answer.send(Ok(body));
        let call = Wire(call);
        self.events
            .push_back(Event::ExecutorCall { container, call });
    }

    /// Changes what a container has; one change at a time, so that the last one stays.
    pub(crate) fn start_update(&self, container: ContainerId, next: Option<Share>) {
        let Some(share) = next else { return };
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        self.runtime.spawn(async move {
            let result = match share.amounts() {
                Ok((resources, limits)) => {
                    let updated = containers.update(&container, resources, limits).await;
                    updated.map_err(|error| crate::chain(&error))
                }
                Err(message) => Err(message),
            };
            handle.tell(Input::Updated(container, result));
        });
    }

    pub(crate) fn tell_executor(&mut self, container: &ContainerId, event: Wire<executor::Event>) {
        if self.played.contains_key(container) {
            self.play(container, ExecutorInput::Event(event));
        } else if self.groups.contains_key(container) {
            self.play_groups(container, GroupInput::Event(event));
        } else {
            self.executors.send(container, event);
        }
    }
}
