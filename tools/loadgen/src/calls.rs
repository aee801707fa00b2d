//! Calls sent one behind the other on one connection, without waiting for each answer: what Mesos' own scheduler
//! library does.

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use tepui_http::SchedulerClient;
use tepui_proto::v1::{self, scheduler};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Calls that wait for their answers at most.
const WINDOW: u64 = 1024;

/// A framework's calls.
pub(crate) struct Calls {
    framework_id: v1::FrameworkId,
    /// All of a request's head but its length.
    head: Vec<u8>,
    /// Calls that are not sent yet.
    waiting: Vec<u8>,
    socket: OwnedWriteHalf,
    made: u64,
    answered: watch::Receiver<u64>,
    answers: JoinHandle<Result<()>>,
}

impl Calls {
    /// Opens a connection for the calls of a subscribed framework.
    pub(crate) async fn open(framework: &SchedulerClient) -> Result<Self> {
        let authority = framework.authority();
        let socket = TcpStream::connect(authority).await?;
        socket.set_nodelay(true)?;
        let (reader, socket) = socket.into_split();
        let (seen, answered) = watch::channel(0);
        let media = "application/x-protobuf";
        let stream_id = framework.stream_id();
        let head = format!(
            "POST /api/v1/scheduler HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {media}\r\nAccept: {media}\r\n\
             Mesos-Stream-Id: {stream_id}\r\nContent-Length: "
        );
        Ok(Self {
            framework_id: framework.id().clone(),
            head: head.into_bytes(),
            waiting: Vec::new(),
            socket,
            made: 0,
            answered,
            answers: tokio::spawn(read_answers(reader, seen)),
        })
    }

    /// Adds a call, whose type and framework are filled in, to those that [`Calls::send`] sends.
    pub(crate) fn add(&mut self, kind: scheduler::call::Type, call: scheduler::Call) {
        let call = scheduler::Call {
            framework_id: Some(self.framework_id.clone()),
            r#type: Some(kind.into()),
            ..call
        };
        let length = call.encoded_len();
        self.waiting.extend_from_slice(&self.head);
        self.waiting
            .extend_from_slice(format!("{length}\r\n\r\n").as_bytes());
        call.encode(&mut self.waiting).expect("the buffer grows");
        self.made += 1;
    }

    /// LAUNCH on all of an offer, of which nothing is wanted again.
    pub(crate) fn launch(&mut self, offer: v1::OfferId, task_infos: Vec<v1::TaskInfo>) {
        let operation = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch.into()),
            launch: Some(v1::offer::operation::Launch { task_infos }),
            ..Default::default()
        };
        let accept = scheduler::call::Accept {
            offer_ids: vec![offer],
            operations: vec![operation],
            filters: Some(v1::Filters {
                refuse_seconds: Some(1e6),
            }),
        };
        let call = scheduler::Call {
            accept: Some(accept),
            ..Default::default()
        };
        self.add(scheduler::call::Type::Accept, call);
    }

    /// ACKNOWLEDGE of an update, if it asks for one.
    pub(crate) fn acknowledge(&mut self, status: v1::TaskStatus) {
        let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id) else {
            return;
        };
        let acknowledge = scheduler::call::Acknowledge {
            agent_id,
            task_id: status.task_id,
            uuid,
        };
        let call = scheduler::Call {
            acknowledge: Some(acknowledge),
            ..Default::default()
        };
        self.add(scheduler::call::Type::Acknowledge, call);
    }

    /// DECLINE with a filter of 0 seconds.
    pub(crate) fn decline(&mut self, offers: Vec<v1::Offer>) {
        let decline = scheduler::call::Decline {
            offer_ids: offers.into_iter().map(|offer| offer.id).collect(),
            filters: Some(v1::Filters {
                refuse_seconds: Some(0.0),
            }),
        };
        let call = scheduler::Call {
            decline: Some(decline),
            ..Default::default()
        };
        self.add(scheduler::call::Type::Decline, call);
    }

    /// Sends what was added, and waits while too many calls wait for their answers.
    pub(crate) async fn send(&mut self) -> Result<()> {
        self.socket.write_all(&self.waiting).await?;
        self.waiting.clear();
        let made = self.made;
        let few = |answered: &u64| made - answered <= WINDOW;
        if self.answered.wait_for(few).await.is_err() {
            (&mut self.answers).await??;
            bail!("the master closed the connection of calls");
        }
        Ok(())
    }
}

/// Counts the answers, all of which have to be 202 without a body.
async fn read_answers(mut socket: OwnedReadHalf, seen: watch::Sender<u64>) -> Result<()> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::with_capacity(64 << 10);
    loop {
        let mut begin = 0;
        let mut answers = 0;
        while let Some(length) = bytes[begin..].windows(END.len()).position(|end| end == END) {
            let head = &bytes[begin..begin + length];
            ensure!(
                head.starts_with(b"HTTP/1.1 202 "),
                "a call was refused: {}",
                String::from_utf8_lossy(&bytes[begin..])
            );
            begin += length + END.len();
            answers += 1;
        }
        bytes.drain(..begin);
        seen.send_modify(|seen| *seen += answers);
        if socket.read_buf(&mut bytes).await.context("answers")? == 0 {
            return Ok(());
        }
    }
}
