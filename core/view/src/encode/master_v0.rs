//! The master's v0 endpoints: `/state` and its relatives.

use std::collections::BTreeMap;

use prost::Message;
use tepui_model::allocation::FrameworkKey;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_proto::descriptor::Described;
use tepui_proto::json::Writer;
use tepui_proto::v1;

use super::blocks::{self, Live};
use super::master_v1::offers_by_framework;
use super::wire::{Value as WireValue, field};
use super::{About, Sink, Visibility, json, resources};
use crate::rows::{AgentRow, DoneRow, FrameworkRow, OfferRow, TaskRow};
use crate::view::{FrameworkView, View};

/// The open offers by framework.
type Offers<'a> = BTreeMap<FrameworkKey, Vec<&'a OfferRow>>;

/// `GET /state`
pub fn state(view: &View, about: &About, see: &Visibility, sink: Sink<'_>) {
    let globals = &view.globals;
    let master = v1::MasterInfo::decode(&*globals.master_info).unwrap_or_default();
    json(sink, |w| {
        w.object(|w| {
            about_members(w, about);
            w.key("start_time").f64(globals.started.as_secs_f64());
            if let Some(elected) = globals.elected {
                w.key("elected_time").f64(elected.as_secs_f64());
            }
            w.key("id").str(&globals.master_id);
            w.key("pid").str(master.pid());
            w.key("hostname").str(master.hostname());
            w.key("capabilities").array(|w| {
                // As text, all of them: the v1 enum lacks a name for the last.
                for name in ["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"] {
                    w.str(name);
                }
            });
            let active = view.agents.iter().filter(|a| a.active).count();
            w.key("activated_slaves").f64(active as f64);
            w.key("deactivated_slaves")
                .f64((view.agents.len() - active) as f64);
            w.key("unreachable_slaves")
                .f64(globals.unreachable_agents.len() as f64);
            if let Some(domain) = &master.domain {
                w.key("domain").message(domain);
            }
            w.key("leader").str(master.pid());
            w.key("leader_info").object(|w| leader_members(w, &master));
            log_members(w, about, see);
            w.key("slaves").array(|w| {
                for agent in view.agents.iter() {
                    if w.is_stopped() {
                        break;
                    }
                    w.object(|w| agent_members(w, agent, see));
                }
            });
            recovered_agents(w, view);
            framework_lists(w, view, see, None);
            w.key("orphan_tasks").array(|_| {});
            w.key("unregistered_frameworks").array(|_| {});
        });
    });
}

/// What every daemon's `/state` begins with.
pub(super) fn about_members(w: &mut Writer<'_>, about: &About) {
    w.key("version").str(&about.version);
    let git = [
        ("git_sha", &about.git_sha),
        ("git_branch", &about.git_branch),
        ("git_tag", &about.git_tag),
    ];
    for (key, value) in git {
        if let Some(value) = value {
            w.key(key).str(value);
        }
    }
    w.key("build_date").str(&about.build_date);
    w.key("build_time").f64(about.build_time);
    w.key("build_user").str(&about.build_user);
}

fn leader_members(w: &mut Writer<'_>, master: &v1::MasterInfo) {
    w.key("id").str(&master.id);
    w.key("pid").str(master.pid());
    w.key("port").u64(master.port.into());
    w.key("hostname").str(master.hostname());
    if let Some(domain) = &master.domain {
        w.key("domain").message(domain);
    }
}

fn log_members(w: &mut Writer<'_>, about: &About, see: &Visibility) {
    if let Some(cluster) = &about.cluster {
        w.key("cluster").str(cluster);
    }
    if see.flags {
        log_and_flags(w, about);
    }
}

/// The members that only those see who may see flags.
pub(super) fn log_and_flags(w: &mut Writer<'_>, about: &About) {
    if let Some(dir) = &about.log_dir {
        w.key("log_dir").str(dir);
    }
    if let Some(file) = &about.external_log_file {
        w.key("external_log_file").str(file);
    }
    w.key("flags").object(|w| {
        for (name, value) in &about.flags {
            w.key(name).str(value);
        }
    });
}

/// `GET /slaves`, of one agent if `only` names it.
pub fn slaves(view: &View, see: &Visibility, only: Option<&AgentId>, sink: Sink<'_>) {
    json(sink, |w| {
        w.object(|w| {
            w.key("slaves").array(|w| {
                for agent in view
                    .agents
                    .iter()
                    .filter(|a| only.is_none_or(|id| *id == a.id))
                {
                    w.object(|w| {
                        agent_members(w, agent, see);
                        full_members(w, agent, see);
                    });
                }
            });
            recovered_agents(w, view);
        });
    });
}

pub(super) fn agent_members(w: &mut Writer<'_>, agent: &AgentRow, see: &Visibility) {
    w.key("id").str(agent.id.as_str());
    w.key("hostname").str(&agent.hostname);
    w.key("port").u64(agent.port.into());
    w.key("attributes");
    resources::attributes(w, &agent.info, 5);
    if let Some(domain) = field(&agent.info, 10) {
        w.key("domain")
            .wire(v1::DomainInfo::DESCRIPTOR, domain.bytes());
    }
    w.key("pid").str(&agent.pid);
    w.key("registered_time").f64(agent.registered.as_secs_f64());
    if let Some(time) = agent.reregistered {
        w.key("reregistered_time").f64(time.as_secs_f64());
    }
    w.key("resources");
    resources::object(w, &agent.total);
    w.key("used_resources");
    resources::object(w, &agent.used);
    w.key("offered_resources");
    resources::object(w, &agent.offered);
    w.key("reserved_resources");
    resources::reserved(w, &agent.total, &see.roles);
    w.key("unreserved_resources");
    resources::object(w, agent.total.iter().filter(|r| !r.is_reserved()));
    w.key("active").bool(agent.active);
    w.key("deactivated").bool(agent.deactivated);
    w.key("version").str(&agent.version);
    w.key("capabilities")
        .array(|w| agent.capabilities.iter().for_each(|name| w.str(name)));
    if let Some(drain) = &agent.drain {
        w.key("drain_info").wire(v1::DrainInfo::DESCRIPTOR, drain);
    }
    if let Some(started) = agent.drain_started {
        w.key("estimated_drain_start_time_seconds")
            .f64(started.as_secs_f64());
    }
}

fn full_members(w: &mut Writer<'_>, agent: &AgentRow, see: &Visibility) {
    w.key("reserved_resources_full");
    resources::reserved_full(w, &agent.total, &see.roles);
    w.key("unreserved_resources_full");
    resources::full(w, &agent.total.unreserved(), &see.roles);
    w.key("used_resources_full");
    resources::full(w, &agent.used, &see.roles);
    w.key("offered_resources_full");
    resources::full(w, &agent.offered, &see.roles);
}

fn recovered_agents(w: &mut Writer<'_>, view: &View) {
    w.key("recovered_slaves").array(|w| {
        for agent in &view.globals.recovered_agents {
            w.object(|w| {
                let info = &agent.info;
                w.key("id").str(agent.id.as_str());
                w.key("hostname")
                    .str(field(info, 1).map_or("", WireValue::str));
                w.key("port")
                    .i64(field(info, 8).map_or(5051, WireValue::int));
                w.key("attributes");
                resources::attributes(w, info, 5);
                if let Some(domain) = field(info, 10) {
                    w.key("domain")
                        .wire(v1::DomainInfo::DESCRIPTOR, domain.bytes());
                }
            });
        }
    });
}

/// `GET /frameworks`, of one framework if `only` names it.
pub fn frameworks(view: &View, see: &Visibility, only: Option<&FrameworkId>, sink: Sink<'_>) {
    json(sink, |w| {
        w.object(|w| {
            framework_lists(w, view, see, only);
            w.key("unregistered_frameworks").array(|_| {});
        });
    });
}

fn framework_lists(w: &mut Writer<'_>, view: &View, see: &Visibility, only: Option<&FrameworkId>) {
    let offers = offers_by_framework(view);
    let lists = [
        ("frameworks", &view.frameworks),
        ("completed_frameworks", &view.completed_frameworks),
    ];
    for (key, list) in lists {
        w.key(key).array(|w| {
            for framework in list.iter() {
                let row = &framework.row;
                if see.frameworks.has(&row.class) && only.is_none_or(|id| *id == row.id) {
                    w.object(|w| framework_members(w, framework, &offers, see));
                }
            }
        });
    }
}

/// The members that `/state-summary` has, too.
pub(super) fn framework_summary(w: &mut Writer<'_>, row: &FrameworkRow, info: &v1::FrameworkInfo) {
    w.key("id").str(row.id.as_str());
    w.key("name").str(&info.name);
    w.key("used_resources");
    resources::object(w, &row.used);
    w.key("offered_resources");
    resources::object(w, &row.offered);
    w.key("capabilities").array(|w| {
        for capability in &info.capabilities {
            w.str(capability.r#type().as_str_name());
        }
    });
    w.key("hostname").str(info.hostname());
    w.key("webui_url").str(info.webui_url());
    w.key("active").bool(row.active);
    w.key("connected").bool(row.connected);
    w.key("recovered").bool(row.recovered);
}

fn framework_members(
    w: &mut Writer<'_>,
    framework: &FrameworkView,
    offers: &Offers<'_>,
    see: &Visibility,
) {
    let row = &framework.row;
    let info = v1::FrameworkInfo::decode(&*row.info).unwrap_or_default();
    framework_summary(w, row, &info);
    w.key("user").str(&info.user);
    w.key("failover_timeout").f64(info.failover_timeout());
    w.key("checkpoint").bool(info.checkpoint());
    w.key("registered_time").f64(row.registered.as_secs_f64());
    let unregistered = row.unregistered.map_or(0.0, |time| time.as_secs_f64());
    w.key("unregistered_time").f64(unregistered);
    if let Some(principal) = &info.principal {
        w.key("principal").str(principal);
    }
    w.key("resources");
    resources::object(w, row.used.iter().chain(&row.offered));
    if let Some(time) = row.reregistered.filter(|time| *time != row.registered) {
        w.key("reregistered_time").f64(time.as_secs_f64());
    }
    framework_roles(w, &info);
    task_lists(w, framework, see);
    w.key("offers").array(|w| {
        for offer in offers.get(&row.key).into_iter().flatten() {
            offer_object(w, offer);
        }
    });
    w.key("executors").array(|w| {
        let executors = framework.executors.iter();
        for executor in executors.filter(|e| see.executors.has(&e.class)) {
            let agent = executor.agent_id.as_str();
            blocks::executor(w, &executor.info, &executor.resources, agent);
        }
    });
    if let Some(labels) = field(&row.info, 11) {
        w.key("labels");
        blocks::labels(w, labels.bytes());
    }
    w.key("offer_constraints").wire(
        v1::scheduler::OfferConstraints::DESCRIPTOR,
        row.constraints.as_deref().unwrap_or_default(),
    );
}

/// `roles` of a framework that may have several, `role` of another.
pub(super) fn framework_roles(w: &mut Writer<'_>, info: &v1::FrameworkInfo) {
    use v1::framework_info::capability::Type;
    let multi = info
        .capabilities
        .iter()
        .any(|c| c.r#type() == Type::MultiRole);
    if multi {
        w.key("roles")
            .array(|w| info.roles.iter().for_each(|role| w.str(role)));
    } else {
        w.key("role").str(info.role());
    }
}

fn task_lists(w: &mut Writer<'_>, framework: &FrameworkView, see: &Visibility) {
    w.key("tasks").array(|w| {
        for task in framework.tasks.iter().filter(|t| see.tasks.has(&t.class)) {
            if w.is_stopped() {
                return;
            }
            live_task(w, task);
        }
    });
    let done = [
        ("unreachable_tasks", &framework.unreachable),
        ("completed_tasks", &framework.completed),
    ];
    for (key, tasks) in done {
        w.key(key).array(|w| {
            for task in tasks.iter().filter(|t| see.tasks.has(&t.class)) {
                if w.is_stopped() {
                    return;
                }
                blocks::task(w, &task.bytes, None);
            }
        });
    }
}

fn live_task(w: &mut Writer<'_>, task: &TaskRow) {
    let live = Live {
        state: task.state,
        statuses: &task.statuses,
        resources: &task.resources,
    };
    blocks::task(w, &task.spec, Some(&live));
}

fn offer_object(w: &mut Writer<'_>, offer: &OfferRow) {
    let id =
        |number| field(&offer.bytes, number).map_or("", |v| super::wire::value_text(v.bytes()));
    w.object(|w| {
        w.key("id").str(offer.id.as_str());
        w.key("framework_id").str(id(2));
        w.key("allocation_info")
            .object(|w| w.key("role").str(offer.role.as_str()));
        w.key("slave_id").str(id(3));
        w.key("resources");
        resources::object(w, &offer.resources);
    });
}

/// What `GET /tasks` asks for.
#[derive(Clone, Debug)]
pub struct TasksQuery {
    /// How many at most.
    pub limit: usize,
    /// How many to leave out first.
    pub offset: usize,
    /// Oldest first.
    pub ascending: bool,
    /// Of this framework only.
    pub framework: Option<FrameworkId>,
    /// With this id only.
    pub task: Option<TaskId>,
}

impl Default for TasksQuery {
    fn default() -> Self {
        Self {
            limit: 100,
            offset: 0,
            ascending: false,
            framework: None,
            task: None,
        }
    }
}

/// A task of either kind.
enum AnyTask<'a> {
    Live(&'a TaskRow),
    Done(&'a DoneRow),
}

impl AnyTask<'_> {
    /// When its first update was made; what has had none yet comes before all others.
    fn first_update(&self) -> Option<f64> {
        let time = |status: &[u8]| field(status, 6).map_or(0.0, WireValue::f64);
        match self {
            Self::Live(task) => task.statuses.first().map(|status| time(status)),
            Self::Done(task) => field_first(&task.bytes, 8).map(time),
        }
    }
}

fn field_first(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = super::wire::Fields(message);
    fields
        .find(|(found, _)| *found == number)
        .map(|(_, value)| value.bytes())
}

/// `GET /tasks`
pub fn tasks(view: &View, see: &Visibility, query: &TasksQuery, sink: Sink<'_>) {
    let mut found = Vec::new();
    for framework in view.frameworks.iter().chain(&view.completed_frameworks) {
        let row = &framework.row;
        let wanted = query.framework.as_ref().is_none_or(|id| *id == row.id);
        if !wanted || !see.frameworks.has(&row.class) {
            continue;
        }
        let is_wanted = |id: &TaskId, class| {
            query.task.as_ref().is_none_or(|wanted| wanted == id) && see.tasks.has(class)
        };
        let live = framework
            .tasks
            .iter()
            .filter(|t| is_wanted(&t.id, &t.class));
        found.extend(live.map(|task| (None, AnyTask::Live(task))));
        let done = framework
            .unreachable
            .iter()
            .chain(framework.completed.iter());
        let done = done.filter(|t| is_wanted(&t.id, &t.class));
        found.extend(done.map(|task| (None, AnyTask::Done(task))));
    }
    for (key, task) in &mut found {
        *key = task.first_update();
    }
    // None is less than any time, and floats of tasks are never NaN: they come from clocks.
    found.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    if !query.ascending {
        found.reverse();
    }
    json(sink, |w| {
        w.object(|w| {
            w.key("tasks").array(|w| {
                for (_, task) in found.iter().skip(query.offset).take(query.limit) {
                    match task {
                        AnyTask::Live(task) => live_task(w, task),
                        AnyTask::Done(task) => blocks::task(w, &task.bytes, None),
                    }
                }
            });
        });
    });
}
