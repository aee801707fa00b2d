//! Streams of containers: output as it comes, input as it is typed, and sessions, which are commands in containers that
//! live as long as somebody reads their output.
//!
//! Output is in files of the sandbox in any case, so attaching to it is reading them: no process stands between a
//! command and its output, and who reads slowly holds nobody up.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use tepui_containerizer::Sandbox;
use tepui_http::authorize::Object;
use tepui_http::media::RECORDIO;
use tepui_http::{Media, Request, RequestStream, Response, StatusCode, StreamSender, Subject};
use tepui_model::authorization::Action;
use tepui_model::id::ContainerId;
use tepui_proto::recordio::{self, Decoder, RecordError};
use tepui_proto::v1::agent::call::attach_container_input;
use tepui_proto::v1::agent::process_io::{self, control, data};
use tepui_proto::v1::agent::{Call, ProcessIo, call};
use tepui_proto::{Message as _, decode, json, v1};

use super::containers::{executor_of, not_launched, permit, runs_something, unknown};
use super::forms::{self, Form};
use super::{Endpoints, v1_api, validate};
use crate::containers::Containers;
use crate::environment::plain;
use crate::launching::{secrets, to_run};

/// Longest record of input.
const MAX_RECORD: usize = 4 << 20;
/// Read at once of a file.
const PIECE: usize = 64 << 10;
/// A client that is so far behind is waited for.
const AHEAD: usize = 1 << 20;
/// How often the end of a file is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the end of a session can be asked for.
const KEPT: Duration = Duration::from_secs(60);

/// ATTACH_CONTAINER_OUTPUT: what a container says from now on.
pub(super) async fn output(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    form: Form,
    call: &Call,
) -> Result<Response, Response> {
    let attach = call.attach_container_output.clone().unwrap_or_default();
    let id = ContainerId::from(&attach.container_id);
    let (action, standalone) = (
        Action::AttachContainerOutput,
        Action::WaitStandaloneContainer,
    );
    permit(endpoints, subject, &id, action, standalone).await?;
    let runs = endpoints.containers.list();
    let sandbox = endpoints
        .containers
        .sandbox(&id)
        .map_err(|_| unknown(&id))?;
    if !runs.iter().any(|one| one.id == id && !one.over) {
        return Err(unknown(&id));
    }
    let mut files = Files::of(sandbox);
    files.skip();
    Ok(follow(endpoints, form, id, files, false))
}

/// LAUNCH_NESTED_CONTAINER_SESSION: a command in a container, and all that it says.
pub(super) async fn session(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    form: Form,
    call: &Call,
) -> Result<Response, Response> {
    let launch = call
        .launch_nested_container_session
        .clone()
        .unwrap_or_default();
    let id = ContainerId::from(&launch.container_id);
    let command = launch.command.unwrap_or_default();
    may_launch(endpoints, subject, &id, &command).await?;
    runs_something(&command, launch.container.as_ref())?;
    let parent = id.parent.as_deref().expect("nested");
    let config = endpoints
        .containers
        .inside(parent, &id.value, to_run(&command));
    let mut config = config
        .map_err(|_| Response::bad_request(format!("Parent container {parent} does not exist")))?;
    config.user = command.user.clone().or(config.user);
    config.environment.extend(plain(&command));
    config.secrets.extend(secrets(&command));
    config.container = launch.container;
    config.stdin = true;
    match endpoints.containers.launch(config).await {
        Ok(_) => {}
        Err(tepui_containerizer::LaunchError::Exists(_)) => return Ok(Response::accepted()),
        Err(error) => return Err(not_launched(endpoints, &id, &error)),
    }
    let sandbox = endpoints.containers.sandbox(&id);
    let files = Files::of(sandbox.map_err(|_| unknown(&id))?);
    Ok(follow(endpoints, form, id, files, true))
}

async fn may_launch(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    id: &ContainerId,
    command: &v1::CommandInfo,
) -> Result<(), Response> {
    let snapshot = endpoints.snapshot().await?;
    let Some((framework, executor)) = executor_of(&snapshot, id) else {
        return endpoints
            .require(subject, Action::LaunchStandaloneContainer)
            .await;
    };
    let object = Object {
        value: command.user.clone(),
        executor_info: executor.info.encode_to_vec().into(),
        framework_info: framework.info.encode_to_vec().into(),
        command_info: command.encode_to_vec().into(),
        ..Object::default()
    };
    let session = Action::LaunchNestedContainerSession;
    endpoints.require_for(subject, session, &object).await?;
    let (action, standalone) = (
        Action::AttachContainerOutput,
        Action::WaitStandaloneContainer,
    );
    permit(endpoints, subject, id, action, standalone).await
}

/// ATTACH_CONTAINER_INPUT: the request's body is records, the first of which names the container.
pub(super) async fn input(
    endpoints: &Endpoints,
    mut request: Request,
    media: Media,
    answer: Form,
) -> Result<Response, Response> {
    let stream = request.take_stream();
    let mut records = Records {
        stream: stream.ok_or_else(|| Response::bad_request("Expecting a body"))?,
        decoder: Decoder::new(MAX_RECORD),
        media,
    };
    let first = records.next().await?.ok_or_else(cut_off)?;
    validate::check(&first)?;
    if first.r#type() != call::Type::AttachContainerInput {
        let text = format!(
            "Streaming 'Content-Type' {RECORDIO} is not supported for {} call",
            first.r#type().as_str_name()
        );
        return Err(Response::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    v1_api::whole(first.r#type(), answer)?;
    let named = first.attach_container_input.unwrap_or_default();
    if named.r#type() != attach_container_input::Type::ContainerId {
        let text = "Expecting 'attach_container_input.type' to be CONTAINER_ID";
        return Err(Response::bad_request(text));
    }
    let id = ContainerId::from(&named.container_id.unwrap_or_default());
    let (action, standalone) = (
        Action::AttachContainerInput,
        Action::WaitStandaloneContainer,
    );
    permit(endpoints, request.subject.as_ref(), &id, action, standalone).await?;
    if !endpoints.containers.list().iter().any(|one| one.id == id) {
        return Err(unknown(&id));
    }
    let ended = {
        let (containers, id) = (endpoints.containers.clone(), id.clone());
        async move { drop(containers.wait(&id).await) }
    };
    tokio::pin!(ended);
    loop {
        let record = tokio::select! {
            record = records.next() => record?,
            () = &mut ended => None,
        };
        let Some(record) = record else {
            return Ok(Response::empty(StatusCode::OK));
        };
        let input = record.attach_container_input;
        let io = input.and_then(|input| input.process_io);
        let io = io.ok_or_else(|| {
            Response::bad_request("Expecting 'attach_container_input.process_io' to be present")
        })?;
        take(&*endpoints.containers, &id, io).await?;
    }
}

/// Hands one record of input on.
async fn take(
    containers: &dyn Containers,
    id: &ContainerId,
    io: ProcessIo,
) -> Result<(), Response> {
    let failed = |error: tepui_containerizer::Error| Response::bad_request(error.to_string());
    let kind = io.r#type();
    let data = io.data.unwrap_or_default();
    let control = io.control.unwrap_or_default();
    match kind {
        process_io::Type::Data if data.r#type() == data::Type::Stdin => {
            let bytes = data.data.unwrap_or_default().to_vec();
            containers.input(id, bytes).await.map_err(failed)
        }
        process_io::Type::Data => Err(Response::bad_request(
            "Expecting 'process_io.data.type' to be 'STDIN'",
        )),
        process_io::Type::Control => {
            let size = control.tty_info.and_then(|terminal| terminal.window_size);
            match size.filter(|_| control.r#type() == control::Type::TtyInfo) {
                Some(size) => {
                    let side = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
                    let resized = containers.resize(id, side(size.rows), side(size.columns));
                    resized.map_err(failed)
                }
                // A sign of life.
                None => Ok(()),
            }
        }
        process_io::Type::Unknown => Err(Response::bad_request("Expecting 'process_io.type'")),
    }
}

/// The text is Mesos'.
fn cut_off() -> Response {
    Response::bad_request("Received EOF while reading request body")
}

/// The records of a request.
struct Records {
    stream: RequestStream,
    decoder: Decoder,
    media: Media,
}

impl Records {
    async fn next(&mut self) -> Result<Option<Call>, Response> {
        loop {
            let record = self.decoder.next_record();
            let record = record.map_err(|error| match error {
                // Mesos looks for the end of a length as long as there is a body.
                RecordError::EndlessLength => cut_off(),
                error => Response::bad_request(error.to_string()),
            })?;
            if let Some(record) = record {
                return self.read(&record).map(Some);
            }
            let piece = self.stream.next().await;
            match piece.map_err(|error| Response::bad_request(error.to_string()))? {
                Some(piece) => self.decoder.push(&piece),
                None if self.decoder.is_between_records() => return Ok(None),
                None => return Err(cut_off()),
            }
        }
    }

    fn read(&self, record: &[u8]) -> Result<Call, Response> {
        let read = match self.media {
            Media::Json => json::to_message(record).map_err(|error| error.to_string()),
            _ => decode(record).map_err(|error| error.to_string()),
        };
        read.map_err(|error| Response::bad_request(format!("Failed to read a record: {error}")))
    }
}

/// Answers with the output of a container. A session ends with its reader.
fn follow(
    endpoints: &Endpoints,
    form: Form,
    id: ContainerId,
    files: Files,
    is_session: bool,
) -> Response {
    let media = form.media();
    let (sender, body) = tepui_http::stream::stream();
    let follower = Follower {
        containers: endpoints.containers.clone(),
        id,
        files,
        sender,
        media,
        heartbeat: endpoints.settings.http_heartbeat_interval,
    };
    tokio::spawn(async move {
        let (containers, id) = (follower.containers.clone(), follower.id.clone());
        follower.run().await;
        if is_session {
            end_session(&*containers, &id).await;
        }
    });
    match form {
        Form::Messages(media) => Response::stream(media.content_type(), body),
        Form::Records(media) => Response::stream(RECORDIO, body)
            .header(forms::MESSAGE_CONTENT_TYPE, media.content_type()),
    }
}

/// A session is over with its reader. Its end can be asked for, for a while.
async fn end_session(containers: &dyn Containers, id: &ContainerId) {
    if containers.destroy(id).await.is_err() {
        return;
    }
    tokio::time::sleep(KEPT).await;
    let Ok(sandbox) = containers.sandbox(id) else {
        return;
    };
    // Gone with the container around it, or removed by somebody else.
    let _ = containers.forget(id);
    let _ = tokio::task::spawn_blocking(move || sandbox.remove()).await;
}

/// The output of a container.
#[derive(Clone)]
struct Files {
    sandbox: Sandbox,
    offsets: [u64; 2],
}

const OUTPUT: [(data::Type, &str); 2] = [
    (data::Type::Stdout, "stdout"),
    (data::Type::Stderr, "stderr"),
];

impl Files {
    fn of(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            offsets: [0; 2],
        }
    }

    /// Begins at the ends of the files.
    fn skip(&mut self) {
        for ((_, name), offset) in OUTPUT.iter().zip(&mut self.offsets) {
            let length = self.sandbox.file(name).and_then(|file| file.metadata());
            *offset = length.map_or(0, |metadata| metadata.len());
        }
    }

    /// The next piece of each, those of which there is none left out.
    fn read(&mut self) -> Vec<(data::Type, Vec<u8>)> {
        let mut pieces = Vec::new();
        for ((kind, name), offset) in OUTPUT.iter().zip(&mut self.offsets) {
            let Ok(file) = self.sandbox.file(name) else {
                continue;
            };
            // One that was cut, or begun anew, is read from its start.
            if file
                .metadata()
                .is_ok_and(|metadata| metadata.len() < *offset)
            {
                *offset = 0;
            }
            let mut piece = vec![0; PIECE];
            if let Ok(length @ 1..) = file.read_at(&mut piece, *offset) {
                piece.truncate(length);
                *offset += length as u64;
                pieces.push((*kind, piece));
            }
        }
        pieces
    }
}

/// Copies the output of a container to a client.
struct Follower {
    containers: Arc<dyn Containers>,
    id: ContainerId,
    files: Files,
    sender: StreamSender,
    media: Media,
    /// Time between signs of life.
    heartbeat: Duration,
}

impl Follower {
    /// Until the container is over and all is sent, or nobody reads.
    async fn run(mut self) {
        let gone = self.sender.gone();
        let (containers, id) = (self.containers.clone(), self.id.clone());
        let ended = async move { drop(containers.wait(&id).await) };
        tokio::pin!(ended);
        let mut over = false;
        // None at all would be an interval that tokio does not take.
        let mut beat = tokio::time::interval(self.heartbeat.max(LOOK));
        // The first tick comes at once.
        beat.tick().await;
        loop {
            let mut files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || (files.read(), files)).await;
            let Ok((pieces, files)) = read else { return };
            self.files = files;
            let is_idle = pieces.is_empty();
            for (kind, piece) in pieces {
                if !self.send(&said(kind, piece)) {
                    return;
                }
            }
            if is_idle && over {
                return;
            }
            while self.sender.backlog() > AHEAD && !gone.is_cancelled() {
                tokio::time::sleep(LOOK).await;
            }
            if !is_idle {
                continue;
            }
            tokio::select! {
                () = gone.cancelled() => return,
                () = &mut ended, if !over => over = true,
                _ = beat.tick() => {
                    if !self.send(&sign_of_life(self.heartbeat)) {
                        return;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// False when nobody reads any more.
    fn send(&self, io: &ProcessIo) -> bool {
        let record = match self.media {
            Media::Json => json::from_message(io),
            _ => io.encode_to_vec(),
        };
        self.sender.send(recordio::encode(&record)).is_ok()
    }
}

fn said(kind: data::Type, bytes: Vec<u8>) -> ProcessIo {
    ProcessIo {
        r#type: Some(process_io::Type::Data.into()),
        data: Some(process_io::Data {
            r#type: Some(kind.into()),
            data: Some(bytes.into()),
        }),
        ..ProcessIo::default()
    }
}

fn sign_of_life(heartbeat: Duration) -> ProcessIo {
    let nanoseconds = i64::try_from(heartbeat.as_nanos()).unwrap_or(i64::MAX);
    ProcessIo {
        r#type: Some(process_io::Type::Control.into()),
        control: Some(process_io::Control {
            r#type: Some(control::Type::Heartbeat.into()),
            heartbeat: Some(control::Heartbeat {
                interval: Some(v1::DurationInfo { nanoseconds }),
            }),
            ..process_io::Control::default()
        }),
        ..ProcessIo::default()
    }
}
