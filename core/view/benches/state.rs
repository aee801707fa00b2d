//! How long the large answers take: `cargo bench -p tepui-view [-- AGENTS TASKS]`.
//!
//! The cluster of the targets: 20,000 agents, 200,000 running and 200,000 completed tasks with ten
//! labels each, in 100 frameworks. Prints the best of five runs, on one core, into nothing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::authorization::ClassKey;
use tepui_model::hash::Seed;
use tepui_model::time::Wall;
use tepui_model::{Resources, Role};
use tepui_proto::{convert, v1};
use tepui_view::encode::{self, About, Form, Sink, Visibility};
use tepui_view::{AgentRow, DoneRow, FrameworkRow, FrameworkView, Rows, Table, TaskRow, View};

const FRAMEWORKS: usize = 100;
const START: Wall = Wall(1_795_349_924_867_642_112);

fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

fn rows<R: Clone>(all: impl IntoIterator<Item = R>) -> Rows<R> {
    let mut table: Table<usize, R> = Table::new(Seed(1, 2));
    for (key, row) in all.into_iter().enumerate() {
        table.insert(key, row);
    }
    table.publish()
}

fn agent_id(n: usize) -> String {
    format!("2bb699ce-5753-4d4d-ad59-74064e38038a-S{n}")
}

fn agent(n: usize, total: &Resources, used: &Resources) -> AgentRow {
    let info = v1::AgentInfo {
        hostname: format!("agent-{n}.example.org"),
        port: Some(5051),
        resources: convert::to_proto(total),
        id: Some(v1::AgentId { value: agent_id(n) }),
        ..Default::default()
    };
    let names = ["MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT"];
    AgentRow {
        key: AgentKey(n as u32),
        id: agent_id(n).into(),
        class: ClassKey(0),
        info: bytes(&info),
        hostname: info.hostname.clone(),
        port: 5051,
        pid: "slave(1)@10.0.0.1:5051".into(),
        version: "1.11.0".into(),
        capabilities: names.map(str::to_owned).to_vec(),
        active: true,
        deactivated: false,
        connected: true,
        registered: START,
        reregistered: None,
        total: total.clone(),
        used: used.clone(),
        offered: Resources::new(),
        resource_version: Bytes::new(),
        drain: None,
        drain_started: None,
    }
}

fn task(framework: usize, n: usize, agents: usize, used: &Resources) -> v1::Task {
    let label = |l| v1::Label {
        key: format!("label-{l}"),
        value: Some(format!("value-{l}-{n}")),
    };
    v1::Task {
        name: format!("task-{n}"),
        task_id: v1::TaskId {
            value: format!("task-{framework}-{n}"),
        },
        framework_id: v1::FrameworkId {
            value: framework_id(framework),
        },
        agent_id: v1::AgentId {
            value: agent_id(n % agents),
        },
        resources: convert::to_proto(used),
        labels: Some(v1::Labels {
            labels: (0..10).map(label).collect(),
        }),
        ..Default::default()
    }
}

fn framework_id(n: usize) -> String {
    format!("2bb699ce-5753-4d4d-ad59-74064e38038a-{n:04}")
}

fn status(task: &v1::Task, state: v1::TaskState) -> v1::TaskStatus {
    let address = v1::network_info::IpAddress {
        ip_address: Some("10.0.0.1".into()),
        protocol: Some(v1::network_info::Protocol::IPv4.into()),
    };
    let network = v1::NetworkInfo {
        ip_addresses: vec![address],
        ..Default::default()
    };
    let container = v1::ContainerId {
        value: "a3e5581a-4b88-42c3-9945-8bded0ea625c".into(),
        parent: None,
    };
    v1::TaskStatus {
        task_id: task.task_id.clone(),
        state: state.into(),
        source: Some(v1::task_status::Source::Executor.into()),
        agent_id: Some(task.agent_id.clone()),
        timestamp: Some(1_795_349_932.173_565_9),
        uuid: Some(Bytes::from_static(&[7; 16])),
        container_status: Some(v1::ContainerStatus {
            container_id: Some(container),
            network_infos: vec![network],
            executor_pid: Some(30043),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn framework(n: usize, tasks: usize, agents: usize, used: &Resources) -> FrameworkView {
    use v1::TaskState::{TaskFinished, TaskRunning, TaskStarting};
    let info = v1::FrameworkInfo {
        user: "root".into(),
        name: format!("framework-{n}"),
        id: Some(v1::FrameworkId {
            value: framework_id(n),
        }),
        roles: vec!["role".into()],
        ..Default::default()
    };
    let live = (0..tasks / 2).map(|t| {
        let task = task(n, t, agents, used);
        TaskRow {
            id: (&task.task_id).into(),
            framework: FrameworkKey(n as u32),
            agent: AgentKey((t % agents) as u32),
            executor: None,
            class: ClassKey(0),
            state: TaskRunning,
            resources: used.clone(),
            statuses: [TaskStarting, TaskRunning]
                .map(|state| bytes(&status(&task, state)))
                .into_iter()
                .collect(),
            spec: bytes(&task),
            update: None,
            terminal: false,
        }
    });
    let done = (tasks / 2..tasks).map(|t| {
        let mut task = task(n, t, agents, used);
        task.set_state(TaskFinished);
        task.statuses = [TaskStarting, TaskRunning, TaskFinished]
            .map(|state| status(&task, state))
            .to_vec();
        DoneRow {
            id: (&task.task_id).into(),
            agent: (&task.agent_id).into(),
            class: ClassKey(0),
            state: TaskFinished,
            ended: START,
            bytes: bytes(&task),
        }
    });
    FrameworkView {
        row: FrameworkRow {
            key: FrameworkKey(n as u32),
            id: framework_id(n).into(),
            class: ClassKey(0),
            info: bytes(&info),
            active: true,
            connected: true,
            recovered: false,
            registered: START,
            reregistered: None,
            unregistered: None,
            roles: vec![Role::from("role")],
            suppressed: Vec::new(),
            constraints: None,
            used: used.clone(),
            offered: Resources::new(),
        },
        tasks: rows(live),
        unreachable: Rows::default(),
        completed: rows(done),
        executors: Rows::default(),
    }
}

fn measure(name: &str, write: impl Fn(Sink<'_>)) {
    let mut best = (Duration::MAX, Duration::MAX, 0);
    for _ in 0..5 {
        let (start, mut first, mut size) = (Instant::now(), None, 0);
        write(&mut |piece: Bytes| {
            first.get_or_insert(start.elapsed());
            size += std::hint::black_box(piece).len();
            ControlFlow::Continue(())
        });
        best = best.min((start.elapsed(), first.unwrap_or_default(), size));
    }
    let (whole, first, size) = best;
    let mb = size as f64 / 1e6;
    println!(
        "{name:24} {mb:8.1} MB {:8.1} ms, first piece {:7.3} ms, {:7.1} MB/s",
        whole.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3,
        mb / whole.as_secs_f64()
    );
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let agents: usize = numbers.next().unwrap_or(20_000);
    let tasks: usize = numbers.next().unwrap_or(400_000);
    let parse = |text| Resources::parse(text, "*").expect("resources");
    let total = parse("cpus:16;mem:65536;disk:102400;ports:[31000-32000]");
    let used = parse("cpus:0.1;mem:32").allocate(&Role::from("role"));
    let of_agent = parse("cpus:1;mem:320").allocate(&Role::from("role"));
    let view = View {
        agents: rows((0..agents).map(|n| agent(n, &total, &of_agent))),
        frameworks: (0..FRAMEWORKS)
            .map(|n| Arc::new(framework(n, tasks / FRAMEWORKS, agents, &used)))
            .collect(),
        ..View::default()
    };
    let (about, see) = (About::default(), Visibility::all());
    println!("{agents} agents, {tasks} tasks, half of them completed");
    measure("/state", |sink| encode::state(&view, &about, &see, sink));
    measure("/state-summary", |sink| {
        encode::state_summary(&view, &about, &see, sink);
    });
    measure("/slaves", |sink| encode::slaves(&view, &see, None, sink));
    measure("/tasks", |sink| {
        encode::tasks(&view, &see, &Default::default(), sink);
    });
    measure("GET_STATE json", |sink| {
        encode::get_state(&view, &see, Form::Json, sink);
    });
    measure("GET_STATE protobuf", |sink| {
        encode::get_state(&view, &see, Form::Protobuf, sink);
    });
}
