//! Calls, lanes, deadlines and new instances, with modules that are linked into the test.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tepui_host::config::ModuleConfig;
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_host::kinds::authorizer::{AuthorizerClient, ObjectRef};
use tepui_host::kinds::isolator::IsolatorClient;
use tepui_host::report::State;
use tepui_host::{CallError, HostSettings, ModuleHost};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::{ContainerConfig, PrepareRequest, RecoverRequest};
use tepui_module_sdk::tokio::sync::watch;

/// What the modules of this file saw. Tests use container ids and users of their own.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn seen(text: impl Into<String>) {
    SEEN.lock().unwrap().push(text.into());
}

fn saw(part: &str) -> usize {
    SEEN.lock()
        .unwrap()
        .iter()
        .filter(|text| text.contains(part))
        .count()
}

struct Moody;

impl Module for Moody {
    type Config = NoConfig;
    const NAME: &'static str = "moody";
    const ALIASES: &'static [&'static str] = &["moody/a", "moody/b"];

    fn create(_: NoConfig, context: Context) -> Result<Self> {
        seen(format!("create {}", context.selected().join("+")));
        Ok(Moody)
    }
}

static GATE: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));
static BLOCK: AtomicBool = AtomicBool::new(true);

impl Isolator for Moody {
    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        let ids: Vec<String> = running.iter().map(|c| c.id.to_string()).collect();
        seen(format!("recover {}", ids.join("+")));
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let id = container.id.to_string();
        seen(format!("prepare {id}"));
        match id.split('-').next() {
            Some("panic") => panic!("no {id}"),
            Some("late") => {
                time::sleep(Duration::from_millis(5)).await;
                panic!("not after an await either")
            }
            Some("sleep") => time::sleep(Duration::from_secs(600)).await,
            Some("gate") => {
                // Deaf to a cancel: the work goes on until the gate opens.
                blocking(|| {
                    while BLOCK.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                })
                .await?;
            }
            Some("hang") => std::thread::sleep(Duration::from_secs(600)),
            _ => {}
        }
        seen(format!("prepared {id}"));
        Ok(LaunchPlan::none().env("ID", id))
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        seen(format!("cleanup {id}"));
        Ok(())
    }
}

struct Rules(watch::Receiver<bool>);
static CHECKS: AtomicU64 = AtomicU64::new(0);

impl Module for Rules {
    type Config = NoConfig;
    const NAME: &'static str = "rules";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Rules(GATE.subscribe()))
    }
}

impl Authorizer for Rules {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Result<Approver> {
        if subject.and_then(|s| s.principal.as_deref()) == Some("boom") {
            panic!("boom");
        }
        let open = *self.0.borrow();
        Ok(match action {
            Action::RunTask => Approver::by_value(move |user| {
                CHECKS.fetch_add(1, Ordering::SeqCst);
                open || user == "alice"
            }),
            Action::ViewFlags => Approver::Always,
            _ => Approver::Never,
        })
    }

    async fn changed(&self, seen: u64) -> Result<u64> {
        let mut open = self.0.clone();
        let _ = open.wait_for(|open| u64::from(*open) != seen).await;
        Ok(u64::from(*open.borrow()))
    }
}

/// Has no `changed`.
struct Fixed;

impl Module for Fixed {
    type Config = NoConfig;
    const NAME: &'static str = "fixed";
    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Fixed)
    }
}

impl Authorizer for Fixed {
    async fn approver(&self, _: Option<&Subject>, _: Action) -> Result<Approver> {
        Ok(Approver::Always)
    }
}

struct Jumpy;

impl Module for Jumpy {
    type Config = NoConfig;
    const NAME: &'static str = "jumpy";
    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Jumpy)
    }
}

impl Allocator for Jumpy {
    fn allocate(&mut self, _: &Cluster, round: &Round, _: &mut Proposals) {
        assert!(round.seed != 13, "unlucky");
    }
}

fn host(timeout: Duration) -> ModuleHost {
    let mut settings = HostSettings::new("agent", ModuleConfig::default());
    settings.timeout = timeout;
    let host = ModuleHost::new(settings);
    host.link(tepui_module_sdk::linked!(isolator: Moody, authorizer: Rules, authorizer: Fixed, allocator: Jumpy));
    host
}

fn isolator(host: &ModuleHost) -> IsolatorClient {
    IsolatorClient::new(host.load("isolator", "moody/a").unwrap())
}

fn prepare(id: &str) -> PrepareRequest {
    let config = ContainerConfig {
        id: id.into(),
        ..Default::default()
    };
    PrepareRequest {
        config: Some(config),
        plan: None,
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(
            Instant::now() < end,
            "{what} did not happen; seen: {:?}",
            SEEN.lock().unwrap()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_its_call_and_the_new_instance_is_told_what_runs() {
    let host = host(Duration::from_secs(10));
    let client = isolator(&host);
    client.recover(RecoverRequest::default()).await.unwrap();
    let plan = client.prepare(prepare("fine-1")).await.unwrap();
    assert_eq!(plan.environment[0].value, "fine-1");

    for id in ["panic-1", "late-1"] {
        let error = client.prepare(prepare(id)).await.unwrap_err();
        assert!(error.is_lost(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("module 'moody': PREPARE: ") && text.contains(id)
                || text.contains("not after"),
            "{text}"
        );
        let generation = client.instance().generation();
        // The same client simply goes on: it waits for the new instance and tells it what there is.
        client.cleanup(id).await.unwrap();
        assert_eq!(client.instance().generation(), generation + 1);
    }
    assert_eq!(saw("recover fine-1+panic-1"), 1);
    assert_eq!(saw("recover fine-1+late-1"), 1);
    let report = host.report().modules.remove(0);
    assert_eq!(
        (report.state, report.restarts, report.instance),
        (State::Active, 2, 3)
    );
    let method = report
        .methods
        .iter()
        .find(|m| m.method == "PREPARE")
        .unwrap();
    assert_eq!((method.calls, method.failed), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_free_when_its_call_completes_and_not_before() {
    let host = host(Duration::from_millis(150));
    let client = isolator(&host);
    client.recover(RecoverRequest::default()).await.unwrap();

    // Cancelled at its deadline: the future is dropped at its await, and the lane is free.
    let error = client.prepare(prepare("sleep-2")).await.unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Deadline {
                method: "PREPARE",
                ..
            }
        ),
        "{error}"
    );
    client.cleanup("sleep-2").await.unwrap();

    // Blocking work goes on after the cancel: cleanup waits, in vain, behind it.
    let error = client.prepare(prepare("gate-2")).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    let report = host.report().modules.remove(0);
    assert_eq!(report.state, State::Stuck);
    let stuck = report.pending.iter().find(|p| p.stuck).unwrap();
    assert_eq!(
        (stuck.method.as_str(), stuck.container.as_deref()),
        ("PREPARE", Some("gate-2"))
    );
    let error = client.cleanup("gate-2").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "module 'moody': CLEANUP of 'gate-2' waits behind PREPARE, which has not ended after"
        ),
        "{text}"
    );
    // Another container has another lane.
    client.prepare(prepare("fine-2")).await.unwrap();

    BLOCK.store(false, Ordering::SeqCst);
    until("the lane is free", || {
        host.report().modules[0].state == State::Active
    })
    .await;
    client.cleanup("gate-2").await.unwrap();
    assert_eq!(saw("cleanup gate-2"), 1);
    let method = host.report().modules[0]
        .methods
        .iter()
        .find(|m| m.method == "PREPARE")
        .cloned()
        .unwrap();
    assert_eq!((method.calls, method.overdue), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_in_start_is_named_and_the_rest_goes_on() {
    let host = host(Duration::from_millis(150));
    let client = isolator(&host);
    client.recover(RecoverRequest::default()).await.unwrap();
    let error = client.prepare(prepare("hang-3")).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    for n in 0..20 {
        client
            .prepare(prepare(&format!("fine-3-{n}")))
            .await
            .unwrap();
    }
    assert_eq!(host.report().modules[0].state, State::Stuck);
    // A caller that goes away cancels its call; the lane is not given away while it runs.
    let gone = tokio::time::timeout(
        Duration::from_millis(20),
        client.prepare(prepare("sleep-3")),
    )
    .await;
    assert!(gone.is_err());
    client.cleanup("sleep-3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_module_are_one_instance() {
    let host = host(Duration::from_secs(10));
    let instances = host
        .load_all("isolator", &["moody/b".into(), "moody/a".into()])
        .unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].selected(), ["moody/b", "moody/a"]);
    assert!(saw("create moody/b+moody/a") >= 1);
    let error = host.load("authorizer", "moody").unwrap_err().to_string();
    assert!(
        error.starts_with("no module 'moody' of kind authorizer was found"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn to_be_without_an_optional_method_is_no_failure() {
    let host = host(Duration::from_secs(10));
    let _client = AuthorizerClient::new(host.load("authorizer", "fixed").unwrap());
    let asked = || {
        let methods = host.report().modules.remove(0).methods;
        methods
            .into_iter()
            .find(|method| method.method == "CHANGED")
    };
    until("the question for changes", || asked().is_some()).await;
    let asked = asked().unwrap();
    assert_eq!((asked.calls, asked.failed), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_asked_once_until_the_policy_changes() {
    let host = host(Duration::from_secs(10));
    let client = AuthorizerClient::new(host.load("authorizer", "rules").unwrap());
    let subject = Subject::principal("p");
    let approver = client
        .approver(Some(&subject), Action::RunTask)
        .await
        .unwrap();
    assert_eq!(approver.constant(), None);
    let users = ["alice", "bob", "alice", "carol"].map(ObjectRef::value);
    assert_eq!(
        approver.approved_all(&users).await.unwrap(),
        [true, false, true, false]
    );
    let asked = CHECKS.load(Ordering::SeqCst);
    assert_eq!(
        approver.approved_all(&users).await.unwrap(),
        [true, false, true, false]
    );
    assert!(approver.approved(&ObjectRef::value("alice")).await.unwrap());
    assert!(!approver.approved(&ObjectRef::default()).await.unwrap());
    assert_eq!((asked, CHECKS.load(Ordering::SeqCst)), (3, 3));
    let constants = client
        .approvers(None, &[Action::ViewFlags, Action::DrainAgent])
        .await
        .unwrap();
    assert_eq!(
        constants.iter().map(|a| a.constant()).collect::<Vec<_>>(),
        [Some(true), Some(false)]
    );

    GATE.send_replace(true);
    let end = Instant::now() + Duration::from_secs(20);
    while !approver.approved(&ObjectRef::value("bob")).await.unwrap() {
        assert!(Instant::now() < end, "the change was not seen");
    }

    // A panic refuses that request; approvers of before go on with the new instance.
    let error = client
        .approver(Some(&Subject::principal("boom")), Action::RunTask)
        .await
        .unwrap_err();
    assert!(error.is_lost(), "{error}");
    client.instance().newer_than(1).await;
    assert!(approver.approved(&ObjectRef::value("dave")).await.unwrap());
}

#[test]
fn an_allocator_that_failed_is_given_a_snapshot() {
    let host = host(Duration::from_secs(10));
    let mut client = AllocatorClient::new(host.load("allocator", "jumpy").unwrap());
    let round = |seed| Round {
        seed,
        ..Round::default()
    };
    assert!(client.needs_snapshot());
    assert!(client.apply(&[]).is_err() && client.allocate(&round(1)).is_err());
    client.apply(&[Fact::Reset]).unwrap();
    assert!(!client.needs_snapshot());
    assert_eq!(client.allocate(&round(1)).unwrap(), []);

    let error = client.allocate(&round(13)).unwrap_err();
    assert!(error.to_string().contains("unlucky"), "{error}");
    assert!(client.needs_snapshot());
    let end = Instant::now() + Duration::from_secs(20);
    while client.apply(&[Fact::Reset]).is_err() {
        assert!(Instant::now() < end, "no new instance");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.allocate(&round(1)).unwrap(), []);
}
