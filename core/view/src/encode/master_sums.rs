//! The master's v0 endpoints that count and add up: `/state-summary` and `/roles`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::id::Role;
use tepui_model::resources::{Quantities, Resources, Scalar, Value};
use tepui_proto::json::Writer;
use tepui_proto::v1;
use tepui_proto::v1::TaskState;

use super::master_v0::{agent_members, framework_summary};
use super::{About, Sink, Visibility, json};
use crate::view::{FrameworkView, View};

/// How many tasks are in each state that the summary counts.
#[derive(Clone, Default)]
struct Counts([u32; 10]);

/// The states in the order of the summary.
const COUNTED: [TaskState; 10] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskFinished,
    TaskState::TaskKilled,
    TaskState::TaskFailed,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskUnreachable,
];

impl Counts {
    fn count(&mut self, state: TaskState) {
        if let Some(at) = COUNTED.iter().position(|counted| *counted == state) {
            self.0[at] += 1;
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        for (state, count) in COUNTED.iter().zip(self.0) {
            w.key(state.as_str_name()).u64(count.into());
        }
    }
}

/// What the summary says about tasks, by framework and by agent.
#[derive(Default)]
struct Summary<'a> {
    frameworks: BTreeMap<FrameworkKey, (Counts, BTreeSet<&'a str>)>,
    agents: BTreeMap<&'a str, (Counts, BTreeSet<&'a str>)>,
}

impl<'a> Summary<'a> {
    fn of(view: &'a View) -> Self {
        let ids: BTreeMap<AgentKey, &str> =
            view.agents.iter().map(|a| (a.key, a.id.as_str())).collect();
        let mut summary = Self::default();
        for framework in &view.frameworks {
            for task in framework.tasks.iter() {
                if let Some(agent) = ids.get(&task.agent) {
                    summary.count(framework, agent, task.state);
                }
            }
            for task in framework.unreachable.iter() {
                summary.count(framework, task.agent.as_str(), TaskState::TaskUnreachable);
            }
            for task in framework.completed.iter() {
                summary.count(framework, task.agent.as_str(), task.state);
            }
        }
        summary
    }

    fn count(&mut self, framework: &'a FrameworkView, agent: &'a str, state: TaskState) {
        let of_framework = self.frameworks.entry(framework.row.key).or_default();
        of_framework.0.count(state);
        of_framework.1.insert(agent);
        let of_agent = self.agents.entry(agent).or_default();
        of_agent.0.count(state);
        of_agent.1.insert(framework.row.id.as_str());
    }
}

/// `GET /state-summary`
pub fn state_summary(view: &View, about: &About, see: &Visibility, sink: Sink<'_>) {
    let master = v1::MasterInfo::decode(&*view.globals.master_info).unwrap_or_default();
    let summary = Summary::of(view);
    let none = <(Counts, BTreeSet<&str>)>::default();
    let ids = |w: &mut Writer<'_>, ids: &BTreeSet<&str>| {
        w.array(|w| ids.iter().for_each(|id| w.str(id)));
    };
    json(sink, |w| {
        w.object(|w| {
            w.key("hostname").str(master.hostname());
            if let Some(cluster) = &about.cluster {
                w.key("cluster").str(cluster);
            }
            w.key("slaves").array(|w| {
                for agent in view.agents.iter() {
                    let (counts, frameworks) =
                        summary.agents.get(agent.id.as_str()).unwrap_or(&none);
                    w.object(|w| {
                        agent_members(w, agent, see);
                        counts.write(w);
                        ids(w.key("framework_ids"), frameworks);
                    });
                }
            });
            w.key("frameworks").array(|w| {
                for framework in &view.frameworks {
                    let row = &framework.row;
                    if !see.frameworks.has(&row.class) {
                        continue;
                    }
                    let info = v1::FrameworkInfo::decode(&*row.info).unwrap_or_default();
                    let (counts, agents) = summary.frameworks.get(&row.key).unwrap_or(&none);
                    w.object(|w| {
                        framework_summary(w, row, &info);
                        counts.write(w);
                        ids(w.key("slave_ids"), agents);
                    });
                }
            });
        });
    });
}

/// What a role has.
#[derive(Default)]
struct RoleSums<'a> {
    allocated: Resources,
    offered: Resources,
    reserved: Resources,
    /// Reserved, or unreserved and allocated: what counts against a quota.
    consumed: Quantities,
    frameworks: Vec<&'a str>,
}

impl<'a> RoleSums<'a> {
    fn all(view: &'a View) -> BTreeMap<Role, Self> {
        let mut roles: BTreeMap<Role, Self> = BTreeMap::new();
        for framework in &view.frameworks {
            for role in &framework.row.roles {
                let sums = roles.entry(role.clone()).or_default();
                sums.frameworks.push(framework.row.id.as_str());
            }
        }
        for agent in view.agents.iter() {
            for (role, used) in agent.used.allocations() {
                let sums = roles.entry(role).or_default();
                sums.consumed += &used.unreserved().non_revocable().quantities();
                sums.allocated += used;
            }
            for (role, offered) in agent.offered.allocations() {
                roles.entry(role).or_default().offered += offered;
            }
            for (role, reserved) in agent.total.reserved() {
                let sums = roles.entry(role).or_default();
                sums.consumed += &reserved.quantities();
                sums.reserved += reserved;
            }
        }
        roles
    }
}

/// `GET /roles`
pub fn roles(view: &View, see: &Visibility, sink: Sink<'_>) {
    json(sink, |w| {
        w.object(|w| {
            w.key("roles").array(|w| {
                for (role, sums) in RoleSums::all(view) {
                    if see.roles.has(role.as_str()) {
                        w.object(|w| role_members(w, &role, &sums));
                    }
                }
            });
        });
    });
}

fn role_members(w: &mut Writer<'_>, role: &Role, sums: &RoleSums<'_>) {
    w.key("name").str(role.as_str());
    w.key("weight").f64(1.0);
    w.key("quota").object(|w| {
        w.key("role").str(role.as_str());
        w.key("guarantee").object(|_| {});
        w.key("limit").object(|_| {});
        w.key("consumed").object(|w| {
            for (name, amount) in sums.consumed.iter() {
                w.key(name.as_str()).f64(amount.to_f64());
            }
        });
    });
    let both = &sums.allocated + &sums.offered;
    let amounts = [
        ("resources", &both),
        ("allocated", &sums.allocated),
        ("offered", &sums.offered),
        ("reserved", &sums.reserved),
    ];
    for (key, all) in amounts {
        w.key(key).object(|w| amount_members(w, all));
    }
    w.key("frameworks")
        .array(|w| sums.frameworks.iter().for_each(|id| w.str(id)));
}

/// Names and amounts, sorted; of ranges and sets the number of things in them.
fn amount_members(w: &mut Writer<'_>, all: &Resources) {
    let mut amounts: BTreeMap<&str, f64> = BTreeMap::new();
    let mut scalars: BTreeMap<&str, Scalar> = BTreeMap::new();
    for resource in all {
        let name = resource.name().as_str();
        match resource.value() {
            Value::Scalar(amount) => *scalars.entry(name).or_default() += *amount,
            Value::Ranges(ranges) => *amounts.entry(name).or_default() += ranges.count() as f64,
            Value::Set(set) => *amounts.entry(name).or_default() += set.as_slice().len() as f64,
        }
    }
    amounts.extend(
        scalars
            .iter()
            .map(|(name, amount)| (*name, amount.to_f64())),
    );
    for (name, amount) in amounts {
        w.key(name).f64(amount);
    }
}
