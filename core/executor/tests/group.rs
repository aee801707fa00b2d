//! Groups of tasks from their launch to the end of their executor.

use std::time::Duration;

use tepui_executor::{
    ChildEnd, DefaultExecutor, Finding, GroupInput, GroupOutput, GroupRecord, Identity,
};
use tepui_model::id::ContainerId;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::Wire;
use tepui_proto::v1::executor::{Event, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState, framework_info};

fn now(secs: u64) -> Now {
    Now {
        mono: Mono(secs * 1_000_000_000),
        wall: Wall(secs.cast_signed() * 1_000_000_000),
    }
}

fn task(name: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        task_id: v1::TaskId { value: name.into() },
        ..v1::TaskInfo::default()
    }
}

fn event(kind: event::Type, fill: impl FnOnce(&mut Event)) -> GroupInput {
    let mut event = Event {
        r#type: Some(kind.into()),
        ..Event::default()
    };
    fill(&mut event);
    GroupInput::Event(Wire(event))
}

fn subscribed() -> GroupInput {
    let kind = framework_info::capability::Type::TaskKillingState;
    event(event::Type::Subscribed, |event| {
        event.subscribed = Some(event::Subscribed {
            framework_info: v1::FrameworkInfo {
                capabilities: vec![framework_info::Capability {
                    r#type: Some(kind.into()),
                }],
                ..v1::FrameworkInfo::default()
            },
            ..event::Subscribed::default()
        });
    })
}

fn group(tasks: Vec<v1::TaskInfo>) -> GroupInput {
    event(event::Type::LaunchGroup, |event| {
        event.launch_group = Some(event::LaunchGroup {
            task_group: v1::TaskGroupInfo { tasks },
        });
    })
}

fn kill(task: &str) -> GroupInput {
    event(event::Type::Kill, |event| {
        event.kill = Some(event::Kill {
            task_id: v1::TaskId { value: task.into() },
            kill_policy: None,
        });
    })
}

/// A machine with all that it has said.
struct Play {
    machine: DefaultExecutor,
    outputs: Vec<GroupOutput>,
    seen: usize,
}

impl Play {
    fn start() -> Self {
        let mut outputs = Vec::new();
        let identity = Identity {
            framework: "f".into(),
            executor: "e".into(),
        };
        let machine = DefaultExecutor::start(identity, ContainerId::new("c"), 1, &mut outputs);
        let mut play = Self {
            machine,
            outputs,
            seen: 0,
        };
        play.tell(0, subscribed());
        play
    }

    fn tell(&mut self, at: u64, input: GroupInput) {
        self.machine.apply(input, now(at), &mut self.outputs);
    }

    /// Task and state of the updates since the last call.
    fn updates(&mut self) -> Vec<(String, TaskState)> {
        let new = self.outputs[self.seen..].iter().filter_map(status_of);
        let new = new.map(|status| (status.task_id.value.clone(), status.state()));
        let new = new.collect();
        self.seen = self.outputs.len();
        new
    }

    fn last(&self, task: &str) -> &v1::TaskStatus {
        let all = self.outputs.iter().rev().filter_map(status_of);
        let mut of_task = all.filter(|status| status.task_id.value == task);
        of_task.next().expect("an update")
    }

    fn child(&self, task: &str) -> String {
        let launches = self.outputs.iter().filter_map(|output| match output {
            GroupOutput::Launch { child, task } => Some((child, task)),
            _ => None,
        });
        let mut of_task = launches.filter(|(_, info)| info.task_id.value == task);
        of_task.next().expect("a launch").0.clone()
    }

    fn run(&mut self, task: &str) {
        let child = self.child(task);
        self.tell(1, GroupInput::Launched { child, pid: 77 });
    }

    fn end(&mut self, task: &str, end: ChildEnd) {
        let child = self.child(task);
        self.tell(2, GroupInput::Ended { child, end });
    }

    fn stopped(&self, task: &str) -> Vec<Duration> {
        let of = self.child(task);
        let stops = self.outputs.iter().filter_map(|output| match output {
            GroupOutput::Stop { child, grace } if *child == of => Some(*grace),
            _ => None,
        });
        stops.collect()
    }

    fn is_finished(&self) -> bool {
        let finishes = self.outputs.iter().filter(|o| **o == GroupOutput::Finish);
        let count = finishes.count();
        assert!(count < 2);
        count == 1
    }

    fn record(&self) -> GroupRecord {
        let records = self.outputs.iter().rev().filter_map(|output| match output {
            GroupOutput::Record(record) => Some(record.clone()),
            _ => None,
        });
        records.into_iter().next().expect("a record")
    }
}

fn status_of(output: &GroupOutput) -> Option<&v1::TaskStatus> {
    match output {
        GroupOutput::Call(call) => call.update.as_ref().map(|update| &update.status),
        _ => None,
    }
}

fn exit(status: i32) -> ChildEnd {
    ChildEnd {
        status: Some(status),
        ..ChildEnd::default()
    }
}

fn seen(task: &str, state: TaskState) -> (String, TaskState) {
    (task.to_owned(), state)
}

use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskKilling, TaskRunning, TaskStarting};

#[test]
fn one_bad_end_ends_its_group_and_no_other() {
    let mut play = Play::start();
    play.tell(0, group(vec![task("a"), task("b")]));
    play.tell(0, group(vec![task("other")]));
    let starting = ["a", "b", "other"].map(|name| seen(name, TaskStarting));
    assert_eq!(play.updates(), starting);
    let named = play.last("a").container_status.clone().expect("named");
    let id = named.container_id.expect("an id");
    assert_eq!((id.value, named.executor_pid), (play.child("a"), None));
    assert_eq!(id.parent.map(|parent| parent.value), Some("c".to_owned()));
    for name in ["a", "b", "other"] {
        play.run(name);
        assert_eq!(play.updates(), [seen(name, TaskRunning)]);
        let shown = play.last(name).container_status.as_ref();
        assert_eq!(shown.and_then(|status| status.executor_pid), Some(77));
    }
    play.end("a", exit(4 << 8));
    assert_eq!(
        play.updates(),
        [seen("a", TaskFailed), seen("b", TaskKilling)]
    );
    assert_eq!(play.last("a").message(), "Command exited with status 4");
    let shown = play.last("a").container_status.as_ref();
    assert_eq!(shown.and_then(|status| status.executor_pid), None);
    assert_eq!(play.stopped("b"), [Duration::from_secs(3)]);
    play.end("b", exit(15));
    assert_eq!(play.updates(), [seen("b", TaskKilled)]);
    assert!(play.stopped("other").is_empty() && !play.is_finished());
    play.end("other", exit(0));
    assert_eq!(play.updates(), [seen("other", TaskFinished)]);
    assert!(play.is_finished());
}

#[test]
fn a_kill_ends_the_group_with_the_grace_of_each() {
    let mut play = Play::start();
    let policy = v1::KillPolicy {
        grace_period: Some(v1::DurationInfo {
            nanoseconds: 1_500_000_000,
        }),
    };
    let patient = v1::TaskInfo {
        kill_policy: Some(policy),
        ..task("b")
    };
    play.tell(0, group(vec![task("a"), patient, task("done")]));
    for name in ["a", "b", "done"] {
        play.run(name);
    }
    play.end("done", exit(0));
    play.updates();
    play.tell(3, kill("a"));
    assert_eq!(play.updates(), [seen("a", TaskKilling)]);
    play.end("a", exit(15));
    assert_eq!(
        play.updates(),
        [seen("a", TaskKilled), seen("b", TaskKilling)]
    );
    assert_eq!(
        play.last("a").message(),
        "Command terminated with signal Terminated"
    );
    assert_eq!(play.stopped("b"), [Duration::from_millis(1500)]);
    play.end("b", exit(9));
    assert_eq!(play.updates(), [seen("b", TaskKilled)]);
    assert!(play.is_finished());
}

#[test]
fn limits_launches_that_fail_and_time_end_tasks_too() {
    let mut play = Play::start();
    let limited = v1::TaskInfo {
        max_completion_time: Some(v1::DurationInfo {
            nanoseconds: 5_000_000_000,
        }),
        ..task("slow")
    };
    play.tell(0, group(vec![task("hog")]));
    play.tell(0, group(vec![task("never"), task("mate")]));
    play.tell(0, group(vec![limited]));
    for name in ["hog", "mate", "slow"] {
        play.run(name);
    }
    let words = "Memory limit exceeded".to_owned();
    let reason = Reason::ContainerLimitationMemory;
    play.end(
        "hog",
        ChildEnd {
            limitation: Some((reason.into(), words.clone(), vec![Wire::default()])),
            ..exit(9)
        },
    );
    let hog = play.last("hog");
    assert_eq!(
        (hog.state(), hog.reason(), hog.message()),
        (TaskFailed, reason, &*words)
    );
    assert_eq!(hog.limitation.as_ref().map(|l| l.resources.len()), Some(1));
    let child = play.child("never");
    let message = "no image".to_owned();
    play.tell(2, GroupInput::LaunchFailed { child, message });
    let never = play.last("never");
    assert_eq!(never.reason(), Reason::ContainerLaunchFailed);
    assert_eq!(never.message(), "Failed to launch container: no image");
    assert_eq!(play.last("mate").state(), TaskKilling);
    assert_eq!(play.machine.next_deadline(), Some(Mono(5_000_000_000)));
    play.tell(5, GroupInput::Tick);
    assert_eq!(play.stopped("slow").len(), 1);
    play.end("slow", exit(15));
    let slow = play.last("slow");
    assert_eq!(
        (slow.state(), slow.reason()),
        (TaskFailed, Reason::MaxCompletionTimeReached)
    );
    // The container around it is ended: the agent knows why.
    let with_executor = true;
    play.end(
        "mate",
        ChildEnd {
            with_executor,
            ..exit(9)
        },
    );
    assert_eq!(play.last("mate").state(), TaskKilling);
    assert!(!play.is_finished());
}

#[test]
fn a_shutdown_ends_everything() {
    for has_tasks in [true, false] {
        let mut play = Play::start();
        if has_tasks {
            play.tell(0, group(vec![task("a")]));
            play.run("a");
        }
        play.tell(1, event(event::Type::Message, |_| {}));
        assert!(!play.is_finished());
        play.tell(1, event(event::Type::Shutdown, |_| {}));
        if has_tasks {
            assert!(!play.is_finished());
            play.end("a", exit(15));
            assert_eq!(play.last("a").state(), TaskKilled);
        }
        assert!(play.is_finished());
    }
}

#[test]
fn a_resumed_machine_goes_on_wherever_it_was_left() {
    let mut play = Play::start();
    play.tell(0, group(vec![task("a"), task("b"), task("over")]));
    for name in ["a", "b", "over"] {
        play.run(name);
    }
    play.end("over", exit(0));
    play.end("a", exit(1 << 8));
    // All that was recorded came to the records; what followed did not happen.
    let mut outputs = Vec::new();
    let tasks = vec![
        (Wire(task("a")), TaskFailed),
        (Wire(task("b")), TaskRunning),
        (Wire(task("unknown")), TaskState::TaskStaging),
    ];
    let identity = Identity {
        framework: "f".into(),
        executor: "e".into(),
    };
    let container = ContainerId::new("c");
    let record = play.record();
    let machine = DefaultExecutor::resume(identity, container, 2, record, tasks, &mut outputs);
    let GroupOutput::Call(call) = &outputs[0] else {
        panic!("{:?}", outputs[0]);
    };
    let told = &call
        .subscribe
        .as_ref()
        .expect("a subscription")
        .unacknowledged_tasks;
    assert_eq!(
        told.iter().map(|t| &*t.task_id.value).collect::<Vec<_>>(),
        ["b"]
    );
    let mut resumed = Play {
        machine,
        outputs: play.outputs.clone(),
        seen: 0,
    };
    resumed.updates();
    resumed.tell(9, subscribed());
    let child = resumed.child("b");
    let new = &resumed.outputs[resumed.seen..];
    assert!(
        new.contains(&GroupOutput::Find {
            child: child.clone()
        }),
        "{new:?}"
    );
    assert!(
        new.iter().any(|o| matches!(o, GroupOutput::Stop { .. })),
        "{new:?}"
    );
    resumed.tell(
        9,
        GroupInput::Launched {
            child: child.clone(),
            pid: 77,
        },
    );
    assert_eq!(resumed.updates(), [], "it was running before");
    resumed.tell(
        9,
        GroupInput::Ended {
            child,
            end: exit(15),
        },
    );
    assert_eq!(resumed.updates(), [seen("b", TaskKilled)]);
}

#[test]
fn a_task_that_is_not_healthy_ends_its_group() {
    let mut ill = task("ill");
    ill.health_check = Some(v1::HealthCheck {
        r#type: Some(v1::health_check::Type::Tcp.into()),
        tcp: Some(v1::health_check::TcpCheckInfo {
            port: 1,
            ..Default::default()
        }),
        delay_seconds: Some(1.0),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(1),
        ..v1::HealthCheck::default()
    });
    let mut play = Play::start();
    play.tell(0, group(vec![ill, task("well")]));
    let children = play.outputs.iter().filter_map(|output| match output {
        GroupOutput::Launch { child, .. } => Some(child.clone()),
        _ => None,
    });
    let children: Vec<String> = children.collect();
    for (pid, child) in (7..).zip(&children) {
        let child = child.clone();
        play.tell(2, GroupInput::Launched { child, pid });
    }
    assert_eq!(play.machine.next_deadline(), Some(now(3).mono));
    play.tell(3, GroupInput::Tick);
    let Some(GroupOutput::Probe { child, probe }) = play.outputs.last().cloned() else {
        panic!("it is due");
    };
    assert_eq!(child, children[0]);
    play.updates();
    let finding = Finding::Connected(false);
    let id = probe.id;
    play.tell(4, GroupInput::Probed { child, id, finding });
    let ill = |state| ("ill".to_owned(), state);
    let expected = [ill(TaskState::TaskRunning), ill(TaskState::TaskKilling)];
    assert_eq!(play.updates(), expected);
    let grace = Duration::from_secs(3);
    let child = children[0].clone();
    let stop = GroupOutput::Stop { child, grace };
    assert_eq!(play.outputs.last(), Some(&stop));
    let end = ChildEnd {
        status: Some(15),
        ..ChildEnd::default()
    };
    let child = children[0].clone();
    play.tell(5, GroupInput::Ended { child, end });
    let well = ("well".to_owned(), TaskState::TaskKilling);
    assert_eq!(play.updates(), [ill(TaskState::TaskKilled), well]);
    assert_eq!(play.last("ill").healthy, Some(false));
    assert_eq!(play.last("well").healthy, None);
}
