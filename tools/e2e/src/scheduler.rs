//! A framework under a test's control: every call is made by the test, every update is kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;
use tepui_http::{Client, Media, Method, Records, Reply};
use tepui_proto::v1::{self, TaskState, scheduler};
use tokio::runtime::Runtime;

use crate::wait::PATIENCE;

const PATH: &str = "/api/v1/scheduler";

/// A subscribed framework.
pub struct Scheduler {
    runtime: Runtime,
    client: Client,
    events: Records,
    stream_id: String,
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

/// A command task with scalar resources.
pub fn task(id: &str, command: &str, cpus: f64, mem: f64) -> v1::TaskInfo {
    let scalar = |name: &str, value| v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    };
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId {
            value: id.to_owned(),
        },
        resources: vec![scalar("cpus", cpus), scalar("mem", mem)],
        command: Some(v1::CommandInfo {
            value: Some(command.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Scheduler {
    /// Subscribes; an ERROR event fails the test.
    pub fn subscribe(master: SocketAddr, info: v1::FrameworkInfo) -> Self {
        Self::try_subscribe(master, info).unwrap_or_else(|error| panic!("SUBSCRIBE: {error}"))
    }

    /// Subscribes, or says what the master's ERROR event said.
    pub fn try_subscribe(master: SocketAddr, info: v1::FrameworkInfo) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = Client::new(&master.to_string()).expect("an address");
        let call = scheduler::Call {
            framework_id: info.id.clone(),
            r#type: Some(scheduler::call::Type::Subscribe.into()),
            subscribe: Some(scheduler::call::Subscribe {
                framework_info: info,
                ..Default::default()
            }),
            ..Default::default()
        };
        let stream = client.stream(PATH, Media::Protobuf, &[], call.encode_to_vec());
        let events = runtime
            .block_on(stream)
            .map_err(|error| error.to_string())?;
        let stream_id = events
            .header("Mesos-Stream-Id")
            .unwrap_or_default()
            .to_owned();
        let mut scheduler = Self {
            runtime,
            client,
            events,
            stream_id,
            id: v1::FrameworkId::default(),
            offers: Vec::new(),
            updates: BTreeMap::new(),
            other: Vec::new(),
            acknowledges: true,
        };
        let first = scheduler.next().expect("a first event");
        match (first.subscribed, first.error) {
            (Some(subscribed), _) => scheduler.id = subscribed.framework_id,
            (None, error) => return Err(error.map(|error| error.message).unwrap_or_default()),
        }
        Ok(scheduler)
    }

    /// The next event, `None` at the stream's end.
    fn next(&mut self) -> Option<scheduler::Event> {
        let record = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.events.next()).await });
        let record = record.unwrap_or_else(|_| panic!("no event in {} s", PATIENCE.as_secs()));
        record
            .expect("an unbroken stream")
            .map(|record| scheduler::Event::decode(record).expect("an event"))
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
                .block_on(async { tokio::time::timeout(left, self.events.next()).await });
            match next {
                Ok(Ok(Some(record))) => {
                    self.keep(scheduler::Event::decode(record).expect("an event"))
                }
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
                self.acknowledge(&status);
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
    pub fn accept(&mut self, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) {
        let operation = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch.into()),
            launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
            ..Default::default()
        };
        let accept = scheduler::call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![operation],
            filters: Some(v1::Filters {
                refuse_seconds: Some(0.0),
            }),
        };
        self.call(scheduler::call::Type::Accept, |call| {
            call.accept = Some(accept)
        });
    }

    /// DECLINE of everything in hand.
    pub fn decline_all(&mut self, refuse_seconds: f64) {
        let offer_ids = self.offers.drain(..).map(|offer| offer.id).collect();
        let decline = scheduler::call::Decline {
            offer_ids,
            filters: Some(v1::Filters {
                refuse_seconds: Some(refuse_seconds),
            }),
        };
        self.call(scheduler::call::Type::Decline, |call| {
            call.decline = Some(decline)
        });
    }

    /// KILL of a task.
    pub fn kill(&mut self, task: &str) {
        let kill = scheduler::call::Kill {
            task_id: v1::TaskId {
                value: task.to_owned(),
            },
            ..Default::default()
        };
        self.call(scheduler::call::Type::Kill, |call| call.kill = Some(kill));
    }

    /// Waits until a task is in a state; the update that said so.
    #[track_caller]
    pub fn wait_state(&mut self, task: &str, state: TaskState) -> v1::TaskStatus {
        self.wait(&format!("{} of {task}", state.as_str_name()), |scheduler| {
            scheduler
                .updates
                .get(task)?
                .iter()
                .find(|status| status.state() == state)
                .cloned()
        })
    }

    fn acknowledge(&mut self, status: &v1::TaskStatus) {
        let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) else {
            return;
        };
        let acknowledge = scheduler::call::Acknowledge {
            agent_id,
            task_id: status.task_id.clone(),
            uuid,
        };
        self.call(scheduler::call::Type::Acknowledge, |call| {
            call.acknowledge = Some(acknowledge)
        });
    }

    /// Any call; a refusal fails the test.
    #[track_caller]
    pub fn call(&mut self, kind: scheduler::call::Type, fill: impl FnOnce(&mut scheduler::Call)) {
        let mut call = scheduler::Call {
            framework_id: Some(self.id.clone()),
            r#type: Some(kind.into()),
            ..Default::default()
        };
        fill(&mut call);
        let media = Media::Protobuf.content_type();
        let headers = [
            ("Content-Type", media),
            ("Accept", media),
            ("Mesos-Stream-Id", &self.stream_id),
        ];
        let sent = self
            .client
            .request(Method::POST, PATH, &headers, call.encode_to_vec().into());
        self.runtime
            .block_on(sent)
            .and_then(Reply::success)
            .unwrap_or_else(|error| panic!("{}: {error}", kind.as_str_name()));
    }
}
