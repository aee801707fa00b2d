//! How much there is of everything.

use std::collections::BTreeMap;

use tepui_http::shared::Sample;
use tepui_model::id::FrameworkId;
use tepui_model::resources::{Quantities, Resources};
use tepui_proto::v1::TaskState;
use tepui_view::{FrameworkView, View};

use super::tasks_name;

/// States whose gauge counts the tasks in them.
const STATES: [TaskState; 5] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskUnreachable,
];

/// A framework's tasks that have not ended, indexed by the number of their state.
pub(super) type Tasks = BTreeMap<FrameworkId, Vec<u64>>;

/// Adds the gauges; the answer saves others the walk over the tasks.
pub(super) fn register(view: &View, samples: &mut Vec<Sample>) -> Tasks {
    agents_and_frameworks(view, samples);
    resources(view, samples);
    let frameworks = view.frameworks.iter();
    let tasks: Tasks = frameworks
        .map(|framework| (framework.row.id.clone(), tasks_of(framework)))
        .collect();
    for state in STATES {
        let sum: u64 = tasks.values().map(|states| states[state as usize]).sum();
        let name = format!("master/{}", tasks_name(state));
        samples.push(Sample::gauge(name, sum as f64));
    }
    tasks
}

fn agents_and_frameworks(view: &View, samples: &mut Vec<Sample>) {
    let mut set = |name: &'static str, value: usize| {
        samples.push(Sample::gauge(name, value as f64));
    };
    let all = view.agents.len();
    let connected = view.agents.iter().filter(|agent| agent.connected).count();
    let active = view.agents.iter().filter(|agent| agent.active).count();
    set("master/slaves_connected", connected);
    set("master/slaves_disconnected", all - connected);
    set("master/slaves_active", active);
    set("master/slaves_inactive", all - active);
    let unreachable = view.globals.unreachable_agents.len();
    set("master/slaves_unreachable", unreachable);
    let all = view.frameworks.len();
    let rows = || view.frameworks.iter().map(|framework| &framework.row);
    let connected = rows().filter(|row| row.connected).count();
    let active = rows().filter(|row| row.active).count();
    set("master/frameworks_connected", connected);
    set("master/frameworks_disconnected", all - connected);
    set("master/frameworks_active", active);
    set("master/frameworks_inactive", all - active);
    set("master/outstanding_offers", view.offers.len());
}

fn tasks_of(framework: &FrameworkView) -> Vec<u64> {
    let mut states = vec![0; TaskState::TaskUnknown as usize + 1];
    let live = framework.tasks.iter().map(|task| task.state);
    let unreachable = framework.unreachable.iter().map(|task| task.state);
    for state in live.chain(unreachable) {
        states[state as usize] += 1;
    }
    states
}

/// Sums over all agents.
#[derive(Default)]
struct Sums {
    total: Quantities,
    used: Quantities,
    offered: Quantities,
}

fn add(sums: &mut Quantities, resources: &Resources, revocable: bool) {
    for resource in resources
        .iter()
        .filter(|one| one.is_revocable() == revocable)
    {
        if let Some(amount) = resource.amount() {
            sums.add(resource.name(), amount);
        }
    }
}

fn resources(view: &View, samples: &mut Vec<Sample>) {
    let sum = |revocable| {
        let mut sums = Sums::default();
        for agent in view.agents.iter() {
            add(&mut sums.total, &agent.total, revocable);
            add(&mut sums.used, &agent.used, revocable);
            add(&mut sums.offered, &agent.offered, revocable);
        }
        sums
    };
    let (firm, revocable) = (sum(false), sum(true));
    for name in ["cpus", "disk", "gpus", "mem"] {
        let of = |sums: &Quantities| sums.get(&name.into()).to_f64();
        for (sums, kind) in [(&firm, ""), (&revocable, "revocable_")] {
            let (total, used) = (of(&sums.total), of(&sums.used));
            let percent = if total > 0.0 { used / total } else { 0.0 };
            for (suffix, value) in [("total", total), ("used", used), ("percent", percent)] {
                samples.push(Sample::gauge(
                    format!("master/{name}_{kind}{suffix}"),
                    value,
                ));
            }
        }
        if name == "gpus" {
            continue;
        }
        let total = of(&firm.total) + of(&revocable.total);
        let taken = [&firm, &revocable].map(|sums| of(&sums.used) + of(&sums.offered));
        let taken = taken.iter().sum();
        for (what, value) in [("total", total), ("offered_or_allocated", taken)] {
            let sample = Sample::gauge(format!("allocator/mesos/resources/{name}/{what}"), value);
            let labels = vec![("resource", name.to_owned())];
            samples.push(sample.of(format!("allocator/mesos/resources/{what}"), labels));
        }
    }
}
