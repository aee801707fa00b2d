//! What one agent knows and says: tasks that only exist in its table.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tepui_link::Synced;
use tepui_proto::Message as _;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckUpdate, Hello, Run, SyncFramework, SyncTask, Update, Updates, Welcome};
use tepui_proto::v1::task_status::Source;
use tepui_proto::v1::{self, TaskState};

/// Framework and task, as they name themselves.
type Key = (String, String);

/// An agent without containers. A task whose command is `true` ends at once; any other runs until
/// it is killed.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    info: v1::AgentInfo,
    address: String,
    frameworks: BTreeMap<String, v1::FrameworkInfo>,
    tasks: BTreeMap<Key, FakeTask>,
}

#[derive(Debug)]
struct FakeTask {
    task: v1::Task,
    /// Told to the master, not acknowledged yet.
    pending: Option<Update>,
    /// The state that the pending update's acknowledgement leads to.
    next: Option<TaskState>,
}

impl FakeAgent {
    /// An agent that never registered.
    pub(crate) fn new(hostname: String, port: u16, resources: Vec<v1::Resource>) -> Self {
        Self {
            address: format!("127.0.0.1:{port}"),
            info: v1::AgentInfo {
                hostname,
                port: Some(port.into()),
                resources,
                ..v1::AgentInfo::default()
            },
            frameworks: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    /// The first frame of its session; `attempt` grows with each.
    pub(crate) fn hello(&self, attempt: u64) -> Hello {
        Hello {
            version: tepui_http::shared::version::MESOS_VERSION.to_owned(),
            info: Some(self.info.clone()),
            run_number: attempt,
            boot_id: "fake".to_owned(),
            address: self.address.clone(),
            has_state: !self.tasks.is_empty(),
            ..Hello::default()
        }
    }

    /// The master took the agent; everything it has.
    pub(crate) fn welcome(&mut self, welcome: &Welcome) -> Synced {
        self.info.id.clone_from(&welcome.agent_id);
        let framework = |info: &v1::FrameworkInfo| SyncFramework {
            info: Some(info.clone()),
            completed: false,
        };
        let task = |task: &FakeTask| SyncTask {
            task: task.task.encode_to_vec().into(),
        };
        Synced {
            frameworks: self.frameworks.values().map(framework).collect(),
            tasks: self.tasks.values().map(task).collect(),
            total: self.info.resources.clone(),
            resource_version: Bytes::copy_from_slice(uuid::Uuid::nil().as_bytes()),
            ..Synced::default()
        }
    }

    /// What the master wants, and what there is to answer.
    pub(crate) fn command(&mut self, body: Body) -> Option<Body> {
        let updates = match body {
            Body::Framework(framework) => {
                self.framework(framework.info?);
                Vec::new()
            }
            Body::Run(run) => self.run(run),
            Body::Kill(kill) => {
                let key = (kill.framework_id?.value, kill.task_id?.value);
                self.kill(&key).into_iter().collect()
            }
            Body::AckUpdate(ack) => self.acknowledged(&ack).into_iter().collect(),
            Body::ResendUpdates(resend) => {
                let framework = resend.framework_id?.value;
                let own = self.tasks.iter().filter(|(key, _)| key.0 == framework);
                own.filter_map(|(_, task)| task.pending.clone()).collect()
            }
            Body::ShutdownFramework(shutdown) => {
                let framework = shutdown.framework_id?.value;
                self.tasks.retain(|key, _| key.0 != framework);
                self.frameworks.remove(&framework);
                Vec::new()
            }
            _ => Vec::new(),
        };
        (!updates.is_empty()).then_some(Body::Updates(Updates { updates }))
    }

    /// Updates that wait for an acknowledgement: they are said again in a new session.
    pub(crate) fn pending(&self) -> Option<Body> {
        let pending = self.tasks.values().filter_map(|task| task.pending.clone());
        let updates: Vec<Update> = pending.collect();
        (!updates.is_empty()).then_some(Body::Updates(Updates { updates }))
    }

    fn framework(&mut self, info: v1::FrameworkInfo) {
        if let Some(id) = &info.id {
            self.frameworks.insert(id.value.clone(), info);
        }
    }

    fn run(&mut self, run: Run) -> Vec<Update> {
        let framework = run.framework_id.unwrap_or_default();
        let mut updates = Vec::with_capacity(run.tasks.len());
        for info in run.tasks {
            let ends = info.command.as_ref().and_then(|c| c.value.as_deref()) == Some("true");
            let key = (framework.value.clone(), info.task_id.value.clone());
            let task = self.tasks.entry(key).or_insert(FakeTask {
                task: v1::Task {
                    name: info.name,
                    task_id: info.task_id,
                    framework_id: framework.clone(),
                    agent_id: self.info.id.clone().unwrap_or_default(),
                    resources: info.resources,
                    labels: info.labels,
                    ..v1::Task::default()
                },
                pending: None,
                next: ends.then_some(TaskState::TaskFinished),
            });
            updates.push(task.change(TaskState::TaskRunning));
        }
        updates
    }

    fn kill(&mut self, key: &Key) -> Option<Update> {
        let task = self.tasks.get_mut(key)?;
        if task.pending.is_some() {
            task.next = Some(TaskState::TaskKilled);
            return None;
        }
        Some(task.change(TaskState::TaskKilled))
    }

    fn acknowledged(&mut self, ack: &AckUpdate) -> Option<Update> {
        let key = (
            ack.framework_id.as_ref()?.value.clone(),
            ack.task_id.as_ref()?.value.clone(),
        );
        let task = self.tasks.get_mut(&key)?;
        let status = task.pending.as_ref()?.status.as_ref()?;
        if status.uuid.as_deref() != Some(&*ack.uuid) {
            return None;
        }
        if status.state() != TaskState::TaskRunning {
            self.tasks.remove(&key);
            return None;
        }
        task.pending = None;
        let next = task.next.take()?;
        Some(task.change(next))
    }
}

impl FakeTask {
    /// Takes a state; the update that tells of it.
    fn change(&mut self, state: TaskState) -> Update {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let status = v1::TaskStatus {
            task_id: self.task.task_id.clone(),
            state: state.into(),
            source: Some(Source::Executor.into()),
            agent_id: Some(self.task.agent_id.clone()),
            executor_id: Some(v1::ExecutorId {
                value: self.task.task_id.value.clone(),
            }),
            timestamp: Some(seconds),
            uuid: Some(Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes())),
            ..v1::TaskStatus::default()
        };
        self.task.state = state.into();
        self.task.status_update_state = Some(state.into());
        self.task.status_update_uuid.clone_from(&status.uuid);
        self.task.statuses.push(v1::TaskStatus {
            uuid: None,
            ..status.clone()
        });
        let update = Update {
            framework_id: Some(self.task.framework_id.clone()),
            status: Some(status),
            latest_state: state.into(),
        };
        self.pending = Some(update.clone());
        update
    }
}
