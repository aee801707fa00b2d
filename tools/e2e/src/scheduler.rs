//! A framework under a test's control: every call is made by the test, every update is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tepui_http::{Client, SchedulerClient, SchedulerError};
use tepui_proto::v1::{self, TaskState, executor_info, scheduler};
use tokio::runtime::Runtime;

use crate::wait::{PATIENCE, wait_for};

pub use tepui_http::scheduler_client::command_task as task;
use tepui_http::scheduler_client::scalar;

/// A subscribed framework.
pub struct Scheduler {
    runtime: Runtime,
    client: SchedulerClient,
    info: v1::FrameworkInfo,
    /// Its id.
    pub id: v1::FrameworkId,
    /// Offers not answered yet.
    pub offers: Vec<v1::Offer>,
    /// All updates, by task.
    pub updates: BTreeMap<String, Vec<v1::TaskStatus>>,
    /// Events other than offers and updates.
    pub other: Vec<scheduler::Event>,
    /// Acknowledge updates as they come.
    pub acknowledges: bool,
}

/// A FrameworkInfo that most tests can use.
pub fn framework(name: &str, checkpoint: bool) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        checkpoint: Some(checkpoint),
        failover_timeout: Some(60.0),
        ..Default::default()
    }
}

/// An executor for a group of tasks.
pub fn default_executor(id: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        r#type: Some(executor_info::Type::Default.into()),
        executor_id: v1::ExecutorId {
            value: id.to_owned(),
        },
        resources: vec![
            scalar("cpus", 0.1),
            scalar("mem", 32.0),
            scalar("disk", 32.0),
        ],
        ..v1::ExecutorInfo::default()
    }
}

impl Scheduler {
    /// Subscribes as soon as the master leads; an ERROR event fails the test.
    #[track_caller]
    pub fn subscribe(master: SocketAddr, info: v1::FrameworkInfo) -> Self {
        let subscribed = wait_for("a leading master", || {
            match Self::try_subscribe(master, info.clone()) {
                Err(error @ SchedulerError::Call { .. }) => Err(error),
                other => Ok(other),
            }
        });
        subscribed.unwrap_or_else(|error| panic!("SUBSCRIBE: {error}"))
    }

    /// Subscribes, or says why not.
    pub fn try_subscribe(
        master: SocketAddr,
        info: v1::FrameworkInfo,
    ) -> Result<Self, SchedulerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let http = Client::new(&master.to_string()).expect("an address");
        let client = runtime.block_on(SchedulerClient::subscribe(&http, info.clone()))?;
        Ok(Self {
            runtime,
            id: client.id().clone(),
            client,
            info,
            offers: Vec::new(),
            updates: BTreeMap::new(),
            other: Vec::new(),
            acknowledges: true,
        })
    }

    /// Subscribes again under its id, once a master leads. What it was told stays with it, but for offers.
    #[track_caller]
    pub fn resubscribe(&mut self, master: SocketAddr) {
        self.offers.clear();
        let info = v1::FrameworkInfo {
            id: Some(self.id.clone()),
            ..self.info.clone()
        };
        let http = Client::new(&master.to_string()).expect("an address");
        self.client = wait_for("a leading master", || {
            let subscribed = SchedulerClient::subscribe(&http, info.clone());
            self.runtime.block_on(subscribed)
        });
    }

    /// Asks for the states of tasks, each with the agent that was to run it.
    #[track_caller]
    pub fn reconcile<'a>(&mut self, tasks: impl IntoIterator<Item = (&'a str, &'a v1::AgentId)>) {
        let tasks = tasks
            .into_iter()
            .map(|(id, agent)| scheduler::call::reconcile::Task {
                task_id: v1::TaskId {
                    value: id.to_owned(),
                },
                agent_id: Some(agent.clone()),
            });
        let body = scheduler::Call {
            reconcile: Some(scheduler::call::Reconcile {
                tasks: tasks.collect(),
            }),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Reconcile, body);
    }

    /// The next event, `None` at the stream's end.
    fn next(&mut self) -> Option<scheduler::Event> {
        let next = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.client.next()).await });
        match next.unwrap_or_else(|_| panic!("no event in {} s", PATIENCE.as_secs())) {
            Ok(event) => Some(event),
            Err(SchedulerError::Closed) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Takes events until the test has seen what it waits for.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut seen: impl FnMut(&mut Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(value) = seen(self) {
                return value;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited for {what}; updates {:?}",
                self.states()
            );
            let Some(event) = self.next() else {
                panic!("the stream ended while waiting for {what}")
            };
            self.keep(event);
        }
    }

    /// Takes what comes within this time.
    pub fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let next = self
                .runtime
                .block_on(async { tokio::time::timeout(left, self.client.next()).await });
            match next {
                Ok(Ok(event)) => self.keep(event),
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn keep(&mut self, mut event: scheduler::Event) {
        if let Some(offers) = event.offers.take() {
            self.offers.extend(offers.offers);
        } else if let Some(update) = event.update.take() {
            let status = update.status;
            if self.acknowledges {
                self.runtime
                    .block_on(self.client.acknowledge(&status))
                    .expect("ACKNOWLEDGE");
            }
            self.updates
                .entry(status.task_id.value.clone())
                .or_default()
                .push(status);
        } else {
            if let Some(rescind) = &event.rescind {
                self.offers.retain(|offer| offer.id != rescind.offer_id);
            }
            self.other.push(event);
        }
    }

    /// States seen of every task.
    pub fn states(&self) -> BTreeMap<&str, Vec<TaskState>> {
        self.updates
            .iter()
            .map(|(id, all)| {
                (
                    id.as_str(),
                    all.iter().map(|status| status.state()).collect(),
                )
            })
            .collect()
    }

    /// Waits for an offer and takes it.
    #[track_caller]
    pub fn offer(&mut self) -> v1::Offer {
        self.wait("an offer", |scheduler| scheduler.offers.pop())
    }

    /// Launches tasks on the next offer; the agent's id is filled in.
    #[track_caller]
    pub fn launch(&mut self, mut tasks: Vec<v1::TaskInfo>) -> v1::Offer {
        let offer = self.offer();
        for task in &mut tasks {
            task.agent_id = offer.agent_id.clone();
        }
        self.accept(&offer, tasks);
        offer
    }

    /// ACCEPT with one LAUNCH.
    #[track_caller]
    pub fn accept(&mut self, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) {
        self.runtime
            .block_on(self.client.launch(offer.id.clone(), tasks, 0.0))
            .expect("ACCEPT");
    }

    /// ACCEPT with one LAUNCH_GROUP; the ids of framework and agent are filled in.
    #[track_caller]
    pub fn launch_group(
        &mut self,
        offer: &v1::Offer,
        mut executor: v1::ExecutorInfo,
        mut tasks: Vec<v1::TaskInfo>,
    ) {
        executor.framework_id = Some(self.id.clone());
        for task in &mut tasks {
            task.agent_id = offer.agent_id.clone();
        }
        let group = v1::offer::operation::LaunchGroup {
            executor,
            task_group: v1::TaskGroupInfo { tasks },
        };
        let accept = scheduler::call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![v1::offer::Operation {
                r#type: Some(v1::offer::operation::Type::LaunchGroup.into()),
                launch_group: Some(group),
                ..Default::default()
            }],
            filters: Some(v1::Filters {
                refuse_seconds: Some(0.0),
            }),
        };
        let body = scheduler::Call {
            accept: Some(accept),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Accept, body);
    }

    /// DECLINE of everything in hand.
    #[track_caller]
    pub fn decline_all(&mut self, refuse_seconds: f64) {
        let offers = self.offers.drain(..).map(|offer| offer.id).collect();
        self.runtime
            .block_on(self.client.decline(offers, refuse_seconds))
            .expect("DECLINE");
    }

    /// KILL of a task.
    #[track_caller]
    pub fn kill(&mut self, task: &str) {
        self.runtime
            .block_on(self.client.kill(task, None))
            .expect("KILL");
    }

    /// Any call; a refusal fails the test.
    #[track_caller]
    pub fn call(&mut self, kind: scheduler::call::Type, body: scheduler::Call) {
        self.runtime
            .block_on(self.client.call(kind, body))
            .expect("accepted");
    }

    /// Waits until a task is in a state; the update that said so. One that has ended otherwise fails the test.
    #[track_caller]
    pub fn wait_state(&mut self, task: &str, state: TaskState) -> v1::TaskStatus {
        self.wait(&format!("{} of {task}", state.as_str_name()), |scheduler| {
            let updates = scheduler.updates.get(task)?;
            let found = updates.iter().find(|status| status.state() == state);
            let ended = updates.iter().find(|status| is_end(status.state()));
            if let (None, Some(ended)) = (found, ended) {
                let name = ended.state().as_str_name();
                panic!("{task} ended as {name}: {}", ended.message());
            }
            found.cloned()
        })
    }
}

/// Whether nothing follows.
fn is_end(state: TaskState) -> bool {
    use TaskState::{TaskError, TaskFailed, TaskFinished, TaskKilled};
    matches!(state, TaskError | TaskFailed | TaskFinished | TaskKilled)
}
