//! What the master says.

use std::sync::Arc;

use tepui_model::id::{AgentId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::Message as _;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{Drain, LinkFrame, SyncExecutor, SyncFramework, SyncTask, Welcome};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, KillPolicy};
use tepui_proto::{Wire, convert};

use crate::rows::{Executor, Framework, new_task};
use crate::state::{AgentState, Leaving};
use crate::{Effect, ExecutorKind};

impl AgentState {
    pub(crate) fn connected(
        &mut self,
        session: u64,
        welcome: Welcome,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.session.is_some_and(|current| current >= session) {
            return;
        }
        let same_cluster = welcome.cluster_id == self.cluster_id;
        if same_cluster && welcome.epoch < self.epoch {
            let reason = format!("epoch {} is behind {}", welcome.epoch, self.epoch);
            effects.push(Effect::CloseSession { session, reason });
            return;
        }
        let id = welcome.agent_id.map_or_else(String::new, |id| id.value);
        let changed = !same_cluster || welcome.epoch != self.epoch || self.agent() != id;
        if changed {
            self.agent_id = Some(AgentId::from(&*id));
            self.cluster_id = welcome.cluster_id;
            self.epoch = welcome.epoch;
            effects.push(Effect::CheckpointAgent {
                agent_id: id,
                cluster_id: self.cluster_id.clone(),
                epoch: self.epoch,
            });
        }
        self.master = welcome.master_info.map(Wire);
        self.session = Some(session);
        effects.push(self.sync(session));
        self.resend(None, now, effects);
        self.resend_operations(None, now, effects);
    }

    pub(crate) fn disconnected(&mut self, session: u64, effects: &mut Vec<Effect>) {
        if self.session != Some(session) {
            return;
        }
        self.session = None;
        for framework in &mut self.frameworks {
            for stream in framework.streams.values_mut() {
                stream.retry_at = None;
            }
        }
        for operation in &mut self.owned.ended {
            operation.retry_at = None;
        }
        // Those that the master spoke of and of which nothing came any more.
        let idle = self.frameworks.iter().filter(|one| one.is_idle());
        let idle: Vec<FrameworkId> = idle.map(|one| one.id.clone()).collect();
        for id in idle {
            self.settle(&id, effects);
        }
    }

    fn sync(&self, session: u64) -> Effect {
        let frameworks = self.frameworks.iter().map(|framework| {
            Wire(SyncFramework {
                info: Some(framework.info.0.clone()),
                completed: framework.terminating,
            })
        });
        // What a framework that is being ended still uses was free when the master ended it, and may be in use again.
        let rows = || {
            let frameworks = self.frameworks.iter();
            frameworks
                .filter(|framework| !framework.terminating)
                .flat_map(|f| f.executors.iter().map(move |e| (f, e)))
        };
        let listed = rows().filter(|(_, e)| e.kind != ExecutorKind::Generated && e.end.is_none());
        let executors = listed.map(|(framework, executor)| {
            Wire(SyncExecutor {
                framework_id: Some(v1::FrameworkId {
                    value: framework.id.to_string(),
                }),
                info: Some(executor.info.0.clone()),
            })
        });
        Effect::Sync {
            session,
            frameworks: frameworks.collect(),
            executors: executors.collect(),
            tasks: rows()
                .flat_map(|(f, e)| sync_tasks(f, e, self.agent()))
                .collect(),
            total: convert::to_proto(&self.owned.total)
                .into_iter()
                .map(Wire)
                .collect(),
            operations: self.operations().cloned().map(Wire).collect(),
            resource_version: self.resource_version.clone(),
        }
    }

    pub(crate) fn told(&mut self, frame: LinkFrame, now: Now, effects: &mut Vec<Effect>) {
        let Some(body) = frame.body else { return };
        match body {
            Body::Framework(framework) => self.told_framework(framework.info),
            Body::Run(run) => self.run(run, now, effects),
            Body::Kill(kill) => {
                let framework = framework_id(kill.framework_id);
                let task = TaskId::from(kill.task_id.map_or_else(String::new, |id| id.value));
                self.kill(
                    &framework,
                    &task,
                    kill.kill_policy,
                    kill.reason,
                    now,
                    effects,
                );
            }
            Body::ShutdownExecutor(shutdown) => {
                let framework = framework_id(shutdown.framework_id);
                let executor = shutdown.executor_id.map_or_else(String::new, |id| id.value);
                self.shutdown_named(&framework, &ExecutorId::from(executor), now, effects);
            }
            Body::ShutdownFramework(shutdown) => {
                self.shutdown_framework(&framework_id(shutdown.framework_id), now, effects);
            }
            Body::AckUpdate(ack) => self.acknowledged(&ack, now, effects),
            Body::ResendUpdates(resend) => {
                let framework = framework_id(resend.framework_id);
                self.resend(Some(&framework), now, effects);
                self.resend_operations(Some(&framework), now, effects);
            }
            Body::ApplyOperation(operation) => self.apply_operation(operation, now, effects),
            Body::Drain(drain) => self.begin_drain(drain, now, effects),
            Body::Reactivate(_) => self.drain = None,
            Body::Shutdown(shutdown) => self.shut_down(shutdown.reason, effects),
            Body::FrameworkMessage(message) => self.framework_message(message, effects),
            Body::AckOperation(ack) => self.operation_acknowledged(&ack, effects),
            // The link lets no other frame through.
            _ => {}
        }
    }

    fn told_framework(&mut self, info: Option<v1::FrameworkInfo>) {
        let Some(info) = info else { return };
        let id = FrameworkId::from(info.id.as_ref().map_or("", |id| &id.value));
        if id.as_str().is_empty() {
            return;
        }
        match self.framework_mut(&id) {
            Some(framework) => framework.info = Wire(info),
            None => {
                let mut framework = Framework::new(id, info);
                // It comes back with its history.
                let before = |old: &Arc<Framework>| old.id == framework.id;
                if let Some(at) = self.completed_frameworks.iter().position(before)
                    && let Some(old) = self.completed_frameworks.remove(at)
                {
                    framework.completed_executors = old.completed_executors.clone();
                }
                self.frameworks.push(framework);
            }
        }
    }

    fn shutdown_named(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(row) = self.framework(framework) else {
            return;
        };
        let found = row.executors.iter().rev().find(|e| e.id == *executor);
        if let Some(container) = found.map(|e| e.container.clone()) {
            self.shutdown_executor(framework, &container, now, effects);
        }
    }

    /// Ends every task with at most the given grace; new ones are refused until `Reactivate`.
    fn begin_drain(&mut self, drain: Drain, now: Now, effects: &mut Vec<Effect>) {
        let Some(config) = drain.config else { return };
        let most = config.max_grace_period.map(|grace| grace.nanoseconds);
        self.drain = Some(Wire(config));
        let tasks: Vec<(FrameworkId, TaskId, Option<KillPolicy>)> = self
            .frameworks
            .iter()
            .flat_map(|f| f.executors.iter().map(move |e| (f, e)))
            .flat_map(|(f, e)| {
                let infos = e.queued.iter().chain(e.tasks.iter().map(|task| &task.info));
                infos.map(move |info| {
                    let id = TaskId::from(&*info.task_id.value);
                    (f.id.clone(), id, shorter(info.kill_policy, most))
                })
            })
            .collect();
        let reason = Some(Reason::AgentDraining.into());
        for (framework, task, policy) in tasks {
            self.kill(&framework, &task, policy, reason, now, effects);
        }
    }

    /// The master wants the agent gone: everything ends now.
    pub(crate) fn shut_down(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.leaving = Some(Leaving {
            reason,
            unregister: false,
            said: false,
        });
        for framework in &mut self.frameworks {
            framework.terminating = true;
            framework.streams.clear();
            for executor in &framework.executors {
                if executor.end.is_none() {
                    effects.push(Effect::Destroy {
                        container: executor.container.clone(),
                    });
                }
            }
        }
        let ids: Vec<FrameworkId> = self.frameworks.iter().map(|f| f.id.clone()).collect();
        for id in ids {
            self.settle(&id, effects);
        }
    }
}

fn framework_id(id: Option<v1::FrameworkId>) -> FrameworkId {
    FrameworkId::from(id.map_or_else(String::new, |id| id.value))
}

/// The task's own grace, or `most` where that is shorter.
fn shorter(own: Option<KillPolicy>, most: Option<i64>) -> Option<KillPolicy> {
    let own_ns = own
        .and_then(|policy| policy.grace_period)
        .map(|grace| grace.nanoseconds);
    let nanoseconds = match (own_ns, most) {
        (Some(own), Some(most)) => own.min(most),
        (None, Some(most)) => most,
        (_, None) => return own,
    };
    Some(KillPolicy {
        grace_period: Some(v1::DurationInfo { nanoseconds }),
    })
}

fn sync_tasks<'a>(
    framework: &'a Framework,
    executor: &'a Executor,
    agent: &'a str,
) -> impl Iterator<Item = Wire<SyncTask>> + 'a {
    let queued = executor
        .queued
        .iter()
        .map(move |info| new_task(info, &framework.id, agent, executor));
    let tasks = executor.tasks.iter().map(|task| task.task.0.clone());
    queued.chain(tasks).map(|task| {
        Wire(SyncTask {
            task: task.encode_to_vec().into(),
        })
    })
}
