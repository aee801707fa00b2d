//! `tepui exec` and `tepui attach`: a command in the container of a task, and what the task itself says.
//!
//! Both are streams of an agent: output is the answer to one request, input the body of another one.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tepui_model::id::ContainerId;
use tepui_proto::recordio::{self, Decoder};
use tepui_proto::v1::agent::process_io::{self, control, data};
use tepui_proto::v1::agent::{self, Call, ProcessIo, call};
use tepui_proto::v1::{self, tty_info::WindowSize};
use tepui_proto::{Message as _, decode};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Agent, MasterArg};
use crate::terminal::{self, Raw};

const PROTOBUF: &str = "application/x-protobuf";
const RECORDIO: &str = "application/recordio";
/// Longest record that is taken.
const MAX_RECORD: usize = 64 << 20;
/// Read at once of standard input.
const PIECE: usize = 32 << 10;

/// Run a command in the container of a task
#[derive(clap::Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Send standard input to the command
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,
    /// Id of the task
    task: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Attach to a running task: to its output from now on, and to its terminal if it has one
#[derive(clap::Args)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Do not send standard input to the task's terminal
    #[arg(long)]
    no_stdin: bool,
    /// Id of the task
    task: String,
}

/// Runs a command in a task's container; ends as the command does.
pub(crate) fn exec(args: ExecArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let (agent, task) = find(&args.master, &args.task).await?;
        let id = container_of(&task)?.child(uuid::Uuid::new_v4().to_string());
        let terminal = args.tty.then(terminal::size);
        let container = terminal.map(|window_size| v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            tty_info: Some(v1::TtyInfo { window_size }),
            ..v1::ContainerInfo::default()
        });
        let call = Call {
            r#type: Some(call::Type::LaunchNestedContainerSession.into()),
            launch_nested_container_session: Some(call::LaunchNestedContainerSession {
                container_id: (&id).into(),
                command: Some(v1::CommandInfo {
                    shell: Some(false),
                    value: args.command.first().cloned(),
                    arguments: args.command.clone(),
                    ..v1::CommandInfo::default()
                }),
                container,
            }),
            ..Call::default()
        };
        let output = open(&agent, &call).await?;
        let input = Input {
            wanted: args.interactive,
            raw: args.tty && args.interactive,
            window: args.tty,
        };
        run(&agent, &id, output, input).await?;
        Ok(exit_code(status_of(&agent, &id).await?))
    })
}

/// Follows a task, and types into its terminal.
pub(crate) fn attach(args: AttachArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let (agent, task) = find(&args.master, &args.task).await?;
        let id = container_of(&task)?;
        let info = task.container.as_ref();
        let terminal = info.is_some_and(|info| info.tty_info.is_some());
        let call = Call {
            r#type: Some(call::Type::AttachContainerOutput.into()),
            attach_container_output: Some(call::AttachContainerOutput {
                container_id: (&id).into(),
            }),
            ..Call::default()
        };
        let output = open(&agent, &call).await?;
        let typed = terminal && !args.no_stdin;
        let input = Input {
            wanted: typed,
            raw: typed,
            window: typed,
        };
        run(&agent, &id, output, input).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn find(master: &MasterArg, task: &str) -> Result<(Agent, v1::Task)> {
    let master = master.client()?;
    let task = master.task(task).await?;
    if task.state().is_terminal() {
        bail!("task {:?} has ended", task.task_id.value);
    }
    Ok((master.agent(&task.agent_id).await?, task))
}

/// The container that the newest status of a task names.
fn container_of(task: &v1::Task) -> Result<ContainerId> {
    let statuses = task.statuses.iter().rev();
    let named =
        statuses.filter_map(|status| status.container_status.as_ref()?.container_id.as_ref());
    let mut named = named.map(ContainerId::from);
    named
        .next()
        .ok_or_else(|| anyhow!("task {:?} has no container yet", task.task_id.value))
}

/// What is sent of this end.
struct Input {
    wanted: bool,
    /// Keys go as they are typed.
    raw: bool,
    /// Changes of the window are sent.
    window: bool,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// POSTs to an agent on a connection of its own.
async fn post(
    agent: &Agent,
    headers: &[(&str, &str)],
    body: Body,
) -> Result<hyper::Response<Incoming>> {
    let authority = agent.authority();
    let socket = TcpStream::connect(authority)
        .await
        .with_context(|| format!("no connection to the agent {authority}"))?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut request = hyper::Request::post("/api/v1").header("Host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(body)?).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let text = answer.into_body().collect().await?.to_bytes();
    bail!(
        "the agent refuses: {status}: {}",
        String::from_utf8_lossy(&text)
    )
}

/// A call that is answered with a stream.
async fn open(agent: &Agent, call: &Call) -> Result<Incoming> {
    let headers = [
        ("Content-Type", PROTOBUF),
        ("Accept", RECORDIO),
        ("Message-Accept", PROTOBUF),
    ];
    let body = Full::new(Bytes::from(call.encode_to_vec())).boxed_unsync();
    Ok(post(agent, &headers, body).await?.into_body())
}

/// Copies both ways until the output ends, or somebody ends this process. The terminal is left as it was found.
async fn run(agent: &Agent, id: &ContainerId, output: Incoming, input: Input) -> Result<()> {
    let raw = match input.raw && std::io::stdin().is_terminal() {
        true => Some(Raw::enter()?),
        false => None,
    };
    let mut term = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let typed = input.wanted || input.window;
    let sending = async {
        if typed {
            send(agent, id, &input).await?;
        }
        // The end of input is not the end of output.
        std::future::pending::<Result<()>>().await
    };
    let result = tokio::select! {
        ended = receive(output) => ended,
        failed = sending => failed,
        _ = term.recv() => Err(anyhow!("ended by SIGTERM")),
        _ = hangup.recv() => Err(anyhow!("ended by SIGHUP")),
    };
    drop(raw);
    result
}

/// Prints output until it ends.
async fn receive(mut output: Incoming) -> Result<()> {
    let mut decoder = Decoder::new(MAX_RECORD);
    while let Some(frame) = output.frame().await {
        let frame = frame.context("the stream of the agent broke off")?;
        if let Some(piece) = frame.data_ref() {
            decoder.push(piece);
        }
        while let Some(record) = decoder.next_record()? {
            let io: ProcessIo = decode(&record)?;
            let Some(data) = io.data else { continue };
            let bytes = data.data.as_deref().unwrap_or_default();
            // `tepui exec T cmd | head` is no error.
            let written = match data.r#type() {
                data::Type::Stderr => std::io::stderr().write_all(bytes),
                _ => std::io::stdout()
                    .write_all(bytes)
                    .and_then(|()| std::io::stdout().flush()),
            };
            if written.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Sends what is typed, and changes of the window, for as long as anybody takes it.
async fn send(agent: &Agent, id: &ContainerId, input: &Input) -> Result<()> {
    let (mut records, body) = mpsc::channel::<Bytes>(4);
    let body = StreamBody::new(body.map(|piece| Ok(Frame::data(piece)))).boxed_unsync();
    let headers = [
        ("Content-Type", RECORDIO),
        ("Message-Content-Type", PROTOBUF),
    ];
    let first = call::AttachContainerInput {
        r#type: Some(call::attach_container_input::Type::ContainerId.into()),
        container_id: Some(id.into()),
        process_io: None,
    };
    let asked = post(agent, &headers, body);
    let typing = async move {
        records.send(record(first)).await?;
        if input.window
            && let Some(size) = terminal::size()
        {
            records.send(record(io(resized(size)))).await?;
        }
        let mut windows = signal(SignalKind::window_change())?;
        let mut keys = keyboard();
        let mut open = input.wanted;
        loop {
            tokio::select! {
                piece = keys.recv(), if open => {
                    let piece = piece.unwrap_or_default();
                    open = !piece.is_empty();
                    records.send(record(io(typed(piece)))).await?;
                }
                _ = windows.recv(), if input.window => {
                    if let Some(size) = terminal::size() {
                        records.send(record(io(resized(size)))).await?;
                    }
                }
                else => return anyhow::Ok(()),
            }
        }
    };
    tokio::pin!(asked);
    tokio::select! {
        answered = &mut asked => return answered.map(drop),
        stopped = typing => match stopped {
            // The agent takes no more: its answer says why, or the output's end does.
            Err(error) if error.is::<mpsc::SendError>() => return Ok(()),
            other => other?,
        },
    }
    // All is said, and has yet to arrive.
    asked.await.map(drop)
}

/// Standard input, read on a thread of its own, which a read that does not end keeps from nothing. Empty is its end.
fn keyboard() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIECE];
        while let Ok(length) = stdin.read(&mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() || length == 0 {
                return;
            }
        }
    });
    receiver
}

fn record(input: call::AttachContainerInput) -> Bytes {
    let call = Call {
        r#type: Some(call::Type::AttachContainerInput.into()),
        attach_container_input: Some(input),
        ..Call::default()
    };
    recordio::encode(&call.encode_to_vec())
}

fn io(io: ProcessIo) -> call::AttachContainerInput {
    call::AttachContainerInput {
        r#type: Some(call::attach_container_input::Type::ProcessIo.into()),
        container_id: None,
        process_io: Some(io),
    }
}

fn typed(bytes: Vec<u8>) -> ProcessIo {
    ProcessIo {
        r#type: Some(process_io::Type::Data.into()),
        data: Some(process_io::Data {
            r#type: Some(data::Type::Stdin.into()),
            data: Some(bytes.into()),
        }),
        ..ProcessIo::default()
    }
}

fn resized(window_size: WindowSize) -> ProcessIo {
    ProcessIo {
        r#type: Some(process_io::Type::Control.into()),
        control: Some(process_io::Control {
            r#type: Some(control::Type::TtyInfo.into()),
            tty_info: Some(v1::TtyInfo {
                window_size: Some(window_size),
            }),
            ..process_io::Control::default()
        }),
        ..ProcessIo::default()
    }
}

/// The raw wait status of a command that has ended.
async fn status_of(agent: &Agent, id: &ContainerId) -> Result<Option<i32>> {
    let call = Call {
        r#type: Some(call::Type::WaitContainer.into()),
        wait_container: Some(call::WaitContainer {
            container_id: id.into(),
        }),
        ..Call::default()
    };
    let answer: agent::Response = agent.call(&call).await.context("WAIT_CONTAINER")?;
    Ok(answer.wait_container.and_then(|wait| wait.exit_status))
}

/// As shells have it: 128 and the number of the signal.
fn exit_code(status: Option<i32>) -> ExitCode {
    let Some(status) = status else {
        return ExitCode::FAILURE;
    };
    let code = match status & 0x7f {
        0 => status >> 8,
        signal => 128 + signal,
    };
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
