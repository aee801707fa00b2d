//! A scheduler over HTTP, in JSON or protobuf.

use tepui_http::{Client, Media, Records, Reply, StatusCode};
use tepui_proto::v1::scheduler::{Call, Event, call, event};
use tepui_proto::v1::{self, offer};
use tepui_proto::{Message as _, json};

use super::PATIENCE;
use super::agent::scalar;

const PATH: &str = "/api/v1/scheduler";

pub struct Scheduler {
    client: Client,
    media: Media,
    pub id: v1::FrameworkId,
    pub stream_id: String,
    records: Records,
}

pub fn framework(name: &str) -> v1::FrameworkInfo {
    let capability = |kind: v1::framework_info::capability::Type| v1::framework_info::Capability {
        r#type: Some(kind.into()),
    };
    v1::FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        roles: vec![name.to_owned()],
        capabilities: vec![capability(v1::framework_info::capability::Type::MultiRole)],
        ..Default::default()
    }
}

/// Wants all offers again.
pub fn revive() -> Call {
    Call {
        r#type: Some(call::Type::Revive.into()),
        ..Default::default()
    }
}

/// A command task.
pub fn task(id: &str, agent: &v1::AgentId, cpus: f64, mem: f64) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.to_owned(),
        task_id: v1::TaskId {
            value: id.to_owned(),
        },
        agent_id: agent.clone(),
        resources: vec![scalar("cpus", cpus), scalar("mem", mem)],
        command: Some(v1::CommandInfo {
            value: Some("true".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn encode(call: &Call, media: Media) -> Vec<u8> {
    match media {
        Media::Json => json::from_message(call),
        Media::Protobuf => call.encode_to_vec(),
    }
}

impl Scheduler {
    /// Subscribes, and sees SUBSCRIBED and the first HEARTBEAT.
    pub async fn subscribe(client: &Client, info: v1::FrameworkInfo, media: Media) -> Scheduler {
        let call = Call {
            framework_id: info.id.clone(),
            r#type: Some(call::Type::Subscribe.into()),
            subscribe: Some(call::Subscribe {
                framework_info: info,
                ..Default::default()
            }),
            ..Default::default()
        };
        let records = client
            .stream(PATH, media, &[], encode(&call, media))
            .await
            .expect("a stream");
        let stream_id = records
            .header("Mesos-Stream-Id")
            .expect("a stream id")
            .to_owned();
        let id = v1::FrameworkId::default();
        let mut scheduler = Scheduler {
            client: client.clone(),
            media,
            id,
            stream_id,
            records,
        };
        let subscribed = scheduler
            .event()
            .await
            .expect("an event")
            .subscribed
            .expect("SUBSCRIBED");
        assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
        scheduler.id = subscribed.framework_id;
        let second = scheduler.event().await.expect("an event");
        assert_eq!(second.r#type, Some(event::Type::Heartbeat.into()));
        scheduler
    }

    /// What a SUBSCRIBE is answered with first.
    pub async fn first_event(client: &Client, info: v1::FrameworkInfo) -> Event {
        let call = Call {
            r#type: Some(call::Type::Subscribe.into()),
            subscribe: Some(call::Subscribe {
                framework_info: info,
                ..Default::default()
            }),
            ..Default::default()
        };
        let media = Media::Json;
        let mut records = client
            .stream(PATH, media, &[], encode(&call, media))
            .await
            .expect("a stream");
        let record = records.next().await.expect("a record").expect("an event");
        json::to_message(&record).expect("an event")
    }

    /// Asks about tasks that nobody knows: so many updates follow.
    pub async fn reconcile(&self, agent: &v1::AgentId, tasks: usize) {
        let task = |n: usize| call::reconcile::Task {
            task_id: v1::TaskId {
                value: format!("unknown-{n}"),
            },
            agent_id: Some(agent.clone()),
        };
        let reconcile = call::Reconcile {
            tasks: (0..tasks).map(task).collect(),
        };
        // Refused once the stream is cut off.
        self.call(Call {
            r#type: Some(call::Type::Reconcile.into()),
            reconcile: Some(reconcile),
            ..Default::default()
        })
        .await;
    }

    /// The next event; none at the end of the stream.
    pub async fn event(&mut self) -> Option<Event> {
        let record = tokio::time::timeout(PATIENCE, self.records.next())
            .await
            .expect("timed out: an event");
        let record = record.expect("a record")?;
        Some(match self.media {
            Media::Json => json::to_message(&record).expect("an event"),
            Media::Protobuf => Event::decode(record).expect("an event"),
        })
    }

    /// Waits for an event that `wanted` takes.
    pub async fn wait<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            let event = self.event().await.expect("the stream is open");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Waits for offers.
    pub async fn offers(&mut self) -> Vec<v1::Offer> {
        self.wait(|event| event.offers.map(|offers| offers.offers))
            .await
    }

    /// Waits for a status update.
    pub async fn status(&mut self) -> v1::TaskStatus {
        self.wait(|event| event.update.map(|update| update.status))
            .await
    }

    /// POSTs a call of this framework.
    pub async fn call(&self, call: Call) -> Reply {
        let call = Call {
            framework_id: Some(self.id.clone()),
            ..call
        };
        let kind = self.media.content_type();
        let headers = [
            ("Content-Type", kind),
            ("Accept", kind),
            ("Mesos-Stream-Id", &self.stream_id),
        ];
        let body = encode(&call, self.media).into();
        self.client
            .request(tepui_http::Method::POST, PATH, &headers, body)
            .await
            .expect("an answer")
    }

    async fn accepted(&self, call: Call) {
        let reply = self.call(call).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::ACCEPTED, "")
        );
    }

    pub async fn launch(&self, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>) {
        let operation = offer::Operation {
            r#type: Some(offer::operation::Type::Launch.into()),
            launch: Some(offer::operation::Launch { task_infos: tasks }),
            ..Default::default()
        };
        let accept = call::Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![operation],
            filters: Some(v1::Filters {
                refuse_seconds: Some(0.0),
            }),
        };
        self.accepted(Call {
            r#type: Some(call::Type::Accept.into()),
            accept: Some(accept),
            ..Default::default()
        })
        .await;
    }

    pub async fn decline(&self, offers: Vec<v1::OfferId>, seconds: f64) {
        let filters = Some(v1::Filters {
            refuse_seconds: Some(seconds),
        });
        let decline = call::Decline {
            offer_ids: offers,
            filters,
        };
        self.accepted(Call {
            r#type: Some(call::Type::Decline.into()),
            decline: Some(decline),
            ..Default::default()
        })
        .await;
    }

    pub async fn acknowledge(&self, status: &v1::TaskStatus) {
        let acknowledge = call::Acknowledge {
            agent_id: status.agent_id.clone().expect("an agent"),
            task_id: status.task_id.clone(),
            uuid: status.uuid.clone().expect("an uuid"),
        };
        let call = Call {
            r#type: Some(call::Type::Acknowledge.into()),
            acknowledge: Some(acknowledge),
            ..Default::default()
        };
        self.accepted(call).await;
    }

    pub async fn teardown(&self) {
        self.accepted(Call {
            r#type: Some(call::Type::Teardown.into()),
            ..Default::default()
        })
        .await;
    }
}
