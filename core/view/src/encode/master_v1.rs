//! The large answers of the master's v1 operator API, as JSON and as protobuf.
//!
//! Each is a message with lists of rows, perhaps nested once. The same bytes of a row serve both
//! forms; only the frame around them differs. Lists are written in JSON even when they are empty,
//! as Mesos does here and nowhere else.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use tepui_model::allocation::FrameworkKey;
use tepui_model::time::Wall;
use tepui_proto::descriptor::{self, Described, MessageDescriptor};
use tepui_proto::json::Writer;
use tepui_proto::v1;
use tepui_proto::v1::master::response::Type;
use tepui_proto::v1::master::response::get_executors::Executor;
use tepui_proto::v1::master::response::get_frameworks::Framework;

use super::wire::{framed_len, put_bytes, put_head, put_message, put_varint, varint_len};
use super::{Sink, Visibility, json, resources};
use crate::rows::{AgentRow, ExecutorRow, OfferRow, TaskRow};
use crate::view::{FrameworkView, View};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`
    Json,
    /// `application/x-protobuf`
    Protobuf,
}

/// A row's message.
#[derive(Clone, Copy)]
enum Row<'a> {
    Message(&'a [u8]),
    /// Put together where it is written: copying the tasks of a large cluster takes its time.
    Task(&'a TaskRow),
}

impl Row<'_> {
    fn len(self) -> usize {
        match self {
            Row::Message(bytes) => bytes.len(),
            Row::Task(task) => task_len(task),
        }
    }

    fn append(self, out: &mut Vec<u8>) {
        match self {
            Row::Message(bytes) => out.extend_from_slice(bytes),
            Row::Task(task) => append_task(task, out),
        }
    }
}

/// Receives rows, until it wants no more.
type Rows<'a> = &'a mut dyn FnMut(Row<'_>) -> ControlFlow<()>;

/// A list in an answer.
struct List {
    number: u32,
    key: &'static str,
    /// How a row becomes JSON.
    json: fn(&mut Writer<'_>, &[u8]),
    rows: fn(&View, &Visibility, Rows<'_>) -> ControlFlow<()>,
}

/// A message of lists, and where it stands in `Response` and in `GetState`.
struct Part {
    kind: Type,
    number: u32,
    number_in_state: u32,
    key: &'static str,
    lists: &'static [List],
}

static TASKS: Part = Part {
    kind: Type::GetTasks,
    number: 13,
    number_in_state: 1,
    key: "get_tasks",
    lists: &[
        List {
            number: 2,
            key: "tasks",
            json: plain::<v1::Task>,
            rows: tasks,
        },
        List {
            number: 5,
            key: "unreachable_tasks",
            json: plain::<v1::Task>,
            rows: unreachable_tasks,
        },
        List {
            number: 3,
            key: "completed_tasks",
            json: plain::<v1::Task>,
            rows: completed_tasks,
        },
    ],
};

static EXECUTORS: Part = Part {
    kind: Type::GetExecutors,
    number: 12,
    number_in_state: 2,
    key: "get_executors",
    lists: &[List {
        number: 1,
        key: "executors",
        json: plain::<Executor>,
        rows: executors,
    }],
};

static FRAMEWORKS: Part = Part {
    kind: Type::GetFrameworks,
    number: 11,
    number_in_state: 3,
    key: "get_frameworks",
    lists: &[
        List {
            number: 1,
            key: "frameworks",
            json: plain::<Framework>,
            rows: frameworks,
        },
        List {
            number: 2,
            key: "completed_frameworks",
            json: plain::<Framework>,
            rows: completed_frameworks,
        },
    ],
};

static AGENTS: Part = Part {
    kind: Type::GetAgents,
    number: 10,
    number_in_state: 4,
    key: "get_agents",
    lists: &[
        List {
            number: 1,
            key: "agents",
            json: agent_json,
            rows: agents,
        },
        List {
            number: 2,
            key: "recovered_agents",
            json: agent_info_json,
            rows: recovered_agents,
        },
    ],
};

/// In the order of the recorded JSON.
static STATE: [&Part; 4] = [&TASKS, &EXECUTORS, &FRAMEWORKS, &AGENTS];

/// `get_state` in `Response`.
const STATE_NUMBER: u32 = 9;

/// Answers GET_TASKS.
pub fn get_tasks(view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    one(&TASKS, view, see, form, sink);
}

/// Answers GET_EXECUTORS.
pub fn get_executors(view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    one(&EXECUTORS, view, see, form, sink);
}

/// Answers GET_FRAMEWORKS.
pub fn get_frameworks(view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    one(&FRAMEWORKS, view, see, form, sink);
}

/// Answers GET_AGENTS.
pub fn get_agents(view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    one(&AGENTS, view, see, form, sink);
}

/// Answers GET_STATE.
pub fn get_state(view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    match form {
        Form::Json => json(sink, |w| {
            w.object(|w| {
                w.key("type").str(Type::GetState.as_str_name());
                w.key("get_state").object(|w| state_json(w, view, see));
            });
        }),
        Form::Protobuf => protobuf(sink, |out| {
            put_varint(1, Type::GetState as u64, out.buffer());
            let lengths = STATE.map(|part| lengths(part, view, see));
            let total = state_len(&lengths);
            out.open(STATE_NUMBER, total);
            for (part, lengths) in STATE.iter().zip(&lengths) {
                part_protobuf(part, part.number_in_state, lengths, view, see, out);
            }
        }),
    }
}

/// The `GetState` message alone, in either form: the first event of a subscriber holds it.
#[must_use]
pub fn state_message(view: &View, see: &Visibility, form: Form) -> Vec<u8> {
    super::collect(|sink| match form {
        Form::Json => json(sink, |w| w.object(|w| state_json(w, view, see))),
        Form::Protobuf => protobuf(sink, |out| {
            for part in STATE {
                let lengths = lengths(part, view, see);
                part_protobuf(part, part.number_in_state, &lengths, view, see, out);
            }
        }),
    })
}

fn one(part: &Part, view: &View, see: &Visibility, form: Form, sink: Sink<'_>) {
    match form {
        Form::Json => json(sink, |w| {
            w.object(|w| {
                w.key("type").str(part.kind.as_str_name());
                w.key(part.key);
                part_json(w, part, view, see);
            });
        }),
        Form::Protobuf => protobuf(sink, |out| {
            put_varint(1, part.kind as u64, out.buffer());
            let lengths = lengths(part, view, see);
            part_protobuf(part, part.number, &lengths, view, see, out);
        }),
    }
}

fn state_json(w: &mut Writer<'_>, view: &View, see: &Visibility) {
    for part in STATE {
        w.key(part.key);
        part_json(w, part, view, see);
    }
}

fn part_json(w: &mut Writer<'_>, part: &Part, view: &View, see: &Visibility) {
    let mut scratch = Vec::with_capacity(4096);
    w.object(|w| {
        for list in part.lists {
            w.key(list.key).array(|w| {
                let _ = (list.rows)(view, see, &mut |row| {
                    match row {
                        Row::Message(message) => (list.json)(w, message),
                        task @ Row::Task(_) => {
                            scratch.clear();
                            task.append(&mut scratch);
                            (list.json)(w, &scratch);
                        }
                    }
                    match w.is_stopped() {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                });
            });
        }
    });
}

/// A protobuf answer in pieces.
struct Pieces<'a> {
    sink: Sink<'a>,
    piece: Vec<u8>,
    /// What the sink said last.
    wanted: ControlFlow<()>,
}

impl Pieces<'_> {
    const SIZE: usize = 64 * 1024;

    /// Where small fields may be put.
    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.piece.len() >= Self::SIZE {
            let fresh = Vec::with_capacity(Self::SIZE + Self::SIZE / 4);
            let piece = Bytes::from(std::mem::replace(&mut self.piece, fresh));
            if self.wanted.is_continue() {
                self.wanted = (self.sink)(piece);
            }
        }
        &mut self.piece
    }

    /// Begins a message of a known length.
    fn open(&mut self, number: u32, length: usize) {
        put_head(number, length, self.buffer());
    }
}

fn protobuf(sink: Sink<'_>, write: impl FnOnce(&mut Pieces<'_>)) {
    let piece = Vec::with_capacity(4096);
    let mut out = Pieces {
        sink,
        piece,
        wanted: ControlFlow::Continue(()),
    };
    write(&mut out);
    if out.wanted.is_continue() {
        let _ = (out.sink)(out.piece.into());
    }
}

/// The length of each list's rows in a part: lengths stand before what they measure. All rows but tasks
/// are made twice for it; keeping them would cost their memory.
fn lengths(part: &Part, view: &View, see: &Visibility) -> Vec<usize> {
    let length = |list: &List| {
        let mut sum = 0;
        let _ = (list.rows)(view, see, &mut |row| {
            sum += framed_len(list.number, row.len());
            ControlFlow::Continue(())
        });
        sum
    };
    part.lists.iter().map(length).collect()
}

fn state_len(lengths: &[Vec<usize>; 4]) -> usize {
    let parts = STATE.iter().zip(lengths);
    parts
        .map(|(part, lengths)| framed_len(part.number_in_state, lengths.iter().sum()))
        .sum()
}

fn part_protobuf(
    part: &Part,
    number: u32,
    lengths: &[usize],
    view: &View,
    see: &Visibility,
    out: &mut Pieces<'_>,
) {
    out.open(number, lengths.iter().sum());
    for list in part.lists {
        let _ = (list.rows)(view, see, &mut |row| {
            let buffer = out.buffer();
            put_head(list.number, row.len(), buffer);
            row.append(buffer);
            out.wanted
        });
    }
}

/// A row whose JSON is that of its message.
fn plain<M: Described>(w: &mut Writer<'_>, row: &[u8]) {
    let descriptor: &MessageDescriptor = M::DESCRIPTOR;
    w.wire(descriptor, row);
}

/// An agent: these answers show its info with a field that v1 no longer names.
fn agent_json(w: &mut Writer<'_>, row: &[u8]) {
    w.wire(descriptor::shown_agent(), row);
}

/// The info of an agent that has not come back yet.
fn agent_info_json(w: &mut Writer<'_>, info: &[u8]) {
    w.wire(descriptor::shown_agent_info(), info);
}

fn tasks(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    for framework in visible(&view.frameworks, see).chain(visible(&view.completed_frameworks, see))
    {
        for task in framework.tasks.iter().filter(|t| see.tasks.has(&t.class)) {
            rows(Row::Task(task))?;
        }
    }
    ControlFlow::Continue(())
}

fn unreachable_tasks(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    for framework in visible(&view.frameworks, see).chain(visible(&view.completed_frameworks, see))
    {
        let tasks = framework.unreachable.iter();
        let mut tasks = tasks.filter(|t| see.tasks.has(&t.class));
        tasks.try_for_each(|t| rows(Row::Message(&t.bytes)))?;
    }
    ControlFlow::Continue(())
}

fn completed_tasks(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    for framework in visible(&view.frameworks, see).chain(visible(&view.completed_frameworks, see))
    {
        let tasks = framework.completed.iter();
        let mut tasks = tasks.filter(|t| see.tasks.has(&t.class));
        tasks.try_for_each(|t| rows(Row::Message(&t.bytes)))?;
    }
    ControlFlow::Continue(())
}

/// The frameworks that the viewer may see.
fn visible<'a>(
    all: &'a [std::sync::Arc<FrameworkView>],
    see: &'a Visibility,
) -> impl Iterator<Item = &'a FrameworkView> {
    all.iter()
        .map(AsRef::as_ref)
        .filter(|framework| see.frameworks.has(&framework.row.class))
}

/// Appends a live task's `mesos.v1.Task`: what does not change, and what the row keeps.
fn append_task(task: &TaskRow, out: &mut Vec<u8>) {
    out.extend_from_slice(&task.spec);
    put_varint(6, task.state as u64, out);
    for status in &task.statuses {
        put_bytes(8, status, out);
    }
    if let Some(update) = &task.update {
        put_varint(9, update.state as u64, out);
        put_bytes(10, update.uuid.as_bytes(), out);
    }
}

/// How many bytes [`append_task`] appends.
fn task_len(task: &TaskRow) -> usize {
    let statuses = task.statuses.iter();
    let statuses: usize = statuses.map(|status| framed_len(8, status.len())).sum();
    let update = task.update.as_ref().map_or(0, |update| {
        varint_len(9, update.state as u64) + framed_len(10, update.uuid.as_bytes().len())
    });
    task.spec.len() + varint_len(6, task.state as u64) + statuses + update
}

fn executors(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    let mut scratch = Vec::new();
    for framework in visible(&view.frameworks, see).chain(visible(&view.completed_frameworks, see))
    {
        let executors = framework.executors.iter();
        for executor in executors.filter(|e| see.executors.has(&e.class)) {
            executor_message(executor, &mut scratch);
            rows(Row::Message(&scratch))?;
        }
    }
    ControlFlow::Continue(())
}

fn executor_message(executor: &ExecutorRow, out: &mut Vec<u8>) {
    out.clear();
    put_bytes(1, &executor.info, out);
    put_message(2, &v1::AgentId::from(&executor.agent_id), out);
}

fn frameworks(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    framework_rows(&view.frameworks, view, see, rows)
}

fn completed_frameworks(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    framework_rows(&view.completed_frameworks, view, see, rows)
}

fn framework_rows(
    all: &[std::sync::Arc<FrameworkView>],
    view: &View,
    see: &Visibility,
    rows: Rows<'_>,
) -> ControlFlow<()> {
    let offers = offers_by_framework(view);
    let mut scratch = Vec::new();
    for framework in visible(all, see) {
        let offers = offers
            .get(&framework.row.key)
            .map_or(&[][..], Vec::as_slice);
        let inverse = view
            .globals
            .maintenance
            .inverse_offers
            .get(&framework.row.key);
        let inverse = inverse.map_or(&[][..], Vec::as_slice);
        framework_message(framework, offers, inverse, see, &mut scratch);
        rows(Row::Message(&scratch))?;
    }
    ControlFlow::Continue(())
}

/// The open offers by framework, oldest first.
pub(super) fn offers_by_framework(view: &View) -> BTreeMap<FrameworkKey, Vec<&OfferRow>> {
    let mut offers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for offer in view.offers.iter() {
        offers.entry(offer.framework).or_default().push(offer);
    }
    offers
}

fn framework_message(
    framework: &FrameworkView,
    offers: &[&OfferRow],
    inverse: &[Bytes],
    see: &Visibility,
    out: &mut Vec<u8>,
) {
    let row = &framework.row;
    out.clear();
    put_bytes(1, &row.info, out);
    put_varint(2, row.active.into(), out);
    put_varint(3, row.connected.into(), out);
    put_varint(11, row.recovered.into(), out);
    put_time(4, Some(row.registered), out);
    put_time(5, Some(row.reregistered.unwrap_or(row.registered)), out);
    put_time(6, row.unregistered, out);
    for offer in offers {
        put_bytes(7, &offer.bytes, out);
    }
    for offer in inverse {
        put_bytes(8, offer, out);
    }
    resources::put_full(9, &row.used, &see.roles, out);
    resources::put_full(10, &row.offered, &see.roles, out);
    put_bytes(12, row.constraints.as_deref().unwrap_or_default(), out);
}

/// A time, if it is known.
fn put_time(number: u32, time: Option<Wall>, out: &mut Vec<u8>) {
    if let Some(time) = time.filter(|time| time.0 != 0) {
        put_message(number, &v1::TimeInfo::from(time), out);
    }
}

fn agents(view: &View, see: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    let mut scratch = Vec::new();
    for agent in view.agents.iter() {
        agent_message(agent, see, &mut scratch);
        rows(Row::Message(&scratch))?;
    }
    ControlFlow::Continue(())
}

fn agent_message(agent: &AgentRow, see: &Visibility, out: &mut Vec<u8>) {
    out.clear();
    put_bytes(1, &agent.info, out);
    put_varint(2, agent.active.into(), out);
    put_varint(12, agent.deactivated.into(), out);
    put_bytes(3, agent.version.as_bytes(), out);
    put_bytes(4, agent.pid.as_bytes(), out);
    put_time(5, Some(agent.registered), out);
    put_time(6, agent.reregistered, out);
    resources::put_full(7, &agent.total, &see.roles, out);
    resources::put_full(8, &agent.used, &see.roles, out);
    resources::put_full(9, &agent.offered, &see.roles, out);
    for name in &agent.capabilities {
        let kind = v1::agent_info::capability::Type::from_str_name(name);
        let capability = v1::agent_info::Capability {
            r#type: kind.map(Into::into),
        };
        put_message(10, &capability, out);
    }
    if let Some(drain) = &agent.drain {
        put_bytes(13, drain, out);
    }
    // Whole seconds here, other than in v0.
    let seconds = |at: Wall| Wall(at.0 - at.0.rem_euclid(1_000_000_000));
    put_time(14, agent.drain_started.map(seconds), out);
}

fn recovered_agents(view: &View, _: &Visibility, rows: Rows<'_>) -> ControlFlow<()> {
    let mut agents = view.globals.recovered_agents.iter();
    agents.try_for_each(|agent| rows(Row::Message(&agent.info)))
}
