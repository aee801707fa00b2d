//! A running master: its sockets, its election, and, while it leads, its owner.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tepui_http::shared::{ExporterError, Metrics, Modules, Shared};
use tepui_http::{ListenError, Listener, Response, Server};
use tepui_link::{MasterEnd, MasterSettings};
use tepui_proto::Message as _;
use tepui_proto::v1::{self, MasterInfo, master_info};
use tepui_state_master::{Entry, Event, MasterState};
use tepui_view::encode::About;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authorize::Authorizer;
use crate::lanes::Lanes;
use crate::leadership::Leadership;
use crate::limits::CallLimits;
use crate::operator::OperatorApi;
use crate::outbox::{Limits, Outbox, Queues, StepDown};
use crate::owner::{self, Owner};
use crate::parts::{Allocator, Parts};
use crate::reading::{self, Reading};
use crate::scheduler::SchedulerApi;
use crate::settings::Settings;
use crate::store::{self, Store};
use crate::v0::V0;
use crate::{allocation, clock, links, metrics, routes, whitelist};

/// Batches that may wait for the registry; beyond that the leader steps down.
const STORE: usize = 64 * 1024;
/// Events of agents that may wait for the owner; beyond that links are not read.
const LINK_INBOX: usize = 4096;

/// A master could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its port is taken, or its address is not of this machine.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gave no thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// An exporter module cannot be served.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
}

/// A master that serves. Dropping it ends it, [`Master::stop`] waits for that.
pub struct Master {
    server: Server,
    site: Arc<Site>,
}

/// What the endpoints share.
pub(crate) struct Site {
    pub(crate) shared: Shared,
    pub(crate) modules: Modules,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    stepped_down: StepDown,
    leader: watch::Sender<Leader>,
    apis: OnceLock<Apis>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Who leads, as far as this master knows.
#[derive(Clone, Debug, PartialEq)]
enum Leader {
    Unknown,
    /// `host:port` of another master.
    Other(String),
    /// This one; `apis` is set as soon as the registry was read.
    Us(String),
}

/// What only a leader has.
pub(crate) struct Apis {
    pub(crate) owner: Owner,
    pub(crate) scheduler: SchedulerApi,
    pub(crate) operator: OperatorApi,
    pub(crate) v0: V0,
    pub(crate) links: Arc<MasterEnd>,
}

impl Master {
    /// Starts to listen, and to contend for leadership.
    pub async fn start(settings: Settings, parts: Parts) -> Result<Master, StartError> {
        let listener = Listener::bind(settings.server.clone()).await?;
        let id = uuid::Uuid::new_v4();
        let info = master_info(&settings, listener.local_addr(), &id.to_string());
        let Parts {
            allocator,
            authorizer,
            leadership,
            store,
            modules,
            logging,
            metrics,
            files,
        } = parts;
        let shared = Shared {
            version: settings.version.clone(),
            flags: Arc::clone(&settings.flags),
            files,
            metrics,
            logging,
            authorizer: Arc::clone(&authorizer),
        };
        let site = Arc::new(Site {
            shared,
            modules,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            stepped_down: StepDown::default(),
            leader: watch::Sender::new(Leader::Unknown),
            apis: OnceLock::new(),
            threads: Mutex::default(),
        });
        let mut state = settings.state.clone();
        state.master_id = id.to_string();
        state.master_info = info.encode_to_vec().into();
        state.seed = uuid::Uuid::new_v4().as_u64_pair().0;
        state.started = clock::wall();
        let candidate = Candidate {
            settings,
            state,
            allocator,
            authorizer,
            store,
        };
        let disabled = candidate.settings.disabled_endpoints.clone();
        let server = listener.serve(Arc::new(routes::router(&site, disabled)?));
        site.spawn(elect(Arc::clone(&site), candidate, leadership, info));
        Ok(Master { server, site })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Waits until this master cannot go on (leadership or registry lost), and says why.
    pub async fn stepped_down(&self) -> String {
        self.site.stepped_down.wait().await
    }

    /// Ends it: connections, links, threads.
    pub async fn stop(self) {
        self.server.stop().await;
        if let Some(apis) = self.site.apis.get() {
            apis.owner.stop().await;
        }
        self.site.stop.cancel();
        self.site.tasks.close();
        self.site.tasks.wait().await;
        let threads = std::mem::take(&mut *self.site.threads());
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(JoinHandle::join))
                .await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a thread of the master panicked");
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.site.stop.cancel();
    }
}

impl Site {
    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads
            .lock()
            .expect("no panic happens under this lock")
    }

    /// Runs something until it ends or the master does.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// What a leader has; where this master does not lead, the answer to that: a redirect to the
    /// leader, or 503.
    pub(crate) fn leading(&self, target: &str) -> Result<&Apis, Box<Response>> {
        match &*self.leader.borrow() {
            Leader::Unknown => Err(Box::new(Response::unavailable("No leader elected"))),
            Leader::Other(leader) => {
                Err(Box::new(Response::redirect(&format!("//{leader}{target}"))))
            }
            Leader::Us(_) => self
                .apis
                .get()
                .ok_or_else(|| Box::new(Response::unavailable("Master has not finished recovery"))),
        }
    }

    /// `host:port` of the leader.
    pub(crate) fn leader(&self) -> Option<String> {
        match &*self.leader.borrow() {
            Leader::Unknown => None,
            Leader::Other(leader) | Leader::Us(leader) => Some(leader.clone()),
        }
    }
}

/// What a master needs when it becomes the leader.
struct Candidate {
    settings: Settings,
    state: tepui_state_master::Settings,
    allocator: Box<dyn Allocator>,
    authorizer: Arc<dyn Authorizer>,
    store: Arc<dyn Store>,
}

/// Contends, follows the elections, leads when elected. A leader that is one no more steps down.
async fn elect(
    site: Arc<Site>,
    candidate: Candidate,
    leadership: Arc<dyn Leadership>,
    own: MasterInfo,
) {
    if let Err(error) = leadership.contend(own.encode_to_vec().into()).await {
        return site
            .stepped_down
            .step_down(format!("cannot contend for leadership: {error}"));
    }
    let lost = {
        let leadership = Arc::clone(&leadership);
        let stepped_down = site.stepped_down.clone();
        async move { stepped_down.step_down(format!("leadership is lost: {}", leadership.lost().await)) }
    };
    site.spawn(lost);
    let mut candidate = Some(candidate);
    let mut known: Option<Bytes> = None;
    loop {
        known = match leadership.detect(known).await {
            Ok(leader) => leader,
            Err(error) => {
                return site
                    .stepped_down
                    .step_down(format!("cannot detect the leader: {error}"));
            }
        };
        let leader = known
            .as_ref()
            .and_then(|bytes| MasterInfo::decode(bytes.clone()).ok());
        let ours = leader.as_ref().is_some_and(|leader| leader.id == own.id);
        let address = leader.as_ref().map(address);
        site.leader.send_replace(match address {
            None => Leader::Unknown,
            Some(address) if ours => Leader::Us(address),
            Some(address) => Leader::Other(address),
        });
        match (ours, candidate.take()) {
            (true, Some(candidate)) => match lead(&site, candidate).await {
                Ok(apis) => {
                    tracing::info!(master = %own.id, "elected as the leading master");
                    let _ = site.apis.set(apis);
                }
                Err(error) => return site.stepped_down.step_down(error),
            },
            (false, None) => {
                return site
                    .stepped_down
                    .step_down("another master was elected".to_owned());
            }
            (_, waiting) => candidate = waiting,
        }
    }
}

/// Reads the registry and starts everything that a leader has.
async fn lead(site: &Arc<Site>, candidate: Candidate) -> Result<Apis, String> {
    let Candidate {
        settings,
        state,
        allocator,
        authorizer,
        store,
    } = candidate;
    let timeout = settings.registry_fetch_timeout;
    let begin = Instant::now();
    let recovery = tokio::time::timeout(timeout, store.recover()).await;
    let fetch = site
        .shared
        .metrics
        .timer("registrar/state_fetch", store::WINDOW);
    fetch.record(begin.elapsed());
    let recovery = recovery
        .map_err(|_| format!("the registry was not read in {timeout:?}"))?
        .map_err(|error| format!("cannot read the registry: {error}"))?;
    let (owner, inbox) = owner::inbox();
    let call_limits = Arc::new(CallLimits::new(&settings.rate_limits));
    let lanes = Lanes::new(owner.clone(), Arc::clone(&authorizer), settings.lane_limit);
    let end = {
        let settings = MasterSettings {
            ping_interval: state.agent_ping_timeout,
            max_missed_pings: state.max_agent_ping_timeouts,
            ..MasterSettings::default()
        };
        let (sessions, events) = mpsc::channel(LINK_INBOX);
        site.spawn(links::run(events, owner.clone(), Arc::clone(&authorizer)));
        MasterEnd::new(settings, sessions)
    };
    start_threads(
        site,
        &settings,
        Threads {
            owner: &owner,
            inbox,
            lanes: &lanes,
            call_limits: &call_limits,
            state,
            allocator,
            store,
            epoch: recovery.epoch,
        },
    )
    .map_err(|error| format!("cannot start a thread: {error}"))?;
    let entries = recovery
        .entries
        .into_iter()
        .map(|(key, value)| Entry { key, value })
        .collect();
    owner
        .event(Event::Recovered {
            cluster_id: recovery.cluster_id,
            epoch: recovery.epoch,
            entries,
        })
        .await;
    // The allocator knows nothing yet: it begins with a snapshot.
    owner.event(Event::AllocatorRestarted).await;
    if let Some(path) = &settings.whitelist {
        site.spawn(whitelist::run(path.clone(), owner.clone()));
    }
    let about = Arc::new(about(&settings));
    let hits = site.shared.metrics.counter(reading::HITS);
    let reading = Reading::new(owner.clone(), Arc::clone(&authorizer), hits);
    Ok(Apis {
        scheduler: SchedulerApi {
            owner: owner.clone(),
            lanes,
            limits: call_limits,
            authorizer: Arc::clone(&authorizer),
        },
        operator: OperatorApi {
            owner: owner.clone(),
            authorizer: Arc::clone(&authorizer),
            shared: site.shared.clone(),
            reading: reading.clone(),
            stream_limit: settings.stream_limit,
        },
        v0: V0 {
            owner: owner.clone(),
            authorizer,
            reading,
            about,
        },
        links: end,
        owner,
    })
}

/// What the threads of a leader begin with.
struct Threads<'a> {
    owner: &'a Owner,
    inbox: owner::Inbox,
    lanes: &'a Arc<Lanes>,
    call_limits: &'a Arc<CallLimits>,
    state: tepui_state_master::Settings,
    allocator: Box<dyn Allocator>,
    store: Arc<dyn Store>,
    epoch: u64,
}

fn start_threads(site: &Site, settings: &Settings, threads: Threads<'_>) -> std::io::Result<()> {
    let Threads {
        owner,
        inbox,
        lanes,
        call_limits,
        state,
        allocator,
        store,
        epoch,
    } = threads;
    let metrics: &Metrics = &site.shared.metrics;
    // Holds one round and the facts since: calls of the allocator have a deadline.
    let (allocator_in, allocator_out) = crossbeam_channel::unbounded();
    let told = metrics::Told {
        owner: owner.clone(),
        started: state.started,
        per_framework: settings.per_framework_metrics,
        call_limits: Arc::clone(call_limits),
        allocator_queue: {
            let queue = allocator_out.clone();
            Arc::new(move || queue.len())
        },
    };
    metrics::register(metrics, told);
    let (store_in, store_out) = mpsc::channel(STORE);
    site.spawn(store::run(
        store,
        epoch,
        settings.registry_store_timeout,
        owner.clone(),
        metrics.clone(),
        store_out,
    ));
    let queues = Queues {
        allocator: allocator_in,
        store: store_in,
        lanes: Arc::clone(lanes),
        stepped_down: site.stepped_down.clone(),
    };
    let limits = Limits {
        stream: settings.stream_limit,
        operators: settings.max_operator_streams,
    };
    let outbox = Outbox::new(owner.clone(), queues, limits, metrics);
    site.threads().extend([
        allocation::start(allocator, owner.clone(), metrics, allocator_out)?,
        inbox.run(MasterState::new(state), outbox)?,
    ]);
    Ok(())
}

fn about(settings: &Settings) -> About {
    let version = settings.version.clone();
    About {
        version: version.version,
        git_sha: version.git_sha,
        git_branch: None,
        git_tag: version.git_tag,
        build_date: version.build_date,
        build_time: version.build_time,
        build_user: version.build_user,
        cluster: settings.cluster.clone(),
        log_dir: settings.log_dir.clone(),
        external_log_file: settings.external_log_file.clone(),
        flags: settings
            .flags
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

/// What others are told about this master.
fn master_info(settings: &Settings, bound: SocketAddr, id: &str) -> MasterInfo {
    use master_info::capability::Type;
    let advertised = settings.advertised.unwrap_or(bound);
    let port = if advertised.port() == 0 {
        bound.port()
    } else {
        advertised.port()
    };
    let ip = advertised.ip();
    // Network byte order, read as a number of the host: what Mesos has there.
    let number = match ip {
        IpAddr::V4(ip) => u32::from_le_bytes(ip.octets()),
        IpAddr::V6(_) => 0,
    };
    let capability = |kind: Option<Type>| master_info::Capability {
        r#type: kind.map(Into::into),
    };
    MasterInfo {
        id: id.to_owned(),
        ip: number,
        port: port.into(),
        pid: Some(format!("master@{}", SocketAddr::new(ip, port))),
        hostname: Some(settings.hostname.clone()),
        version: Some(settings.version.version.clone()),
        address: Some(v1::Address {
            hostname: Some(settings.hostname.clone()),
            ip: Some(ip.to_string()),
            port: port.into(),
        }),
        domain: settings.domain.clone(),
        // The last is QUOTA_V2, for which the v1 enum has no name.
        capabilities: vec![
            capability(Some(Type::AgentUpdate)),
            capability(Some(Type::AgentDraining)),
            capability(None),
        ],
    }
}

/// `host:port` of a master.
fn address(info: &MasterInfo) -> String {
    let address = info.address.as_ref();
    let host = info.hostname.clone().or_else(|| address?.hostname.clone());
    let host = host.or_else(|| address?.ip.clone()).unwrap_or_default();
    let port = address.map_or(info.port as i32, |address| address.port);
    format!("{host}:{port}")
}
