//! What the kit promises about every instance, through the table that a host calls.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Instance, TestHost};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::authorizer::{
    ApproversReply, ApproversRequest, ChangedRequest, CheckReply, CheckRequest, Method,
    ReleaseRequest, approver::Answer,
};
use tepui_module_sdk::proto::common::{
    ActivateReply, ActivateRequest, Code, CommonMethod, LibraryManifest, ReportReply,
};
use tepui_module_sdk::proto::{Message, common::Failure as Payload};

#[config]
struct Config {
    /// Users who may run tasks.
    users: BTreeSet<String>,
}

/// Does on request what modules should not do; the principal says what.
struct Odd(Config);

static BLOCKED_ENDED: AtomicBool = AtomicBool::new(false);
static POLLED: AtomicBool = AtomicBool::new(false);
static CANCELLED: AtomicBool = AtomicBool::new(false);

impl Module for Odd {
    type Config = Config;
    const NAME: &'static str = "odd";

    fn create(config: Config, _: Context) -> Result<Self> {
        match config.users.contains("nobody") {
            true => Err(Failure::invalid("nobody is not a user").setting("users")),
            false => Ok(Self(config)),
        }
    }
}

impl Authorizer for Odd {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Result<Approver> {
        match subject.and_then(|subject| subject.principal.as_deref()) {
            Some("panic") => panic!("at once"),
            Some("panic-later") => {
                time::sleep(Duration::from_millis(1)).await;
                panic!("after an await");
            }
            Some("panic-in-drop") => {
                struct Bad;
                impl Drop for Bad {
                    fn drop(&mut self) {
                        panic!("in a destructor");
                    }
                }
                let _bad = Bad;
                std::future::pending::<()>().await;
            }
            Some("wait") => time::sleep(Duration::from_millis(5)).await,
            Some("hang") => std::future::pending().await,
            Some("slow-then-hang") => {
                POLLED.store(true, Ordering::SeqCst);
                while !CANCELLED.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                std::future::pending().await
            }
            Some("block") => {
                let work = || {
                    std::thread::sleep(Duration::from_millis(100));
                    BLOCKED_ENDED.store(true, Ordering::SeqCst);
                };
                blocking(work).await?;
            }
            Some("fail") => {
                std::fs::read("/does/not/exist")?;
            }
            Some("background") => {
                tepui_module_sdk::tokio::spawn(async {
                    BLOCKED_ENDED.store(true, Ordering::SeqCst)
                });
            }
            _ => {}
        }
        let users = self.0.users.clone();
        Ok(match action {
            Action::RunTask => {
                Approver::by_value(move |user| users.contains(user)).without_object(true)
            }
            Action::ViewFlags => Approver::Always,
            _ => Approver::Never,
        })
    }
}

fn odd() -> (&'static TestHost, Instance) {
    let host = TestHost::leak();
    let instance = host.create(
        tepui_module_sdk::linked!(authorizer: Odd),
        "odd",
        r#"{"users":["www","ftp"]}"#,
    );
    (host, instance.unwrap())
}

fn ask(principal: &str, actions: &[Action]) -> ApproversRequest {
    let subject = tepui_module_sdk::proto::authorizer::Subject {
        principal: Some(principal.to_owned()),
        ..Default::default()
    };
    ApproversRequest {
        subject: Some(subject),
        actions: actions.iter().map(|action| action.number()).collect(),
    }
}

const APPROVERS: u32 = Method::Approvers as u32;
const CHECK: u32 = Method::Check as u32;

#[test]
fn an_authorizer_answers_by_keys_until_it_is_released() {
    let (host, odd) = odd();
    let _: ActivateReply = odd
        .run(1, CommonMethod::Activate as u32, &ActivateRequest {})
        .unwrap();
    let request = ask("x", &[Action::RunTask, Action::ViewFlags, Action::ViewRole]);
    odd.start(2, APPROVERS, &request);
    assert_eq!(
        host.completed(),
        [1, 2],
        "what is ready at the first poll is answered before start returns"
    );
    let reply: ApproversReply = odd.wait(2).unwrap();
    let answers: Vec<_> = reply
        .approvers
        .iter()
        .map(|approver| approver.answer())
        .collect();
    assert_eq!(answers, [Answer::ByValue, Answer::Always, Answer::Never]);

    let handle = reply.approvers[0].handle;
    let values = ["www", "root", "ftp", "a", "b", "c", "d", "e", "www"]
        .map(str::to_owned)
        .to_vec();
    let check = CheckRequest {
        handle,
        values,
        without_object: true,
        ..Default::default()
    };
    let reply: CheckReply = odd.run(3, CHECK, &check).unwrap();
    assert_eq!(reply.approved, [0b0000_0101, 0b0000_0011]);

    let _: () = odd
        .call(
            Method::Release as u32,
            &ReleaseRequest {
                handles: vec![handle],
            },
        )
        .unwrap();
    let (code, _) = odd.run::<CheckReply>(4, CHECK, &check).unwrap_err();
    assert_eq!(code, Code::NotFound);
    let report: ReportReply = odd.call(CommonMethod::Report as u32, &()).unwrap();
    assert!(report.healthy);
}

#[test]
fn calls_wait_on_the_librarys_own_thread_and_can_be_cancelled() {
    let (host, odd) = odd();
    let reply: ApproversReply = odd
        .run(1, APPROVERS, &ask("wait", &[Action::ViewFlags]))
        .unwrap();
    assert_eq!(reply.approvers.len(), 1);

    odd.start(2, APPROVERS, &ask("hang", &[Action::ViewFlags]));
    odd.start(3, APPROVERS, &ask("hang", &[Action::ViewFlags]));
    odd.cancel(3);
    odd.cancel(3);
    odd.cancel(77);
    assert_eq!(
        odd.wait::<ApproversReply>(3).unwrap_err().0,
        Code::Cancelled
    );
    // The author's other calls go on, and a release ends them.
    drop(odd);
    assert_eq!(host.wait(2).code, Code::Cancelled as u32);
    assert_eq!(
        host.completed().iter().filter(|&&call| call == 3).count(),
        1,
        "exactly once"
    );
}

#[test]
fn a_cancellation_during_the_first_poll_is_not_lost() {
    let (_, odd) = odd();
    std::thread::scope(|threads| {
        threads.spawn(|| odd.start(1, APPROVERS, &ask("slow-then-hang", &[Action::ViewFlags])));
        while !POLLED.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        odd.cancel(1);
        CANCELLED.store(true, Ordering::SeqCst);
    });
    assert_eq!(
        odd.wait::<ApproversReply>(1).unwrap_err().0,
        Code::Cancelled
    );
}

#[test]
fn blocking_work_ends_before_a_cancelled_call_completes() {
    let (_, odd) = odd();
    odd.start(1, APPROVERS, &ask("block", &[Action::ViewFlags]));
    odd.cancel(1);
    assert_eq!(
        odd.wait::<ApproversReply>(1).unwrap_err().0,
        Code::Cancelled
    );
    assert!(BLOCKED_ENDED.load(Ordering::SeqCst));
}

#[test]
fn work_that_is_left_in_the_background_runs() {
    let (_, odd) = odd();
    BLOCKED_ENDED.store(false, Ordering::SeqCst);
    let _: ApproversReply = odd
        .run(1, APPROVERS, &ask("background", &[Action::ViewFlags]))
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !BLOCKED_ENDED.load(Ordering::SeqCst) {
        assert!(std::time::Instant::now() < deadline, "the task never ran");
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_finishes_the_instance_and_nothing_else() {
    for (principal, message) in [("panic", "at once"), ("panic-later", "after an await")] {
        let (_, odd) = odd();
        let request = ask(principal, &[Action::ViewFlags]);
        let (code, failure) = odd
            .run::<ApproversReply>(1, APPROVERS, &request)
            .unwrap_err();
        assert_eq!((code, failure.finished), (Code::Internal, true));
        assert!(failure.message.contains(message), "{}", failure.message);
        let (code, failure) = odd
            .run::<ApproversReply>(2, APPROVERS, &ask("x", &[]))
            .unwrap_err();
        assert_eq!((code, failure.finished), (Code::FailedPrecondition, true));
    }
    let (_, odd) = odd();
    odd.start(1, APPROVERS, &ask("panic-in-drop", &[Action::ViewFlags]));
    odd.cancel(1);
    let (code, failure) = odd.wait::<ApproversReply>(1).unwrap_err();
    assert_eq!((code, failure.finished), (Code::Internal, true));
    let (code, _) = odd
        .call::<()>(CommonMethod::ProbePanic as u32, &())
        .unwrap_err();
    assert_eq!(code, Code::FailedPrecondition);
}

#[test]
fn the_trial_can_provoke_a_panic() {
    let (_, odd) = odd();
    let (code, failure) = odd
        .call::<()>(CommonMethod::ProbePanic as u32, &())
        .unwrap_err();
    assert_eq!((code, failure.finished), (Code::Internal, true));
}

#[test]
fn failures_say_what_and_why() {
    let (_, odd) = odd();
    let (code, failure) = odd
        .run::<ApproversReply>(1, APPROVERS, &ask("fail", &[Action::ViewFlags]))
        .unwrap_err();
    assert_eq!(code, Code::Unknown);
    assert!(failure.message.contains("No such file"), "{failure:?}");
    assert_eq!(
        odd.run::<()>(2, 999, &()).unwrap_err().0,
        Code::Unimplemented
    );
    assert_eq!(odd.call::<()>(999, &()).unwrap_err().0, Code::Unimplemented);
    // Its rules do not change: the host need not wait for that.
    let changed = odd.run::<()>(4, Method::Changed as u32, &ChangedRequest { seen: 0 });
    assert_eq!(changed.unwrap_err().0, Code::Unimplemented);
    // A message that is not what the method takes.
    let text = Payload::new("not a list of actions");
    assert_eq!(
        odd.run::<()>(3, APPROVERS, &text).unwrap_err().0,
        Code::InvalidArgument
    );
}

#[test]
fn settings_are_checked_and_described() {
    let host = TestHost::leak();
    let root = tepui_module_sdk::linked!(authorizer: Odd);
    let refused = |config| host.create(root, "odd", config).map(|_| ()).unwrap_err();
    let (code, failure) = refused(r#"{"users":[],"colour":1}"#);
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        failure.message.contains("unknown field `colour`"),
        "{}",
        failure.message
    );
    assert!(refused("{}").1.message.contains("missing field `users`"));
    assert_eq!(refused(r#"{"users":["nobody"]}"#).1.setting, "users");
    assert_eq!(
        host.create(root, "even", "{}").map(|_| ()).unwrap_err().0,
        Code::NotFound
    );

    let manifest = LibraryManifest::decode(&*root.manifest()()).unwrap();
    assert_eq!(manifest.panic, "unwind");
    let module = &manifest.modules[0];
    assert_eq!(
        (module.name.as_str(), module.kinds.as_slice()),
        ("odd", &["authorizer".to_owned()][..])
    );
    assert!(
        module.schema.contains("Users who may run tasks."),
        "{}",
        module.schema
    );
    assert!(
        module.schema.contains(r#""additionalProperties":false"#),
        "{}",
        module.schema
    );
}
