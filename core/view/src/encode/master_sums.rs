//! The master's v0 endpoint that counts: `/state-summary`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use tepui_model::allocation::{AgentKey, FrameworkKey};
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
