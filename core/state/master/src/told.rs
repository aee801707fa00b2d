//! Tasks as agents tell them when a session begins: after a failover those of a whole cluster.
//!
//! A row needs a few of a task's fields and the bytes of the others. So the message is not decoded into a tree and
//! encoded again: one walk takes out what is needed and copies the rest, which has been found decodable.

use bytes::Bytes;
use prost::encoding::{self, WireType};
use smallvec::SmallVec;
use tepui_model::id::{AgentId, ExecutorId, TaskId, Uuid};
use tepui_model::resources::Resources;
use tepui_proto::descriptor::Described as _;
use tepui_proto::v1::{self, Task, TaskState, TaskStatus};
use tepui_proto::{Message as _, convert, is_decodable};
use tepui_view::UpdateHead;

use crate::effect::bytes_of;

/// A task, taken apart.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: TaskId,
    /// Also a generated one.
    pub(crate) executor: Option<ExecutorId>,
    pub(crate) user: Option<String>,
    pub(crate) state: TaskState,
    pub(crate) resources: Resources,
    /// As rows keep them: without data.
    pub(crate) statuses: SmallVec<[Bytes; 3]>,
    pub(crate) update: Option<UpdateHead>,
    /// All other fields, with this agent's id.
    rest: Vec<u8>,
    /// Where in that the executor's id has its place.
    executor_at: usize,
}

impl Told {
    /// Reads a task of this agent; with it, the id of its framework. None for bytes that are no task.
    pub(crate) fn read<'a>(bytes: &'a [u8], agent: &AgentId) -> Option<(&'a str, Self)> {
        if !is_decodable(Task::DESCRIPTOR, bytes) {
            return None;
        }
        let mut told = Self {
            id: TaskId::from(""),
            executor: None,
            user: None,
            state: TaskState::default(),
            resources: Resources::new(),
            statuses: SmallVec::new(),
            update: None,
            rest: Vec::with_capacity(bytes.len()),
            executor_at: 0,
        };
        let mut framework = "";
        let (mut resources, mut update_state, mut update_uuid) = (Vec::new(), 0, None);
        let mut left = bytes;
        while !left.is_empty() {
            let field = Field::take(&mut left)?;
            match field.number {
                2 => told.id = TaskId::from(field.text()),
                3 => framework = field.text(),
                4 => told.executor = Some(ExecutorId::from(field.text())),
                5 if field.text() != agent.as_str() => {
                    put_id(5, agent.as_str(), &mut told.rest);
                    continue;
                }
                6 => told.state = TaskState::try_from(field.number_value()).unwrap_or_default(),
                7 => resources.push(v1::Resource::decode(field.value).ok()?),
                8 => told.statuses.push(without_data(field.value)),
                9 => update_state = field.number_value(),
                10 => update_uuid = Uuid::from_slice(field.value),
                14 => told.user = std::str::from_utf8(field.value).ok().map(Into::into),
                _ => {}
            }
            if !matches!(field.number, 4 | 6 | 8..=10) {
                told.rest.extend_from_slice(field.whole);
            }
            if field.number < 4 {
                told.executor_at = told.rest.len();
            }
        }
        told.resources = convert::resources(&resources).unwrap_or_default();
        told.update = update_uuid.map(|uuid| UpdateHead {
            state: TaskState::try_from(update_state).unwrap_or_default(),
            uuid,
        });
        Some((framework, told))
    }

    /// What a row keeps of the message: the executor's id in it if it is to be named.
    pub(crate) fn spec(&self, executor: Option<&ExecutorId>) -> Bytes {
        let (before, after) = self.rest.split_at(self.executor_at);
        let mut named = Vec::new();
        if let Some(executor) = executor {
            put_id(4, executor.as_str(), &mut named);
        }
        [before, &named, after].concat().into()
    }

    /// The newest status.
    pub(crate) fn last_status(&self) -> TaskStatus {
        let last = self.statuses.last();
        last.and_then(|bytes| TaskStatus::decode(bytes.clone()).ok())
            .unwrap_or_default()
    }
}

/// A field on the wire.
struct Field<'a> {
    number: u32,
    /// Key and value.
    whole: &'a [u8],
    /// The value without its length.
    value: &'a [u8],
}

impl<'a> Field<'a> {
    fn take(left: &mut &'a [u8]) -> Option<Self> {
        let begin = *left;
        let (number, wire) = encoding::decode_key(left).ok()?;
        if wire == WireType::LengthDelimited {
            let length = encoding::decode_varint(left).ok()?;
            let (value, rest) = left.split_at_checked(usize::try_from(length).ok()?)?;
            *left = rest;
            let whole = &begin[..begin.len() - rest.len()];
            return Some(Self {
                number,
                whole,
                value,
            });
        }
        let value = *left;
        encoding::skip_field(wire, number, left, Default::default()).ok()?;
        Some(Self {
            number,
            whole: &begin[..begin.len() - left.len()],
            value: &value[..value.len() - left.len()],
        })
    }

    /// Of an id, which is a message of one text.
    fn text(&self) -> &'a str {
        let mut left = self.value;
        let mut text = "";
        while !left.is_empty() {
            match Field::take(&mut left) {
                Some(field) if field.number == 1 => {
                    text = std::str::from_utf8(field.value).unwrap_or_default();
                }
                Some(_) => {}
                None => break,
            }
        }
        text
    }

    /// Of an enum.
    fn number_value(&self) -> i32 {
        let mut value = self.value;
        encoding::decode_varint(&mut value).unwrap_or_default() as i32
    }
}

/// Appends an id.
fn put_id(number: u32, id: &str, out: &mut Vec<u8>) {
    let id = v1::TaskId { value: id.into() };
    encoding::message::encode(number, &id, out);
}

/// A status as rows keep it.
fn without_data(status: &[u8]) -> Bytes {
    const DATA: u32 = 3;
    let mut left = status;
    let mut has_data = false;
    while !left.is_empty()
        && let Some(field) = Field::take(&mut left)
    {
        has_data |= field.number == DATA;
    }
    if !has_data {
        return Bytes::copy_from_slice(status);
    }
    let mut status = TaskStatus::decode(status).unwrap_or_default();
    status.data = None;
    bytes_of(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::spec_of;

    fn id(value: &str) -> v1::TaskId {
        v1::TaskId {
            value: value.into(),
        }
    }

    fn task() -> Task {
        let status = |state: TaskState, data: Option<&'static [u8]>| TaskStatus {
            task_id: id("t"),
            state: state.into(),
            data: data.map(Bytes::from_static),
            ..TaskStatus::default()
        };
        let resources = Resources::parse("cpus:1;ports:[1-2]", "role").expect("resources");
        Task {
            name: "name".into(),
            task_id: id("t"),
            framework_id: v1::FrameworkId { value: "f".into() },
            executor_id: Some(v1::ExecutorId { value: "e".into() }),
            agent_id: v1::AgentId { value: "a".into() },
            state: TaskState::TaskRunning.into(),
            resources: convert::to_proto(&resources),
            statuses: vec![
                status(TaskState::TaskStarting, None),
                status(TaskState::TaskRunning, Some(b"large")),
            ],
            status_update_state: Some(TaskState::TaskStarting.into()),
            status_update_uuid: Some(Bytes::from_static(&[7; 16])),
            labels: Some(v1::Labels {
                labels: vec![v1::Label {
                    key: "key".into(),
                    value: Some("é".into()),
                }],
            }),
            user: Some("user".into()),
            limits: [("cpus".to_owned(), v1::value::Scalar { value: 2.0 })].into(),
            ..Task::default()
        }
    }

    /// What is kept of the message when it is decoded and encoded.
    fn kept(mut task: Task, agent: &str, executor: Option<&str>) -> Bytes {
        task.agent_id.value = agent.into();
        task.executor_id = executor.map(|id| v1::ExecutorId { value: id.into() });
        (task.status_update_state, task.status_update_uuid) = (None, None);
        task.statuses.clear();
        spec_of(&task)
    }

    #[test]
    fn a_task_is_taken_apart_as_if_it_were_decoded() {
        let bytes = task().encode_to_vec();
        for agent in ["a", "another"] {
            let agent = AgentId::from(agent);
            let (framework, told) = Told::read(&bytes, &agent).expect("a task");
            assert_eq!((framework, told.id.as_str()), ("f", "t"));
            assert_eq!(told.executor, Some(ExecutorId::from("e")));
            assert_eq!(told.user.as_deref(), Some("user"));
            assert_eq!(told.state, TaskState::TaskRunning);
            let resources = convert::resources(&task().resources).expect("resources");
            assert_eq!(told.resources, resources);
            let update = told.update.expect("an update");
            assert_eq!(update.state, TaskState::TaskStarting);
            assert_eq!(update.uuid.as_bytes().as_slice(), [7; 16]);
            let [starting, mut running] = task().statuses.try_into().expect("two");
            running.data = None;
            assert_eq!(told.statuses[..], [bytes_of(&starting), bytes_of(&running)]);
            assert_eq!(told.last_status(), running);
            assert_eq!(told.spec(None), kept(task(), agent.as_str(), None));
            let executor = ExecutorId::from("e");
            let named = kept(task(), agent.as_str(), Some("e"));
            assert_eq!(told.spec(Some(&executor)), named);
        }
    }

    #[test]
    fn what_is_no_task_is_not_taken() {
        let bytes = task().encode_to_vec();
        let agent = AgentId::from("a");
        let damaged = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Told::read(&bytes, &agent).is_none()
        };
        assert!(damaged(2, 0xff), "a name that is no UTF-8");
        assert!(damaged(1, 0x7f), "a name that is longer than the message");
        assert!(Told::read(&bytes[..bytes.len() - 1], &agent).is_none());
    }
}
