//! What a leader tells of itself as metrics: Mesos' names and meanings.
//!
//! Totals come from the owner's plain counts, gauges are counted in a view; both only when somebody
//! reads metrics.

mod frameworks;
mod gauges;
mod roles;

use std::collections::BTreeMap;
use std::sync::Arc;

use tepui_http::shared::{Metrics, Sample};
use tepui_model::time::Wall;
use tepui_proto::v1::TaskState;
use tepui_state_master::Counted;
use tepui_view::View;

use crate::clock;
use crate::limits::CallLimits;
use crate::owner::Owner;

/// Counters of what there is nothing of here. They are told because tools ask for them by name.
const ZEROES: [&str; 6] = [
    "master/dropped_messages",
    "master/messages_authenticate",
    "master/messages_deactivate_framework",
    "master/slave_shutdowns_canceled",
    "master/slave_shutdowns_completed",
    "master/slave_shutdowns_scheduled",
];

/// Types of operations that have metrics: those that agents perform.
const OPERATIONS: [&str; 8] = [
    "create",
    "create_disk",
    "destroy",
    "destroy_disk",
    "grow_volume",
    "reserve",
    "shrink_volume",
    "unreserve",
];

/// Where a leader's metrics come from.
pub(crate) struct Told {
    pub(crate) owner: Owner,
    pub(crate) started: Wall,
    /// `publish_per_framework_metrics`.
    pub(crate) per_framework: bool,
    pub(crate) call_limits: Arc<CallLimits>,
    /// Facts and rounds that wait for the allocator.
    pub(crate) allocator_queue: Arc<dyn Fn() -> usize + Send + Sync>,
}

/// Adds the metrics of a leader.
pub(crate) fn register(metrics: &Metrics, told: Told) {
    let told = Arc::new(told);
    metrics.source(move || {
        let told = Arc::clone(&told);
        async move { told.samples().await.unwrap_or_default() }
    });
}

impl Told {
    /// Nothing once the owner has ended.
    async fn samples(&self) -> Option<Vec<Sample>> {
        let view = self.owner.view().await.ok()?;
        let counted = self.owner.counted().await.ok()?;
        let mut samples = self.queues();
        let uptime = (clock::wall().0 - self.started.0).max(0) as f64 / 1e9;
        samples.push(Sample::gauge("master/uptime_secs", uptime));
        samples.push(Sample::gauge("master/elected", 1.0));
        let per_framework = self.per_framework;
        let held = self.call_limits.held();
        // Walking hundreds of thousands of tasks takes its time.
        let counting = tokio::task::spawn_blocking(move || {
            totals(&counted, &mut samples);
            principals(&counted, held, &mut samples);
            of_view(&view, &counted, per_framework, &mut samples);
            samples
        });
        Some(counting.await.expect("counting does not panic"))
    }

    fn queues(&self) -> Vec<Sample> {
        let allocator = (self.allocator_queue)();
        let waiting = [
            ("master/event_queue_dispatches", self.owner.waiting()),
            // Requests and messages of agents are in the same queue.
            ("master/event_queue_http_requests", 0),
            ("master/event_queue_messages", 0),
            ("allocator/event_queue_dispatches", allocator),
            ("allocator/mesos/event_queue_dispatches", allocator),
        ];
        let gauge = |(name, n): (&'static str, usize)| Sample::gauge(name, n as f64);
        waiting.map(gauge).into()
    }
}

/// A protobuf enum's value as a part of a name; v0 names: an agent is a slave.
fn lower(name: &str) -> String {
    name.to_ascii_lowercase().replace("agent", "slave")
}

fn totals(counted: &Counted, samples: &mut Vec<Sample>) {
    samples.extend(ZEROES.map(|name| Sample::counter(name, 0)));
    for (name, n) in &counted.master {
        samples.push(Sample::counter(format!("master/{name}"), *n));
    }
    for state in ENDS {
        let name = format!("master/{}", tasks_name(state));
        let n = counted.ended.get(state as usize).copied();
        samples.push(Sample::counter(name, n.unwrap_or_default()));
    }
    for (state, source, reason, n) in &counted.reasons {
        let parts = [
            state.as_str_name(),
            source.as_str_name(),
            reason.as_str_name(),
        ]
        .map(lower);
        let sample = Sample::counter(format!("master/{}", parts.join("/")), *n);
        let [state, source, reason] = parts;
        let labels = vec![("state", state), ("source", source), ("reason", reason)];
        samples.push(sample.of("master/task_ends", labels));
    }
    operations(counted, samples);
}

/// Calls of frameworks by principal. Those that a limit holds back or has refused were received only.
fn principals(counted: &Counted, mut received: BTreeMap<String, u64>, samples: &mut Vec<Sample>) {
    for (principal, n) in &counted.principals {
        *received.entry(principal.clone()).or_default() += n;
    }
    for (principal, received) in received {
        let processed = counted.principals.get(&principal).copied();
        for (what, n) in [
            ("messages_received", received),
            ("messages_processed", processed.unwrap_or_default()),
        ] {
            let sample = Sample::counter(format!("frameworks/{principal}/{what}"), n);
            let labels = vec![("principal", principal.clone())];
            samples.push(sample.of(format!("frameworks/{what}"), labels));
        }
    }
}

/// States that end a task.
const ENDS: [TaskState; 8] = [
    TaskState::TaskDropped,
    TaskState::TaskError,
    TaskState::TaskFailed,
    TaskState::TaskFinished,
    TaskState::TaskGone,
    TaskState::TaskGoneByOperator,
    TaskState::TaskKilled,
    TaskState::TaskLost,
];

/// `tasks_running` of `TASK_RUNNING`.
fn tasks_name(state: TaskState) -> String {
    state
        .as_str_name()
        .to_ascii_lowercase()
        .replacen("task", "tasks", 1)
}

/// Operations on resources, by type and state. What is under way is a gauge, what has ended a counter.
fn operations(counted: &Counted, samples: &mut Vec<Sample>) {
    const STATES: [&str; 9] = [
        "dropped",
        "error",
        "failed",
        "finished",
        "gone_by_operator",
        "pending",
        "recovering",
        "total",
        "unreachable",
    ];
    let number = |state: &str, kind: Option<&str>| -> u64 {
        let of = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_ascii_lowercase();
        let counted = counted.operations.iter();
        counted
            .filter(|(_, in_state, _)| {
                state == "total" || of(in_state.as_str_name(), "OPERATION_") == state
            })
            .filter(|(of_kind, _, _)| kind.is_none_or(|kind| of(of_kind.as_str_name(), "") == kind))
            .map(|(_, _, number)| number)
            .sum()
    };
    for state in STATES {
        let sample = |name: String, kind: Option<&str>| match state {
            "pending" | "recovering" | "unreachable" => {
                Sample::gauge(name, number(state, kind) as f64)
            }
            _ => Sample::counter(name, number(state, kind)),
        };
        samples.push(sample(format!("master/operations/{state}"), None));
        for kind in OPERATIONS {
            let one = sample(format!("master/operations/{kind}/{state}"), Some(kind));
            let labels = vec![("operation", kind.to_owned())];
            samples.push(one.of(format!("master/operations/{state}"), labels));
        }
    }
}

fn of_view(view: &View, counted: &Counted, per_framework: bool, samples: &mut Vec<Sample>) {
    let tasks = gauges::register(view, samples);
    roles::register(view, counted, samples);
    if per_framework {
        frameworks::register(view, counted, &tasks, samples);
    }
}
