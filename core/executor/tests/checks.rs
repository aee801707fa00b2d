//! Checks and health checks of a command task: when they are taken, and what is told of them.

use std::time::Duration;

use tepui_executor::{
    CommandExecutor, Finding, Identity, Input, Intent, Output, Probe, ProbeKind, Record,
};
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::v1::executor::{Event, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, CheckStatusInfo, TaskState, check_status_info};
use tepui_proto::{Wire, json};

/// Milliseconds.
fn at(ms: u64) -> Now {
    Now {
        mono: Mono(ms * 1_000_000),
        wall: Wall(0),
    }
}

fn identity() -> Identity {
    Identity {
        framework: "f".into(),
        executor: "t".into(),
    }
}

fn task(checks: &str) -> v1::TaskInfo {
    let text =
        format!(r#"{{"name":"t","task_id":{{"value":"t"}},"agent_id":{{"value":"a"}},{checks}}}"#);
    json::to_message(text.as_bytes()).expect("a task")
}

/// An executor whose task runs since the time 0.
struct Bench {
    executor: CommandExecutor,
    outputs: Vec<Output>,
}

impl Bench {
    fn new(checks: &str) -> Self {
        let mut outputs = Vec::new();
        let mut executor = CommandExecutor::start(identity(), 1, &mut outputs);
        let event = |kind: event::Type| Event {
            r#type: Some(kind.into()),
            ..Event::default()
        };
        let subscribed = Event {
            subscribed: Some(event::Subscribed::default()),
            ..event(event::Type::Subscribed)
        };
        let task = task(checks);
        let launch = Event {
            launch: Some(event::Launch { task }),
            ..event(event::Type::Launch)
        };
        for event in [subscribed, launch] {
            executor.apply(Input::Event(Wire(event)), at(0), &mut outputs);
        }
        Self { executor, outputs }
    }

    /// Lets the time come to this; the probe that is due then.
    fn tick(&mut self, ms: u64) -> Option<Probe> {
        let before = self.outputs.len();
        self.executor.apply(Input::Tick, at(ms), &mut self.outputs);
        let probes = self.outputs[before..]
            .iter()
            .filter_map(|output| match output {
                Output::Probe(probe) => Some(probe.clone()),
                _ => None,
            });
        probes.last()
    }

    /// Ends a probe; state, reason, health and check of the updates that follow.
    fn found(&mut self, probe: &Probe, finding: Finding, ms: u64) -> Vec<Told> {
        let before = self.outputs.len();
        let input = Input::Probed(probe.id, finding);
        self.executor.apply(input, at(ms), &mut self.outputs);
        told(&self.outputs[before..])
    }

    fn due(&self) -> Option<u64> {
        let deadline = self.executor.next_deadline();
        deadline.map(|at| at.0 / 1_000_000)
    }
}

type Told = (
    TaskState,
    Option<Reason>,
    Option<bool>,
    Option<CheckStatusInfo>,
);

fn told(outputs: &[Output]) -> Vec<Told> {
    let statuses = outputs.iter().filter_map(|output| match output {
        Output::Call(call) => call.update.as_ref().map(|update| &update.status),
        _ => None,
    });
    statuses
        .map(|status| {
            let reason = status.reason.map(|_| status.reason());
            let check = status.check_status;
            (status.state(), reason, status.healthy, check)
        })
        .collect()
}

fn tcp(succeeded: Option<bool>) -> Option<CheckStatusInfo> {
    Some(CheckStatusInfo {
        r#type: Some(v1::check_info::Type::Tcp.into()),
        tcp: Some(check_status_info::Tcp { succeeded }),
        ..CheckStatusInfo::default()
    })
}

const CHANGED: Option<Reason> = Some(Reason::TaskCheckStatusUpdated);
const HEALTH: Option<Reason> = Some(Reason::TaskHealthCheckStatusUpdated);

#[test]
fn a_check_is_told_of_when_it_changes() {
    let check = r#""check":{"type":"TCP","tcp":{"port":80},"delay_seconds":0.5,"interval_seconds":2,"timeout_seconds":1}"#;
    let mut bench = Bench::new(check);
    let first: Vec<_> = told(&bench.outputs);
    let states = [TaskState::TaskStarting, TaskState::TaskRunning];
    assert_eq!(first, states.map(|state| (state, None, None, tcp(None))));
    assert_eq!(bench.due(), Some(500));
    assert_eq!(bench.tick(499), None);
    let probe = bench.tick(500).expect("it is due");
    assert_eq!(
        probe.kind,
        ProbeKind::Tcp {
            ipv6: false,
            port: 80
        }
    );
    assert_eq!(probe.timeout, Some(Duration::from_secs(1)));
    assert_eq!(bench.due(), None, "one at a time");
    let refused = (TaskState::TaskRunning, CHANGED, None, tcp(Some(false)));
    assert_eq!(
        bench.found(&probe, Finding::Connected(false), 700),
        [refused]
    );
    assert_eq!(bench.due(), Some(2700), "from the end of the last");
    let again = bench.tick(2700).expect("it is due");
    assert_eq!(bench.found(&again, Finding::Connected(false), 2701), []);
    // An answer that comes twice, or late, means nothing.
    assert_eq!(bench.found(&probe, Finding::Connected(true), 2702), []);
    let third = bench.tick(5000).expect("it is due");
    let nothing = (TaskState::TaskRunning, CHANGED, None, tcp(None));
    assert_eq!(bench.found(&third, Finding::Nothing, 6000), [nothing]);
    let mut outputs = Vec::new();
    let ended = Input::Ended {
        status: Some(0),
        limited: false,
    };
    bench.executor.apply(ended, at(7000), &mut outputs);
    assert_eq!(
        told(&outputs),
        [(TaskState::TaskFinished, None, None, tcp(None))]
    );
}

#[test]
fn a_task_that_fails_its_health_check_too_often_is_killed() {
    let health = r#""health_check":{"type":"HTTP","http":{"port":8080,"path":"/ok","scheme":"https","protocol":"IPv6"},
        "delay_seconds":0,"interval_seconds":1,"grace_period_seconds":3,"consecutive_failures":2,"timeout_seconds":0}"#;
    let mut bench = Bench::new(health);
    let running = |healthy| vec![(TaskState::TaskRunning, HEALTH, Some(healthy), None)];
    let probe = bench.tick(0).expect("at once");
    assert_eq!(
        probe.kind,
        ProbeKind::Http("https://[::1]:8080/ok".to_owned())
    );
    assert_eq!(probe.timeout, None, "0 is for ever");
    assert_eq!(
        bench.found(&probe, Finding::Nothing, 100),
        [],
        "the grace period"
    );
    for (ms, status, expected) in [
        (2000, 200, running(true)),
        (3500, 399, Vec::new()),
        (5000, 404, running(false)),
        (6500, 302, running(true)),
        // Having been healthy once, it has no grace any more.
        (8000, 500, running(false)),
    ] {
        let probe = bench.tick(ms).expect("it is due");
        assert_eq!(
            bench.found(&probe, Finding::Status(status), ms),
            expected,
            "{ms}"
        );
    }
    let probe = bench.tick(9500).expect("it is due");
    assert_eq!(bench.found(&probe, Finding::Nothing, 9500), running(false));
    let record = Record {
        deadline: None,
        intent: Some(Intent::Unhealthy),
    };
    let tail = &bench.outputs[bench.outputs.len() - 2..];
    let grace = Duration::from_secs(3);
    assert_eq!(
        tail,
        [Output::Record(record.clone()), Output::Stop { grace }]
    );
    assert_eq!(bench.tick(20_000), None, "nothing is looked at any more");

    // The agent is killed in between: the verdict stays.
    let mut outputs = Vec::new();
    let task = task(health);
    let state = TaskState::TaskRunning;
    let mut executor = CommandExecutor::resume(identity(), 2, record, task, state, &mut outputs);
    let ended = Input::Ended {
        status: Some(15),
        limited: false,
    };
    executor.apply(ended, at(30_000), &mut outputs);
    assert_eq!(
        told(&outputs),
        [(TaskState::TaskKilled, None, Some(false), None)]
    );
}

#[test]
fn a_resumed_task_is_looked_at_again() {
    let health = r#""health_check":{"type":"COMMAND","command":{"value":"x"},"delay_seconds":1,"grace_period_seconds":0}"#;
    let mut outputs = Vec::new();
    let state = TaskState::TaskRunning;
    let record = Record::default();
    let mut executor =
        CommandExecutor::resume(identity(), 2, record, task(health), state, &mut outputs);
    let subscribed = Event {
        r#type: Some(event::Type::Subscribed.into()),
        subscribed: Some(event::Subscribed::default()),
        ..Event::default()
    };
    executor.apply(Input::Event(Wire(subscribed)), at(5000), &mut outputs);
    let mut bench = Bench { executor, outputs };
    assert_eq!(told(&bench.outputs), [], "it goes on where it was");
    let probe = bench.tick(6000).expect("after the delay");
    let status = |code: i32| Finding::Ended(code);
    let told = bench.found(&probe, status(1 << 8), 6001);
    assert_eq!(told, [(TaskState::TaskRunning, HEALTH, Some(false), None)]);
}
