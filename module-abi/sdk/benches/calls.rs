//! What crossing the contract costs: `cargo bench -p tepui-module-sdk --bench calls`. Figures of one machine and one run; the
//! table in the design has those they are held against.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tepui_allocator_hierarchical::Hierarchical;
use tepui_model::allocation::{Agent, AgentKey, Fact, Framework, FrameworkKey, Round};
use tepui_model::resources::Resources;
use tepui_model::time::Mono;
use tepui_module_abi::{HostV1, InstanceV1, Message as Payload, RSlice, Reply, RootV1Ref};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::Message;
use tepui_module_sdk::proto::allocator::{self, Proposals as Packed};
use tepui_module_sdk::proto::authorizer::{ApproversReply, ApproversRequest, CheckRequest, Method};
use tepui_module_sdk::proto::columns::{Columns, pack_round};
use tepui_module_sdk::proto::common::{CommonMethod, CreateRequest, ReportReply};

/// Waits in each call when its principal is `wait`.
struct Plain;

impl Module for Plain {
    type Config = NoConfig;
    const NAME: &'static str = "plain";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Authorizer for Plain {
    async fn approver(&self, subject: Option<&Subject>, _: Action) -> Result<Approver> {
        if subject.and_then(|subject| subject.principal.as_deref()) == Some("wait") {
            tepui_module_sdk::tokio::task::yield_now().await;
        }
        Ok(Approver::by_value(|user| user == "www"))
    }
}

unsafe extern "C" fn call(_: *const (), _: u32, _: RSlice<'_, u8>) -> Reply {
    Reply::default()
}

unsafe extern "C" fn complete(ctx: *const (), _: u64, reply: Reply) {
    // SAFETY: the context is the leaked sender of `raw`.
    let sender = unsafe { &*ctx.cast::<Sender<Reply>>() };
    sender.send(reply).expect("the bench listens");
}

/// An instance without a host around it.
fn raw(root: RootV1Ref, module: &str) -> (InstanceV1, Receiver<Reply>) {
    let (sender, receiver) = channel::<Reply>();
    let ctx: *const Sender<Reply> = Box::leak(Box::new(sender));
    let host = HostV1 {
        ctx: ctx.cast(),
        call,
        complete,
    };
    let request = CreateRequest {
        module: module.to_owned(),
        ..CreateRequest::default()
    };
    let made = root.create()(RSlice::from_slice(&request.encode_to_vec()), host);
    (made.into_result().expect("it starts"), receiver)
}

/// Prints the median of the given runs, each of so many operations.
fn measure(what: &str, operations: u32, mut run: impl FnMut()) {
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what:<68} {:>12.2?}", times[2] / operations);
}

fn main() {
    calls();
    allocation();
}

fn calls() {
    let root = tepui_module_sdk::linked!(allocator: Hierarchical, authorizer: Plain);
    let (plain, answers) = raw(root, "plain");
    let (hierarchical, _none) = raw(root, "hierarchical");
    const MANY: u32 = 100_000;

    let round = allocator::Round {
        candidates: (100_000..100_025).collect(),
        ..Default::default()
    };
    let round = round.encode_to_vec();
    measure(
        "call, about 100 B, decoded and encoded inside",
        MANY,
        || {
            for _ in 0..MANY {
                // SAFETY: the instance is never released.
                black_box(unsafe {
                    (hierarchical.call)(hierarchical.obj, 17, RSlice::from_slice(&round))
                });
            }
        },
    );
    measure("call, no request, an answer of a few bytes", MANY, || {
        for _ in 0..MANY {
            // SAFETY: as above.
            let reply = unsafe {
                (plain.call)(
                    plain.obj,
                    CommonMethod::Report as u32,
                    RSlice::from_slice(&[]),
                )
            };
            black_box(ReportReply::decode(&*reply.message.bytes).expect("a report"));
        }
    });

    let start = |principal: &str| {
        let subject = tepui_module_sdk::proto::authorizer::Subject {
            principal: Some(principal.to_owned()),
            ..Default::default()
        };
        let request = ApproversRequest {
            subject: Some(subject),
            actions: vec![Action::RunTask.number()],
        };
        let message = Payload::new(request.encode_to_vec());
        // SAFETY: as above.
        unsafe { (plain.start)(plain.obj, 1, Method::Approvers as u32, 0, message) };
        ApproversReply::decode(&*answers.recv().expect("an answer").message.bytes)
            .expect("approvers")
    };
    measure("start .. complete, ready at the first poll", MANY, || {
        for _ in 0..MANY {
            black_box(start("now"));
        }
    });
    measure(
        "start .. complete, through the library's thread",
        MANY / 10,
        || {
            for _ in 0..MANY / 10 {
                black_box(start("wait"));
            }
        },
    );
    let handle = start("now").approvers[0].handle;
    let values = (0..200).map(|i| format!("user{i}")).collect();
    let check = CheckRequest {
        handle,
        values,
        ..CheckRequest::default()
    }
    .encode_to_vec();
    measure("check of 200 distinct values", 1_000, || {
        for _ in 0..1_000 {
            let message = Payload::new(check.clone());
            // SAFETY: as above.
            unsafe { (plain.start)(plain.obj, 1, Method::Check as u32, 0, message) };
            black_box(answers.recv().expect("an answer"));
        }
    });
}

/// Rounds of the hierarchical allocator, with both ends' packing.
fn allocation() {
    for (agents, frameworks) in [(5_000, 200), (20_000, 2_000)] {
        let root = tepui_module_sdk::linked!(allocator: Hierarchical);
        let (hierarchical, _none) = raw(root, "hierarchical");
        let call = |method: allocator::Method, request: Vec<u8>| {
            // SAFETY: the instance is never released.
            let reply = unsafe {
                (hierarchical.call)(
                    hierarchical.obj,
                    method as u32,
                    RSlice::from_slice(&request),
                )
            };
            assert_eq!(reply.code, 0);
            reply.message.bytes
        };
        let mut columns = Columns::default();
        let mut facts = vec![Fact::Reset];
        facts.extend((0..agents).map(|key| Fact::AgentAdded(agent(key))));
        facts.extend((0..frameworks).map(|key| Fact::FrameworkAdded(framework(key))));
        let begin = Instant::now();
        call(
            allocator::Method::Apply,
            columns.pack_facts(&facts).encode_to_vec(),
        );
        let what = format!("{agents} agents, {frameworks} frameworks: told");
        println!("{what:<68} {:>12.2?}", begin.elapsed());
        let candidates: Vec<AgentKey> = (0..agents).map(AgentKey).collect();
        let mut now = 0;
        let mut back: Vec<Fact> = Vec::new();
        let what = format!("{agents} agents, {frameworks} frameworks: all returned, and a round");
        measure(&what, 1, || {
            call(
                allocator::Method::Apply,
                columns.pack_facts(&back).encode_to_vec(),
            );
            now += 1;
            let round = Round {
                now: Mono(now),
                seed: now,
                candidates: candidates.clone(),
            };
            let bytes = call(
                allocator::Method::Allocate,
                pack_round(&round).encode_to_vec(),
            );
            let packed = Packed::decode(&*bytes).expect("proposals");
            let made = columns.unpack_proposals(&packed).expect("known kinds");
            assert_eq!(made.len(), candidates.len());
            back = made.into_iter().map(Fact::Returned).collect();
        });
    }
}

fn agent(key: u32) -> Agent {
    Agent {
        key: AgentKey(key),
        id: format!("S{key}").into(),
        hostname: format!("host{key}"),
        total: Resources::cpus_mem(16.0, 65_536.0),
        attributes: Default::default(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned()],
        domain: None,
        remote: false,
    }
}

fn framework(key: u32) -> Framework {
    Framework {
        key: FrameworkKey(key),
        id: format!("F{key}").into(),
        principal: None,
        roles: vec!["*".into()],
        suppressed: Vec::new(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned()],
        minimums: Vec::new(),
    }
}
