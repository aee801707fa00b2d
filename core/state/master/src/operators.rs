//! Calls of operators, and the events that their subscribers get.

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::authorization::ClassKey;
use tepui_model::id::AgentId;
use tepui_model::time::Now;
use tepui_proto::v1::master::event::{self, Type};
use tepui_proto::v1::master::response::{get_agents, get_frameworks};
use tepui_proto::v1::{self, TaskState, TaskStatus, master};
use tepui_proto::{Message as _, Wire, convert};
use tepui_view::TaskRow;

use crate::effect::bytes_of;
use crate::event::{CallId, Entry, OperatorCall};
use crate::framework::Framework;
use crate::registry::{Pending, time};
use crate::tasks::task_of;
use crate::{Effect, MasterState, Reply, service};

impl MasterState {
    /// Answers at once, but for what has to be written first.
    pub(crate) fn operator_call(
        &mut self,
        call: CallId,
        principal: Option<&str>,
        request: OperatorCall,
        class: Option<ClassKey>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Reply> {
        match request {
            OperatorCall::Teardown { framework_id } => {
                Some(self.operator_teardown(&framework_id, class, now, effects))
            }
            OperatorCall::MarkGone { agent_id, .. } => {
                self.operator_mark_gone(call, agent_id, now, effects)
            }
            OperatorCall::Operate {
                agent_id,
                operation,
            } => self.operator_operation(call, principal, &agent_id, operation.0, now, effects),
            change => self.change(call, change, effects),
        }
    }

    fn operator_teardown(
        &mut self,
        id: &str,
        class: Option<ClassKey>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let Some(key) = self.framework_ids.get(id).copied() else {
            return Reply::BadRequest("No framework found with specified ID".into());
        };
        let now_class = self.frameworks[&key].class;
        if class.is_some_and(|class| class != now_class) {
            return Reply::Again(now_class);
        }
        self.remove_framework(key, now, effects);
        Reply::Ok
    }

    fn operator_mark_gone(
        &mut self,
        call: CallId,
        id: AgentId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Reply> {
        if self.gone.contains_key(&id) {
            return Some(Reply::Ok);
        }
        let known = self.agent_ids.contains_key(&id)
            || self.recovered.contains_key(&id)
            || self.unreachable.contains_key(&id);
        if !known {
            return Some(Reply::NotFound(format!("Agent '{id}' not found")));
        }
        if !self.transitioning.insert(id.clone()) {
            return Some(Reply::Unavailable(
                "Agent is currently transitioning".into(),
            ));
        }
        self.mark_gone(Some(call), id, now, effects);
        None
    }

    /// Writes that an agent, which is transitioning from now on, is gone.
    pub(crate) fn mark_gone(
        &mut self,
        call: Option<CallId>,
        id: AgentId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let entry = Entry {
            key: format!("gone/{id}"),
            value: bytes_of(&tepui_proto::disk::GoneAgent {
                since: Some(time(now.wall)),
            }),
        };
        let deletes = vec![
            format!("agents/{id}"),
            format!("unreachable/{id}"),
            service::key(&id),
        ];
        let pending = Pending::Gone {
            id,
            since: now.wall,
            call,
        };
        self.store(vec![entry], deletes, pending, effects);
    }

    /// An event for the subscribers of the operator API, made only if there may be any.
    fn to_operators(
        &self,
        class: Option<ClassKey>,
        event: impl FnOnce() -> master::Event,
    ) -> Option<Effect> {
        self.watched.then(|| Effect::ToOperators {
            class,
            event: Box::new(Wire(event())),
        })
    }

    /// FRAMEWORK_ADDED or FRAMEWORK_UPDATED.
    pub(crate) fn operators_framework(
        &self,
        key: FrameworkKey,
        added: bool,
        effects: &mut Vec<Effect>,
    ) {
        let framework = &self.frameworks[&key];
        effects.extend(self.to_operators(Some(framework.class), || {
            let framework = framework_message(framework);
            if added {
                master::Event {
                    r#type: Some(Type::FrameworkAdded.into()),
                    framework_added: Some(event::FrameworkAdded { framework }),
                    ..Default::default()
                }
            } else {
                master::Event {
                    r#type: Some(Type::FrameworkUpdated.into()),
                    framework_updated: Some(event::FrameworkUpdated { framework }),
                    ..Default::default()
                }
            }
        }));
    }

    pub(crate) fn operators_framework_removed(&self, framework: &Framework) -> Option<Effect> {
        self.to_operators(Some(framework.class), || master::Event {
            r#type: Some(Type::FrameworkRemoved.into()),
            framework_removed: Some(event::FrameworkRemoved {
                framework_info: framework.info.clone(),
            }),
            ..Default::default()
        })
    }

    pub(crate) fn operators_task_added(&self, row: &TaskRow) -> Option<Effect> {
        self.to_operators(Some(row.class), || master::Event {
            r#type: Some(Type::TaskAdded.into()),
            task_added: Some(event::TaskAdded { task: task_of(row) }),
            ..Default::default()
        })
    }

    pub(crate) fn operators_task_updated(
        &self,
        framework: FrameworkKey,
        class: ClassKey,
        state: TaskState,
        status: &TaskStatus,
    ) -> Option<Effect> {
        self.to_operators(Some(class), || master::Event {
            r#type: Some(Type::TaskUpdated.into()),
            task_updated: Some(event::TaskUpdated {
                framework_id: self.frameworks[&framework].proto_id(),
                status: TaskStatus {
                    data: None,
                    ..status.clone()
                },
                state: state as i32,
            }),
            ..Default::default()
        })
    }

    pub(crate) fn operators_agent_added(&self, key: AgentKey) -> Option<Effect> {
        let row = self.agents.get(&key).expect("known agent");
        let run = &self.agent_runs[&key];
        self.to_operators(None, || {
            let agent = get_agents::Agent {
                agent_info: v1::AgentInfo::decode(row.info.clone()).expect("encoded here"),
                active: row.active,
                deactivated: Some(row.deactivated),
                version: row.version.clone(),
                pid: Some(row.pid.clone()),
                registered_time: Some(row.registered.into()),
                reregistered_time: row.reregistered.map(Into::into),
                total_resources: convert::to_proto(&row.total),
                allocated_resources: convert::to_proto(&row.used),
                offered_resources: convert::to_proto(&row.offered),
                capabilities: run.capabilities.clone(),
                ..Default::default()
            };
            master::Event {
                r#type: Some(Type::AgentAdded.into()),
                agent_added: Some(event::AgentAdded { agent }),
                ..Default::default()
            }
        })
    }

    pub(crate) fn operators_agent_removed(&self, id: &AgentId) -> Option<Effect> {
        self.to_operators(None, || master::Event {
            r#type: Some(Type::AgentRemoved.into()),
            agent_removed: Some(event::AgentRemoved {
                agent_id: id.into(),
            }),
            ..Default::default()
        })
    }
}

fn framework_message(framework: &Framework) -> get_frameworks::Framework {
    get_frameworks::Framework {
        framework_info: framework.info.clone(),
        active: framework.is_active(),
        connected: framework.stream.is_some(),
        recovered: framework.standing == crate::framework::Standing::Recovered,
        registered_time: Some(framework.registered.into()),
        reregistered_time: Some(framework.reregistered.unwrap_or_default().into()),
        unregistered_time: Some(framework.unregistered.unwrap_or_default().into()),
        // GET_FRAMEWORKS has the offer constraints, events are without, as in Mesos.
        ..Default::default()
    }
}
