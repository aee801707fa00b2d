//! A command task's executor from its first to its last update.

use std::time::Duration;

use tepui_executor::{CommandExecutor, Identity, Input, Output, Record};
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::Wire;
use tepui_proto::v1::executor::{Event, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState, framework_info};

fn now(secs: u64) -> Now {
    Now {
        mono: Mono(secs * 1_000_000_000),
        wall: Wall(secs.cast_signed() * 1_000_000_000),
    }
}

fn identity() -> Identity {
    Identity {
        framework: "f".into(),
        executor: "t".into(),
    }
}

fn task() -> v1::TaskInfo {
    v1::TaskInfo {
        task_id: v1::TaskId { value: "t".into() },
        ..v1::TaskInfo::default()
    }
}

fn subscribed(killing: bool) -> Input {
    let kind = framework_info::capability::Type::TaskKillingState;
    let capability = framework_info::Capability {
        r#type: Some(kind.into()),
    };
    let framework_info = v1::FrameworkInfo {
        capabilities: killing.then_some(capability).into_iter().collect(),
        ..v1::FrameworkInfo::default()
    };
    Input::Event(Wire(Event {
        r#type: Some(event::Type::Subscribed.into()),
        subscribed: Some(event::Subscribed {
            framework_info,
            ..event::Subscribed::default()
        }),
        ..Event::default()
    }))
}

fn launch(task: v1::TaskInfo) -> Input {
    Input::Event(Wire(Event {
        r#type: Some(event::Type::Launch.into()),
        launch: Some(event::Launch { task }),
        ..Event::default()
    }))
}

fn kill(grace: Option<Duration>) -> Input {
    let grace_period = grace.map(|grace| v1::DurationInfo {
        nanoseconds: grace.as_nanos().try_into().expect("short"),
    });
    Input::Event(Wire(Event {
        r#type: Some(event::Type::Kill.into()),
        kill: Some(event::Kill {
            kill_policy: Some(v1::KillPolicy { grace_period }),
            ..event::Kill::default()
        }),
        ..Event::default()
    }))
}

fn ended(status: i32) -> Input {
    Input::Ended {
        status: Some(status),
        limited: false,
    }
}

/// Plays inputs to an executor that was launched with `task`.
fn play(task: v1::TaskInfo, killing: bool, inputs: Vec<(u64, Input)>) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut executor = CommandExecutor::start(identity(), 1, &mut outputs);
    executor.apply(subscribed(killing), now(0), &mut outputs);
    executor.apply(launch(task), now(0), &mut outputs);
    for (at, input) in inputs {
        executor.apply(input, now(at), &mut outputs);
    }
    outputs
}

/// State, message and reason of each update.
fn updates(outputs: &[Output]) -> Vec<(TaskState, String, Option<Reason>)> {
    let statuses = outputs.iter().filter_map(|output| match output {
        Output::Call(call) => call.update.as_ref().map(|update| &update.status),
        _ => None,
    });
    statuses
        .map(|status| {
            assert_eq!(status.uuid().len(), 16);
            assert_eq!(status.healthy, None);
            let reason = status.reason.map(|_| status.reason());
            (status.state(), status.message().to_owned(), reason)
        })
        .collect()
}

fn stops(outputs: &[Output]) -> Vec<Duration> {
    let stops = outputs.iter().filter_map(|output| match output {
        Output::Stop { grace } => Some(*grace),
        _ => None,
    });
    stops.collect()
}

#[test]
fn a_command_ends_as_recorded() {
    use TaskState::{TaskFailed, TaskFinished, TaskRunning, TaskStarting};
    let cases = [
        (0, TaskFinished, "Command exited with status 0"),
        (3 << 8, TaskFailed, "Command exited with status 3"),
        (9, TaskFailed, "Command terminated with signal Killed"),
    ];
    for (status, state, message) in cases {
        let outputs = play(task(), true, vec![(1, ended(status)), (2, ended(0))]);
        let Output::Call(first) = &outputs[0] else {
            panic!("the first output is {:?}", outputs[0]);
        };
        assert_eq!(first.r#type(), call::Type::Subscribe);
        let expected = [
            (TaskStarting, String::new(), None),
            (TaskRunning, String::new(), None),
            (state, message.to_owned(), None),
        ];
        assert_eq!(updates(&outputs), expected);
    }
}

#[test]
fn a_killed_command_gets_its_grace() {
    let terminated = "Command terminated with signal Terminated".to_owned();
    let outputs = play(task(), true, vec![(1, kill(None)), (2, ended(15))]);
    let states: Vec<_> = updates(&outputs).into_iter().map(|u| u.0).collect();
    use TaskState::{TaskFinished, TaskKilled, TaskKilling, TaskRunning, TaskStarting};
    assert_eq!(states, [TaskStarting, TaskRunning, TaskKilling, TaskKilled]);
    assert_eq!(updates(&outputs)[3].1, terminated);
    assert_eq!(stops(&outputs), [Duration::from_secs(3)]);

    // Without the capability there is no TASK_KILLING; a command that ends well has finished.
    let policy = v1::KillPolicy {
        grace_period: Some(v1::DurationInfo {
            nanoseconds: 1_500_000_000,
        }),
    };
    let with_policy = v1::TaskInfo {
        kill_policy: Some(policy),
        ..task()
    };
    let second = kill(Some(Duration::from_secs(1)));
    let inputs = vec![(1, kill(None)), (1, second), (2, ended(0))];
    let outputs = play(with_policy, false, inputs);
    let states: Vec<_> = updates(&outputs).into_iter().map(|u| u.0).collect();
    assert_eq!(states, [TaskStarting, TaskRunning, TaskFinished]);
    assert_eq!(
        stops(&outputs),
        [Duration::from_millis(1500), Duration::from_secs(1)]
    );
}

#[test]
fn a_command_out_of_time_fails() {
    let limited = v1::TaskInfo {
        max_completion_time: Some(v1::DurationInfo {
            nanoseconds: 5_000_000_000,
        }),
        ..task()
    };
    let inputs = vec![(4, Input::Tick), (5, Input::Tick), (6, ended(15))];
    let outputs = play(limited, true, inputs);
    let last = updates(&outputs).pop().expect("an end");
    assert_eq!(last.0, TaskState::TaskFailed);
    assert_eq!(last.2, Some(Reason::MaxCompletionTimeReached));
    assert_eq!(updates(&outputs).len(), 3, "no TASK_KILLING");
    assert_eq!(stops(&outputs).len(), 1);
}

#[test]
fn a_resumed_executor_comes_to_the_same_verdict() {
    let outputs = play(task(), true, vec![(1, kill(None))]);
    let mut record = Record::default();
    for output in &outputs {
        if let Output::Record(newer) = output {
            record = newer.clone();
        }
    }
    for (state, missing) in [(TaskState::TaskStaging, 3), (TaskState::TaskKilling, 1)] {
        let mut outputs = Vec::new();
        let mut executor =
            CommandExecutor::resume(identity(), 2, record.clone(), task(), state, &mut outputs);
        executor.apply(subscribed(true), now(9), &mut outputs);
        executor.apply(ended(9), now(9), &mut outputs);
        let updates = updates(&outputs);
        assert_eq!(updates.len(), missing);
        assert_eq!(updates[missing - 1].0, TaskState::TaskKilled);
    }
}

#[test]
fn a_limited_container_is_reported_by_the_agent() {
    let limited = Input::Ended {
        status: Some(9),
        limited: true,
    };
    let outputs = play(task(), true, vec![(1, limited)]);
    assert_eq!(updates(&outputs).len(), 2);
}
