//! The way to the master: find it, ask to be taken, pass on what it says, begin again.

use std::sync::Arc;
use std::time::Duration;

use tepui_http::{Client, ClientError, Upgraded, header};
use tepui_link::{AgentEnd, AgentEvent, AgentSession, AgentSettings, AgentUpdate, CloseReason};
use tepui_proto::Wire;
use tepui_proto::link::refuse::Code;
use tepui_proto::link::{Hello, LinkFrame, Refuse};
use tepui_state_agent::Event;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::detector::Detector;
use crate::owner::{Handle, Input};
use crate::{Settings, clock, machine};

/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// Events that wait for the owner before the connection is not read any more.
const INBOX: usize = 256;

/// Keeps the agent connected until it is told to stop.
pub(crate) struct Connection {
    pub(crate) settings: Arc<Settings>,
    pub(crate) handle: Handle,
    pub(crate) stop: CancellationToken,
}

/// How long the last frames may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum Attempt {
    /// The master took the agent, and the session is over.
    Served(CloseReason),
    /// There was no session; the reason is said.
    Failed(String),
    /// The master asks to come back after this time.
    Later(Duration),
    /// The master does not want the agent any more.
    Over,
}

impl Connection {
    pub(crate) async fn run(self) {
        let boot_id = machine::boot_id();
        let factor = self.settings.registration_backoff_factor;
        // A starting agent does not wait: only those that lost the same master come back at once.
        let mut window = Duration::ZERO;
        // Sessions of a later process must have greater numbers than those of this one.
        let begin = clock::now().wall.0 / 1_000_000;
        let mut attempts = u64::try_from(begin).unwrap_or_default();
        let (sender, leader) = watch::channel(None);
        let following = tokio::spawn(follow(self.settings.master.clone(), factor, sender));
        let _following = AbortOnDropHandle::new(following);
        loop {
            let wait = window.mul_f64(fastrand::f64());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let mut led = leader.clone();
            let known = tokio::select! {
                () = self.stop.cancelled() => return,
                known = led.wait_for(Option::is_some) => known.map(|known| known.clone()),
            };
            // The one who follows ends only with this.
            let Ok(Some(master)) = known else { return };
            attempts += 1;
            match self.attempt(attempts, &boot_id, &master, led).await {
                Attempt::Served(reason) => {
                    tracing::warn!(%reason, "disconnected from the master");
                    window = factor;
                }
                Attempt::Failed(reason) => {
                    tracing::warn!(%master, %reason, "not registered");
                    window = (window * 2).clamp(factor, BACKOFF_MAX.max(factor));
                }
                Attempt::Later(wait) => window = wait.max(factor),
                Attempt::Over => return,
            }
        }
    }

    async fn attempt(
        &self,
        number: u64,
        boot_id: &str,
        master: &str,
        mut leader: watch::Receiver<Option<String>>,
    ) -> Attempt {
        let stream = tokio::select! {
            () = self.stop.cancelled() => return Attempt::Over,
            stream = connect(master) => match stream {
                Ok(stream) => stream,
                Err(error) => return Attempt::Failed(crate::chain(&error)),
            },
        };
        // An owner that stops at this moment may leave the question unanswered.
        let hello = tokio::select! {
            () = self.stop.cancelled() => None,
            hello = self.handle.ask(Input::Hello) => hello,
        };
        let Some(hello) = hello else {
            return Attempt::Over;
        };
        let (inbox, mut events) = mpsc::channel(INBOX);
        let (end, run) = AgentEnd::start(stream, AgentSettings::default(), inbox);
        let session = end.open(self.complete(hello, number, boot_id));
        let run = AbortOnDropHandle::new(tokio::spawn(run));
        let mut outcome = Attempt::Failed("no answer".to_owned());
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => {
                        let closed = matches!(event.event, AgentUpdate::Closed(_));
                        outcome = self.event(number, &session, event, outcome);
                        // The connection may well stay: a master that was silent for too long does not end it.
                        if closed {
                            break;
                        }
                    }
                    None => break,
                },
                // Who leads now wants to know what runs here.
                _ = leader.wait_for(|leader| leader.as_deref() != Some(master)) => {
                    if let Attempt::Served(_) = outcome {
                        self.handle
                            .tell(Input::Event(Event::Disconnected { session: number }));
                    }
                    break;
                }
                () = self.stop.cancelled() => break,
            }
        }
        // The connection ends when nobody can send any more, after what is queued.
        drop((end, session));
        // A master that does not read is not waited for.
        let _ = tokio::time::timeout(LAST_WORDS, run).await;
        outcome
    }

    fn complete(&self, hello: Hello, run_number: u64, boot_id: &str) -> Hello {
        Hello {
            version: tepui_http::shared::version::MESOS_VERSION.to_owned(),
            run_number,
            boot_id: boot_id.to_owned(),
            address: format!("{}:{}", self.settings.ip, self.settings.port),
            capabilities: self.settings.capabilities(),
            ..hello
        }
    }

    /// Passes an event on; what it makes of the attempt.
    fn event(
        &self,
        number: u64,
        session: &AgentSession,
        event: AgentEvent,
        outcome: Attempt,
    ) -> Attempt {
        match event.event {
            AgentUpdate::Welcome(welcome) => {
                let id = welcome.agent_id.as_ref().map_or("", |id| &id.value);
                tracing::info!(agent = id, "registered");
                self.handle.tell(Input::Session(number, session.clone()));
                self.handle.tell(Input::Event(Event::Connected {
                    session: number,
                    welcome: Wire(*welcome),
                }));
                Attempt::Served(CloseReason::Disconnected)
            }
            AgentUpdate::Refused(refuse) => self.refused(refuse),
            AgentUpdate::Command(body) => {
                let frame = LinkFrame {
                    session: event.session,
                    must_understand: false,
                    body: Some(*body),
                };
                self.handle.tell(Input::Event(Event::FromMaster {
                    session: number,
                    frame: Wire(frame),
                }));
                outcome
            }
            AgentUpdate::Closed(reason) => match outcome {
                Attempt::Served(_) => {
                    self.handle
                        .tell(Input::Event(Event::Disconnected { session: number }));
                    Attempt::Served(reason)
                }
                Attempt::Failed(_) => Attempt::Failed(reason.to_string()),
                other => other,
            },
        }
    }

    fn refused(&self, refuse: Refuse) -> Attempt {
        let reason = refuse.reason.clone();
        match refuse.code() {
            Code::Gone => {
                tracing::error!(%reason, "the master has given this agent up");
                self.handle.tell(Input::Event(Event::Gone { reason }));
                Attempt::Over
            }
            Code::Busy => Attempt::Later(Duration::from_millis(refuse.retry_ms.into())),
            // Also a denial: its authorizer may be back soon, and running tasks are worth the wait.
            code => Attempt::Failed(format!("refused ({}): {reason}", code.as_str_name())),
        }
    }
}

/// Keeps up with who leads.
async fn follow(
    detector: Arc<dyn Detector>,
    pause: Duration,
    leader: watch::Sender<Option<String>>,
) {
    let mut known: Option<String> = None;
    loop {
        match detector.detect(known.as_deref()).await {
            Ok(now) => {
                tracing::info!(
                    leader = now.as_deref().unwrap_or("nobody"),
                    "leading master"
                );
                known = now;
            }
            Err(error) => {
                tracing::error!(%error, "cannot find the leading master");
                tokio::time::sleep(pause).await;
                continue;
            }
        }
        leader.send_replace(known.clone());
    }
}

/// A byte stream to the leader, over the master that is configured or the one that it names.
async fn connect(master: &str) -> Result<Upgraded, ClientError> {
    let upgrade = async |authority: &str| {
        let client = Client::new(authority)?;
        client
            .upgrade(tepui_link::PATH, tepui_link::UPGRADE, &[])
            .await
    };
    match upgrade(master).await {
        Err(ClientError::Refused {
            status,
            text,
            headers,
        }) if status.is_redirection() => {
            let location = headers.get(header::LOCATION).and_then(|l| l.to_str().ok());
            let leader = location.and_then(authority);
            let Some(leader) = leader.map(str::to_owned) else {
                return Err(ClientError::Refused {
                    status,
                    text,
                    headers,
                });
            };
            upgrade(&leader).await
        }
        other => other,
    }
}

/// `host:port` of a `Location`, which may leave its scheme out.
fn authority(location: &str) -> Option<&str> {
    let (_, rest) = location.split_once("//")?;
    rest.split('/')
        .next()
        .filter(|authority| !authority.is_empty())
}
