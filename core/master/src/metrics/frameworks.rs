//! Numbers of each framework: `master/frameworks/NAME/ID/...`.

use tepui_http::percent;
use tepui_http::shared::Sample;
use tepui_proto::v1::{TaskState, offer, scheduler};
use tepui_state_master::{Counted, CountedFramework};
use tepui_view::View;

use super::gauges::Tasks;
use super::{ENDS, lower};

/// States of tasks that have not ended.
const ACTIVE: [TaskState; 6] = [
    TaskState::TaskKilling,
    TaskState::TaskRunning,
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskUnknown,
    TaskState::TaskUnreachable,
];

pub(super) fn register(view: &View, counted: &Counted, tasks: &Tasks, samples: &mut Vec<Sample>) {
    for framework in &counted.frameworks {
        let mut own = Own { framework, samples };
        own.counts();
        let live = tasks.get(&framework.id);
        for state in ACTIVE {
            let n = live.map_or(0, |states| states[state as usize]);
            let state = lower(state.as_str_name());
            own.gauge("tasks/active", Some(("state", state)), n as f64);
        }
    }
    for framework in view.frameworks.iter().chain(&view.completed_frameworks) {
        let row = &framework.row;
        let counts = counted.frameworks.iter();
        let Some(counts) = counts.rev().find(|counts| counts.id == row.id) else {
            continue;
        };
        let mut own = Own {
            framework: counts,
            samples,
        };
        own.gauge("subscribed", None, f64::from(u8::from(row.connected)));
        for role in &row.roles {
            let suppressed = f64::from(u8::from(row.suppressed.contains(role)));
            let name = format!("roles/{role}/suppressed");
            own.push(
                Sample::gauge(name, suppressed),
                "roles/suppressed",
                ("role", role.to_string()),
            );
        }
    }
}

/// Adds the samples of one framework.
struct Own<'a> {
    framework: &'a CountedFramework,
    samples: &'a mut Vec<Sample>,
}

impl Own<'_> {
    fn counts(&mut self) {
        let framework = self.framework;
        let calls = |number| {
            scheduler::call::Type::try_from(number)
                .ok()
                .map(|kind| kind.as_str_name())
        };
        let events = |number| {
            scheduler::event::Type::try_from(number)
                .ok()
                .map(|kind| kind.as_str_name())
        };
        let operations = |number| {
            let kind = offer::operation::Type::try_from(number).ok();
            kind.map(|kind| kind.as_str_name())
        };
        self.each("calls", "call", &framework.calls, calls);
        self.each("events", "event", &framework.events, events);
        self.each("operations", "operation", &framework.operations, operations);
        for state in ENDS {
            let n = framework.ended[state as usize];
            let state = lower(state.as_str_name());
            self.counter("tasks/terminal", Some(("state", state)), n);
        }
        let offers = [
            ("offers/sent", framework.offers_sent),
            ("offers/accepted", framework.offers_accepted),
            ("offers/declined", framework.offers_declined),
            ("offers/rescinded", framework.offers_rescinded),
        ];
        for (name, n) in offers {
            self.counter(name, None, n);
        }
    }

    /// The sum, and each kind but UNKNOWN, the first.
    fn each(
        &mut self,
        name: &'static str,
        label: &'static str,
        counts: &[u64],
        kind: impl Fn(i32) -> Option<&'static str>,
    ) {
        self.counter(name, None, counts.iter().sum());
        for (number, n) in (0..).zip(counts).skip(1) {
            if let Some(kind) = kind(number) {
                self.counter(name, Some((label, kind.to_ascii_lowercase())), *n);
            }
        }
    }

    fn counter(&mut self, name: &str, label: Option<(&'static str, String)>, n: u64) {
        self.add(name, label, |name| Sample::counter(name, n));
    }

    fn gauge(&mut self, name: &str, label: Option<(&'static str, String)>, value: f64) {
        self.add(name, label, |name| Sample::gauge(name, value));
    }

    fn add(
        &mut self,
        name: &str,
        label: Option<(&'static str, String)>,
        sample: impl FnOnce(String) -> Sample,
    ) {
        match label {
            Some((label, value)) => {
                let full = format!("{name}/{value}");
                self.push(sample(full), name, Some((label, value)));
            }
            None => self.push(sample(name.to_owned()), name, None),
        }
    }

    fn push(
        &mut self,
        sample: Sample,
        family: &str,
        label: impl Into<Option<(&'static str, String)>>,
    ) {
        let CountedFramework { id, name, .. } = self.framework;
        let mut labels = vec![
            ("framework", name.clone()),
            ("framework_id", id.to_string()),
        ];
        labels.extend(label.into());
        let full = format!(
            "master/frameworks/{}/{id}/{}",
            percent::encode(name),
            sample.name
        );
        let sample = Sample {
            name: full.into(),
            ..sample
        };
        self.samples
            .push(sample.of(format!("master/frameworks/{family}"), labels));
    }
}
