//! A client of the v1 scheduler API: what the command line, load generators and tests are as frameworks.

use prost::Message;
use tepui_proto::v1::{self, scheduler};

use crate::Method;
use crate::client::{Client, ClientError, Records, Reply};
use crate::media::Media;

const PATH: &str = "/api/v1/scheduler";

/// Why a call or a stream failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The call did not arrive, or was refused.
    #[error("{call}")]
    Call {
        /// Its type.
        call: &'static str,
        /// Why.
        source: ClientError,
    },
    /// The master answered SUBSCRIBE with an ERROR event.
    #[error("the master refused the subscription: {0}")]
    Refused(String),
    /// The event stream broke.
    #[error("the event stream broke")]
    Stream(#[source] ClientError),
    /// The master closed the event stream.
    #[error("the master closed the event stream")]
    Closed,
    /// An event cannot be decoded.
    #[error("an event cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}

/// A subscribed framework: its event stream and the calls that go with it.
#[derive(Debug)]
pub struct SchedulerClient {
    client: Client,
    events: Records,
    stream_id: String,
    id: v1::FrameworkId,
}

impl SchedulerClient {
    /// Subscribes; with an id in the info, as that framework.
    pub async fn subscribe(
        client: &Client,
        info: v1::FrameworkInfo,
    ) -> Result<Self, SchedulerError> {
        let call = scheduler::Call {
            framework_id: info.id.clone(),
            r#type: Some(scheduler::call::Type::Subscribe.into()),
            subscribe: Some(scheduler::call::Subscribe {
                framework_info: info,
                ..Default::default()
            }),
            ..Default::default()
        };
        let events = client
            .stream(PATH, Media::Protobuf, &[], call.encode_to_vec())
            .await;
        let events = events.map_err(|source| SchedulerError::Call {
            call: "SUBSCRIBE",
            source,
        })?;
        let stream_id = events
            .header("Mesos-Stream-Id")
            .unwrap_or_default()
            .to_owned();
        let id = v1::FrameworkId::default();
        let mut subscribed = Self {
            client: client.clone(),
            events,
            stream_id,
            id,
        };
        let first = subscribed.next().await?;
        match (first.subscribed, first.error) {
            (Some(event), _) => subscribed.id = event.framework_id,
            (None, Some(error)) => return Err(SchedulerError::Refused(error.message)),
            (None, None) => {
                return Err(SchedulerError::Refused(format!(
                    "{:?} came first",
                    first.r#type
                )));
            }
        }
        Ok(subscribed)
    }

    /// The id that the master gave.
    pub fn id(&self) -> &v1::FrameworkId {
        &self.id
    }

    /// What names the subscription in calls that are sent in other ways.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// `host:port` of the master.
    pub fn authority(&self) -> &str {
        self.client.authority()
    }

    /// The next event. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<scheduler::Event, SchedulerError> {
        match self.events.next().await.map_err(SchedulerError::Stream)? {
            Some(record) => Ok(scheduler::Event::decode(record)?),
            None => Err(SchedulerError::Closed),
        }
    }

    /// Any call. The type and the framework's id are filled in.
    pub async fn call(
        &self,
        kind: scheduler::call::Type,
        body: scheduler::Call,
    ) -> Result<(), SchedulerError> {
        let call = scheduler::Call {
            framework_id: Some(self.id.clone()),
            r#type: Some(kind.into()),
            ..body
        };
        let media = Media::Protobuf.content_type();
        let headers = [
            ("Content-Type", media),
            ("Accept", media),
            ("Mesos-Stream-Id", &self.stream_id),
        ];
        let sent = self
            .client
            .request(Method::POST, PATH, &headers, call.encode_to_vec().into())
            .await;
        let answer = sent.and_then(Reply::success);
        answer.map(drop).map_err(|source| SchedulerError::Call {
            call: kind.as_str_name(),
            source,
        })
    }

    /// ACCEPT of one offer with one LAUNCH; what is left of it is refused for this long.
    pub async fn launch(
        &self,
        offer: v1::OfferId,
        task_infos: Vec<v1::TaskInfo>,
        refuse_seconds: f64,
    ) -> Result<(), SchedulerError> {
        let operation = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch.into()),
            launch: Some(v1::offer::operation::Launch { task_infos }),
            ..Default::default()
        };
        self.accept(vec![offer], vec![operation], refuse_seconds)
            .await
    }

    /// ACCEPT of offers of one agent; what is left of them is refused for this long.
    pub async fn accept(
        &self,
        offer_ids: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        refuse_seconds: f64,
    ) -> Result<(), SchedulerError> {
        let accept = scheduler::call::Accept {
            offer_ids,
            operations,
            filters: Some(v1::Filters {
                refuse_seconds: Some(refuse_seconds),
            }),
        };
        let body = scheduler::Call {
            accept: Some(accept),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Accept, body).await
    }

    /// DECLINE.
    pub async fn decline(
        &self,
        offer_ids: Vec<v1::OfferId>,
        refuse_seconds: f64,
    ) -> Result<(), SchedulerError> {
        let filters = Some(v1::Filters {
            refuse_seconds: Some(refuse_seconds),
        });
        let decline = scheduler::call::Decline { offer_ids, filters };
        let body = scheduler::Call {
            decline: Some(decline),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Decline, body).await
    }

    /// ACKNOWLEDGE of an update; nothing for updates that need none.
    pub async fn acknowledge(&self, status: &v1::TaskStatus) -> Result<(), SchedulerError> {
        let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) else {
            return Ok(());
        };
        let acknowledge = scheduler::call::Acknowledge {
            agent_id,
            task_id: status.task_id.clone(),
            uuid,
        };
        let body = scheduler::Call {
            acknowledge: Some(acknowledge),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Acknowledge, body).await
    }

    /// KILL of a task.
    pub async fn kill(
        &self,
        task: &str,
        agent_id: Option<v1::AgentId>,
    ) -> Result<(), SchedulerError> {
        let task_id = v1::TaskId {
            value: task.to_owned(),
        };
        let kill = scheduler::call::Kill {
            task_id,
            agent_id,
            kill_policy: None,
        };
        let body = scheduler::Call {
            kill: Some(kill),
            ..Default::default()
        };
        self.call(scheduler::call::Type::Kill, body).await
    }

    /// A call without a body of its own: SUPPRESS, REVIVE, TEARDOWN.
    pub async fn bare(&self, kind: scheduler::call::Type) -> Result<(), SchedulerError> {
        self.call(kind, scheduler::Call::default()).await
    }
}

/// A scalar resource of no role in particular.
pub fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}

/// A shell command as a task; the agent's id is to be filled in.
pub fn command_task(id: &str, command: &str, cpus: f64, mem: f64) -> v1::TaskInfo {
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
