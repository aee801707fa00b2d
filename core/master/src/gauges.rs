//! Gauges that are counted in the published view when metrics are read.

use std::collections::BTreeMap;

use tepui_http::shared::Metrics;
use tepui_model::resources::Quantities;
use tepui_model::time::Wall;
use tepui_proto::v1::TaskState;
use tepui_view::View;

use crate::clock;
use crate::owner::Owner;

/// States whose gauge counts the tasks in them.
const STATES: [(TaskState, &str); 5] = [
    (TaskState::TaskStaging, "master/tasks_staging"),
    (TaskState::TaskStarting, "master/tasks_starting"),
    (TaskState::TaskRunning, "master/tasks_running"),
    (TaskState::TaskKilling, "master/tasks_killing"),
    (TaskState::TaskUnreachable, "master/tasks_unreachable"),
];

/// Adds the gauges of a leader.
pub(crate) fn register(metrics: &Metrics, owner: &Owner, started: Wall) {
    let readers = owner.readers();
    metrics.source(move |values| {
        let uptime = (clock::wall().0 - started.0).max(0) as f64 / 1e9;
        values.insert("master/uptime_secs".to_owned(), uptime);
        values.insert("master/elected".to_owned(), 1.0);
        if let Some(view) = readers.newest(0) {
            of_view(&view, values);
        }
    });
}

fn of_view(view: &View, values: &mut BTreeMap<String, f64>) {
    let mut set = |name: &str, value: usize| {
        values.insert(name.to_owned(), value as f64);
    };
    let connected = view.agents.iter().filter(|agent| agent.connected).count();
    let active = view.agents.iter().filter(|agent| agent.active).count();
    set("master/slaves_connected", connected);
    set("master/slaves_disconnected", view.agents.len() - connected);
    set("master/slaves_active", active);
    set("master/slaves_inactive", view.agents.len() - active);
    set(
        "master/slaves_unreachable",
        view.globals.unreachable_agents.len(),
    );
    let connected = view
        .frameworks
        .iter()
        .filter(|framework| framework.row.connected)
        .count();
    let active = view
        .frameworks
        .iter()
        .filter(|framework| framework.row.active)
        .count();
    set("master/frameworks_connected", connected);
    set(
        "master/frameworks_disconnected",
        view.frameworks.len() - connected,
    );
    set("master/frameworks_active", active);
    set("master/frameworks_inactive", view.frameworks.len() - active);
    set("master/outstanding_offers", view.offers.len());
    for (state, name) in STATES {
        let live = view
            .frameworks
            .iter()
            .flat_map(|framework| framework.tasks.iter());
        let unreachable = view
            .frameworks
            .iter()
            .flat_map(|framework| framework.unreachable.iter());
        let count = live.filter(|task| task.state == state).count();
        set(
            name,
            count + unreachable.filter(|task| task.state == state).count(),
        );
    }
    resources(view, values);
}

fn resources(view: &View, values: &mut BTreeMap<String, f64>) {
    let (mut total, mut used) = (Quantities::new(), Quantities::new());
    for agent in view.agents.iter() {
        for (sums, part) in [(&mut total, &agent.total), (&mut used, &agent.used)] {
            for (name, amount) in part.quantities().iter() {
                sums.add(name, amount);
            }
        }
    }
    for name in ["cpus", "disk", "gpus", "mem"] {
        let of = |sums: &Quantities| sums.get(&name.into()).to_f64();
        let (total, used) = (of(&total), of(&used));
        let percent = if total > 0.0 { used / total } else { 0.0 };
        for (suffix, value) in [("total", total), ("used", used), ("percent", percent)] {
            values.insert(format!("master/{name}_{suffix}"), value);
        }
    }
}
