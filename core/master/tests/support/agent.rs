//! An agent on the real link whose tasks run only in its words.

use tepui_http::Client;
use tepui_link::{
    AgentEnd, AgentEvent, AgentSession, AgentSettings, AgentUpdate, PATH, Synced, UPGRADE,
};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{Hello, Refuse, Run, Update, Updates};
use tepui_proto::v1::{self, TaskState, TaskStatus};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::PATIENCE;

pub struct FakeAgent {
    pub id: v1::AgentId,
    session: AgentSession,
    events: mpsc::Receiver<AgentEvent>,
    run: JoinHandle<()>,
    _end: AgentEnd,
}

impl FakeAgent {
    /// Connects, registers and syncs an agent with so many cpus and so much memory.
    pub async fn connect(master: &Client, cpus: f64, mem: f64) -> FakeAgent {
        FakeAgent::with(master, vec![scalar("cpus", cpus), scalar("mem", mem)]).await
    }

    /// The same with these resources.
    pub async fn with(master: &Client, total: Vec<v1::Resource>) -> FakeAgent {
        match FakeAgent::register(master, total).await {
            Ok(agent) => agent,
            Err(refused) => panic!("not welcome: {refused:?}"),
        }
    }

    /// The same, or why not.
    pub async fn register(master: &Client, total: Vec<v1::Resource>) -> Result<FakeAgent, Refuse> {
        let stream = master.upgrade(PATH, UPGRADE, &[]).await.expect("the link");
        let (inbox, events) = mpsc::channel(64);
        let (end, run) = AgentEnd::start(stream, AgentSettings::default(), inbox);
        let run = tokio::spawn(run);
        let info = v1::AgentInfo {
            hostname: "localhost".to_owned(),
            port: Some(5051),
            resources: total.clone(),
            ..Default::default()
        };
        let session = end.open(Hello {
            version: "1.11.0".to_owned(),
            info: Some(info),
            run_number: 1,
            boot_id: "boot".to_owned(),
            address: "127.0.0.1:5051".to_owned(),
            resource_version: vec![7; 16].into(),
            ..Default::default()
        });
        let mut agent = FakeAgent {
            id: v1::AgentId::default(),
            session,
            events,
            run,
            _end: end,
        };
        match agent.event().await {
            AgentUpdate::Welcome(welcome) => agent.id = welcome.agent_id.expect("an id"),
            AgentUpdate::Refused(refused) => return Err(refused),
            other => panic!("neither welcome nor refused: {other:?}"),
        }
        let all = Synced {
            total,
            resource_version: vec![7; 16].into(),
            ..Default::default()
        };
        agent.session.sync(all).expect("the session is open");
        Ok(agent)
    }

    pub async fn event(&mut self) -> AgentUpdate {
        let event = tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("timed out: an agent's event");
        event.expect("the connection is open").event
    }

    /// Waits for a command that `wanted` takes.
    pub async fn command<T>(&mut self, mut wanted: impl FnMut(Body) -> Option<T>) -> T {
        loop {
            if let AgentUpdate::Command(body) = self.event().await
                && let Some(found) = wanted(*body)
            {
                return found;
            }
        }
    }

    /// Waits for a launch.
    pub async fn run(&mut self) -> Run {
        self.command(|body| match body {
            Body::Run(run) => Some(run),
            _ => None,
        })
        .await
    }

    /// Reports a state of a task.
    pub fn update(&self, framework: &v1::FrameworkId, task: &str, state: TaskState, uuid: u8) {
        let status = TaskStatus {
            task_id: v1::TaskId {
                value: task.to_owned(),
            },
            state: state.into(),
            source: Some(v1::task_status::Source::Executor.into()),
            agent_id: Some(self.id.clone()),
            executor_id: Some(v1::ExecutorId {
                value: task.to_owned(),
            }),
            timestamp: Some(1.0),
            uuid: Some(vec![uuid; 16].into()),
            ..Default::default()
        };
        let update = Update {
            framework_id: Some(framework.clone()),
            status: Some(status),
            latest_state: state.into(),
        };
        self.session
            .send(Body::Updates(Updates {
                updates: vec![update],
            }))
            .expect("the session is open");
    }

    /// Breaks the connection.
    pub fn break_off(&self) {
        self.run.abort();
    }
}

pub fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}
