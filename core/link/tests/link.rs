//! Both ends over a pipe in memory.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use tepui_link::{
    AgentEnd, AgentEvent, AgentSession, AgentSettings, AgentUpdate, CloseReason, Frames, MasterEnd,
    MasterEvent, MasterSettings, Peer, SendError, SessionEvent, SessionKey, SessionSender, Synced,
};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{
    FrameworkMessage, Hello, Kill, LinkFrame, ProtocolRange, Refuse, SyncTask, Update, Updates,
    Welcome, refuse,
};
use tepui_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

struct Pair {
    agent: AgentEnd,
    agent_events: mpsc::Receiver<AgentEvent>,
    master_events: mpsc::Receiver<SessionEvent>,
    tasks: JoinSet<()>,
}

fn pair(agent: AgentSettings, master: MasterSettings) -> Pair {
    let (near, far) = duplex(64 << 10);
    let (agent_inbox, agent_events) = mpsc::channel(16);
    let (master_events, mut tasks) = serve(far, master);
    let (agent, run) = AgentEnd::start(near, agent, agent_inbox);
    tasks.spawn(run);
    Pair {
        agent,
        agent_events,
        master_events,
        tasks,
    }
}

fn serve(
    stream: DuplexStream,
    settings: MasterSettings,
) -> (mpsc::Receiver<SessionEvent>, JoinSet<()>) {
    let (inbox, events) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(MasterEnd::new(settings, inbox).serve(stream, Peer::default()));
    (events, tasks)
}

impl Pair {
    async fn master(&mut self) -> (SessionKey, MasterEvent) {
        let event = self.master_events.recv().await.expect("a master's event");
        (event.session, event.event)
    }

    async fn agent(&mut self) -> (u32, AgentUpdate) {
        let event = self.agent_events.recv().await.expect("an agent's event");
        (event.session, event.event)
    }

    /// Opens a session and brings it to where commands and updates flow.
    async fn live(&mut self) -> (AgentSession, SessionSender, SessionKey) {
        let session = self.agent.open(Hello::default());
        let (key, MasterEvent::Hello { sender, .. }) = self.master().await else {
            panic!("no Hello");
        };
        sender.send(welcome()).expect("it is open");
        let (number, AgentUpdate::Welcome(welcome)) = self.agent().await else {
            panic!("no Welcome");
        };
        assert_eq!((number, welcome.protocol), (session.number(), 1));
        session.sync(Synced::default()).expect("it is open");
        let (_, MasterEvent::Synced(_)) = self.master().await else {
            panic!("no Sync");
        };
        (session, sender, key)
    }
}

fn welcome() -> Body {
    Body::Welcome(Welcome {
        ping_timeout_ms: 75_000,
        ..Welcome::default()
    })
}

fn kill(task: &str) -> Body {
    Body::Kill(Kill {
        task_id: Some(v1::TaskId { value: task.into() }),
        ..Kill::default()
    })
}

fn synced(tasks: usize) -> Synced {
    let task = |n: usize| SyncTask {
        task: v1::Task {
            name: "x".repeat(1000),
            task_id: v1::TaskId {
                value: n.to_string(),
            },
            ..v1::Task::default()
        }
        .encode_to_vec()
        .into(),
    };
    Synced {
        tasks: (0..tasks).map(task).collect(),
        resource_version: bytes::Bytes::from_static(b"0123456789abcdef"),
        ..Synced::default()
    }
}

#[tokio::test]
async fn a_session_from_hello_to_close() {
    let mut pair = pair(AgentSettings::default(), MasterSettings::default());
    let session = pair.agent.open(Hello {
        version: "1".into(),
        ..Hello::default()
    });
    let (key, MasterEvent::Hello { hello, sender, .. }) = pair.master().await else {
        panic!("no Hello");
    };
    assert_eq!(hello.version, "1");
    // A command before the Sync never leaves the master.
    sender.send(kill("early")).expect("it is queued");
    sender.send(welcome()).expect("it is queued");
    assert!(matches!(pair.agent().await.1, AgentUpdate::Welcome(_)));

    // A Sync of many frames is one event.
    let all = synced(3000);
    session.sync(all.clone()).expect("it is open");
    let (_, MasterEvent::Synced(seen)) = pair.master().await else {
        panic!("no Sync");
    };
    assert!(*seen == all);

    let updates = vec![Update::default(); 2];
    let body = Body::Updates(Updates {
        updates: updates.clone(),
    });
    session.send(body).expect("it is open");
    let (_, MasterEvent::Updates(seen)) = pair.master().await else {
        panic!("no updates");
    };
    assert_eq!(seen, updates);
    sender.send(kill("late")).expect("it is open");
    let (_, AgentUpdate::Command(command)) = pair.agent().await else {
        panic!("no command");
    };
    assert_eq!(*command, kill("late"));

    session.close("enough");
    let (closed, MasterEvent::Closed(reason)) = pair.master().await else {
        panic!("no end");
    };
    assert_eq!(closed, key);
    assert!(matches!(reason, CloseReason::Peer(reason) if reason.contains("enough")));
    assert!(matches!(pair.agent().await.1, AgentUpdate::Closed(_)));
    assert_eq!(sender.send(kill("after")), Err(SendError::Closed));
}

#[tokio::test]
async fn sessions_of_a_connection_are_independent() {
    let mut pair = pair(AgentSettings::default(), MasterSettings::default());
    let (_first, first_sender, first_key) = pair.live().await;
    let (second, _second_sender, second_key) = pair.live().await;
    assert_ne!(first_key, second_key);
    first_sender.close("one of two");
    assert!(matches!(
        pair.agent().await,
        (1, AgentUpdate::Closed(CloseReason::Peer(_)))
    ));
    assert!(matches!(pair.master().await, (key, MasterEvent::Closed(_)) if key == first_key));
    second
        .send(Body::Updates(Updates::default()))
        .expect("open");
    assert!(matches!(pair.master().await, (key, MasterEvent::Updates(_)) if key == second_key));
    // The connection takes the rest with it.
    pair.tasks.abort_all();
    drop(pair.agent);
}

#[tokio::test]
async fn a_lost_connection_ends_every_session_once() {
    let mut pair = pair(AgentSettings::default(), MasterSettings::default());
    let (first, ..) = pair.live().await;
    let (second, ..) = pair.live().await;
    let Pair {
        agent,
        mut agent_events,
        mut master_events,
        tasks: _tasks,
    } = pair;
    drop((agent, first, second));
    let mut closed = 0;
    while let Some(event) = master_events.recv().await {
        assert!(matches!(
            event.event,
            MasterEvent::Closed(CloseReason::Disconnected)
        ));
        closed += 1;
    }
    assert_eq!(closed, 2);
    assert!(matches!(
        agent_events.recv().await.map(|e| e.event),
        Some(AgentUpdate::Closed(_))
    ));
}

#[tokio::test]
async fn the_newest_common_protocol_is_spoken() {
    for (agent, master, common) in [
        (1..=1, 1..=3, Some(1)),
        (1..=2, 2..=3, Some(2)),
        (1..=1, 2..=3, None),
        (4..=5, 1..=3, None),
    ] {
        let agent = AgentSettings {
            protocol: agent,
            ..AgentSettings::default()
        };
        let master = MasterSettings {
            protocol: master,
            ..MasterSettings::default()
        };
        let mut pair = pair(agent, master);
        let _session = pair.agent.open(Hello::default());
        let Some(common) = common else {
            let (_, AgentUpdate::Refused(refused)) = pair.agent().await else {
                panic!("not refused");
            };
            assert_eq!(refused.code(), refuse::Code::TooOld);
            assert!(refused.reason.contains("protocol"), "{}", refused.reason);
            // Nothing else can come of this connection: the master ends it, so that the agent
            // hears of it at once and tries again in its own time.
            let (_, AgentUpdate::Closed(CloseReason::Refused)) = pair.agent().await else {
                panic!("not closed");
            };
            assert!(pair.agent_events.recv().await.is_none());
            continue;
        };
        let (
            _,
            MasterEvent::Hello {
                sender, protocol, ..
            },
        ) = pair.master().await
        else {
            panic!("no Hello");
        };
        assert_eq!(protocol, common);
        sender.send(welcome()).expect("it is open");
        let (_, AgentUpdate::Welcome(welcome)) = pair.agent().await else {
            panic!("no Welcome");
        };
        assert_eq!(welcome.protocol, common);
    }
}

#[tokio::test]
async fn an_owner_may_refuse() {
    let mut pair = pair(AgentSettings::default(), MasterSettings::default());
    let _session = pair.agent.open(Hello::default());
    let (_, MasterEvent::Hello { sender, .. }) = pair.master().await else {
        panic!("no Hello");
    };
    let refusal = Refuse {
        code: refuse::Code::Busy.into(),
        reason: "later".into(),
        retry_ms: 500,
    };
    sender.send(Body::Refuse(refusal.clone())).expect("open");
    assert!(matches!(pair.agent().await.1, AgentUpdate::Refused(seen) if seen == refusal));
    assert!(matches!(
        pair.agent().await.1,
        AgentUpdate::Closed(CloseReason::Refused)
    ));
    assert!(matches!(
        pair.master().await.1,
        MasterEvent::Closed(CloseReason::Refused)
    ));
    let more = pair.agent_events.recv().await;
    assert!(
        more.is_none(),
        "nothing is left on the connection: {more:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_silence_is_reported() {
    let settings = MasterSettings {
        ping_interval: Duration::from_secs(15),
        max_missed_pings: 5,
        ..MasterSettings::default()
    };
    // An agent that answers is never heard of.
    let mut answering = pair(AgentSettings::default(), settings.clone());
    let _live = answering.live().await;
    let hour = Duration::from_hours(1);
    assert!(
        tokio::time::timeout(hour, answering.master_events.recv())
            .await
            .is_err()
    );

    // One that does not is, once, until it says something.
    let (mut near, far) = duplex(1 << 20);
    let (mut events, _tasks) = serve(far, settings);
    say(&mut near, Body::Hello(Hello::default())).await;
    let event = events.recv().await.expect("a Hello").event;
    let MasterEvent::Hello { sender, .. } = event else {
        panic!("no Hello");
    };
    sender.send(welcome()).expect("open");
    let begin = tokio::time::Instant::now();
    let event = events.recv().await.expect("an event").event;
    assert!(matches!(event, MasterEvent::Silent), "{event:?}");
    assert_eq!(begin.elapsed().as_secs(), 90);
    assert!(tokio::time::timeout(hour, events.recv()).await.is_err());
    say(&mut near, Body::Pong(Default::default())).await;
    assert!(matches!(
        events.recv().await.expect("an event").event,
        MasterEvent::Heard
    ));
}

#[tokio::test(start_paused = true)]
async fn an_agent_leaves_a_silent_master() {
    let (near, far) = duplex(1 << 20);
    let (inbox, mut events) = mpsc::channel(16);
    let (agent, run) = AgentEnd::start(near, AgentSettings::default(), inbox);
    let mut tasks = JoinSet::new();
    tasks.spawn(run);
    let _session = agent.open(Hello::default());
    let mut far = far;
    let length = far.read_u32().await.expect("a Hello");
    let mut hello = vec![0; length as usize];
    far.read_exact(&mut hello).await.expect("a Hello");
    let frame = LinkFrame {
        session: 1,
        must_understand: false,
        body: Some(Body::Welcome(Welcome {
            protocol: 1,
            ping_timeout_ms: 75_000,
            ..Welcome::default()
        })),
    };
    far.write_all(&encode(&frame)).await.expect("a pipe");
    assert!(matches!(
        events.recv().await.expect("an event").event,
        AgentUpdate::Welcome(_)
    ));
    let begin = tokio::time::Instant::now();
    let event = events.recv().await.expect("an event").event;
    assert!(matches!(event, AgentUpdate::Closed(CloseReason::Silent)));
    assert_eq!(begin.elapsed().as_secs(), 75);
}

#[tokio::test]
async fn too_much_to_send_closes_the_session() {
    let settings = MasterSettings {
        backlog_limit: 100_000,
        ..MasterSettings::default()
    };
    let (mut near, far) = duplex(1000);
    let (mut events, _tasks) = serve(far, settings);
    say(&mut near, Body::Hello(Hello::default())).await;
    let event = events.recv().await.expect("a Hello").event;
    let MasterEvent::Hello { sender, .. } = event else {
        panic!("no Hello");
    };
    sender.send(welcome()).expect("open");
    let length = near.read_u32().await.expect("a Welcome");
    let mut welcomed = vec![0; length as usize];
    near.read_exact(&mut welcomed).await.expect("a Welcome");
    say(&mut near, Body::SyncEnd(Default::default())).await;
    assert!(matches!(
        events.recv().await.expect("an event").event,
        MasterEvent::Synced(_)
    ));
    // Nobody reads at the other end.
    let message = || {
        Body::FrameworkMessage(FrameworkMessage {
            data: vec![0; 10_000].into(),
            ..FrameworkMessage::default()
        })
    };
    let error = loop {
        if let Err(error) = sender.send(message()) {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error, SendError::Backlog);
    assert_eq!(sender.send(message()), Err(SendError::Closed));
    let event = events.recv().await.expect("an event").event;
    assert!(
        matches!(event, MasterEvent::Closed(CloseReason::Backlog)),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_full_inbox_stops_reading_and_loses_nothing() {
    let mut pair = pair(AgentSettings::default(), MasterSettings::default());
    let (session, ..) = pair.live().await;
    let count = 5000;
    for n in 0..count {
        let update = Update {
            latest_state: n,
            ..Update::default()
        };
        let updates = vec![update];
        session
            .send(Body::Updates(Updates { updates }))
            .expect("open");
    }
    for n in 0..count {
        let (_, MasterEvent::Updates(updates)) = pair.master().await else {
            panic!("no updates");
        };
        assert_eq!(updates[0].latest_state, n);
    }
}

#[tokio::test]
async fn unknown_frames_are_skipped_unless_they_matter() {
    for must_understand in [false, true] {
        let (mut near, far) = duplex(1 << 20);
        let (mut events, _tasks) = serve(far, MasterSettings::default());
        say(&mut near, Body::Hello(Hello::default())).await;
        assert!(matches!(
            events.recv().await.expect("one").event,
            MasterEvent::Hello { .. }
        ));
        // Field 900 with two bytes: a body that this release does not have.
        let mut frame = LinkFrame {
            session: 1,
            must_understand,
            body: None,
        }
        .encode_to_vec();
        frame.extend([0xa2, 0x38, 0x02, 1, 2]);
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        near.write_all(&bytes).await.expect("a pipe");
        say(&mut near, Body::Close(Default::default())).await;
        let event = events.recv().await.expect("an end").event;
        let MasterEvent::Closed(reason) = event else {
            panic!("{event:?}");
        };
        assert_eq!(reason == CloseReason::UnknownFrame, must_understand);
        assert_eq!(matches!(reason, CloseReason::Peer(_)), !must_understand);
    }
}

#[tokio::test]
async fn frames_out_of_place_close_the_session() {
    let wrong = [
        Body::Updates(Updates::default()),
        Body::SyncEnd(Default::default()),
        Body::Kill(Kill::default()),
    ];
    for body in wrong {
        let (mut near, far) = duplex(1 << 20);
        let (mut events, _tasks) = serve(far, MasterSettings::default());
        say(&mut near, Body::Hello(Hello::default())).await;
        assert!(matches!(
            events.recv().await.expect("one").event,
            MasterEvent::Hello { .. }
        ));
        say(&mut near, body).await;
        let event = events.recv().await.expect("an end").event;
        assert!(
            matches!(event, MasterEvent::Closed(CloseReason::Protocol(_))),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_connection() {
    let (mut near, far) = duplex(1 << 20);
    let (mut events, _tasks) = serve(far, MasterSettings::default());
    say(&mut near, Body::Hello(Hello::default())).await;
    assert!(matches!(
        events.recv().await.expect("one").event,
        MasterEvent::Hello { .. }
    ));
    near.write_all(&u32::MAX.to_be_bytes())
        .await
        .expect("a pipe");
    let event = events.recv().await.expect("an end").event;
    assert!(
        matches!(event, MasterEvent::Closed(CloseReason::Protocol(_))),
        "{event:?}"
    );
    let mut rest = Vec::new();
    near.read_to_end(&mut rest).await.expect("it is closed");
}

fn encode(frame: &LinkFrame) -> Vec<u8> {
    let mut buffer = bytes::BytesMut::new();
    Frames::default().put(frame, &mut buffer).expect("short");
    buffer.to_vec()
}

async fn say(stream: &mut DuplexStream, body: Body) {
    let frame = LinkFrame {
        session: 1,
        must_understand: false,
        body: Some(body),
    };
    stream.write_all(&encode(&frame)).await.expect("a pipe");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_survived(mut garbage in proptest::collection::vec(any::<u8>(), 0..2000), framed: bool) {
        if framed {
            let mut bytes = (garbage.len() as u32).to_be_bytes().to_vec();
            bytes.append(&mut garbage);
            garbage = bytes;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut near, far) = duplex(1 << 20);
            let (mut events, mut tasks) = serve(far, MasterSettings::default());
            say(&mut near, Body::Hello(Hello { protocol: Some(ProtocolRange { min: 1, max: 1 }), ..Hello::default() })).await;
            near.write_all(&garbage).await.expect("a pipe");
            drop(near);
            let mut closed = 0;
            while let Some(event) = events.recv().await {
                closed += usize::from(matches!(event.event, MasterEvent::Closed(_)));
            }
            prop_assert!(closed >= 1);
            while let Some(result) = tasks.join_next().await {
                prop_assert!(result.is_ok());
            }
            Ok(())
        })?;
    }

    #[test]
    fn frames_arrive_in_any_pieces(sizes in proptest::collection::vec(0_usize..3000, 1..20), cut in 1_usize..500) {
        let frames: Vec<LinkFrame> = sizes.iter().map(|size| LinkFrame {
            session: *size as u32,
            must_understand: false,
            body: Some(Body::FrameworkMessage(FrameworkMessage { data: vec![7; *size].into(), ..FrameworkMessage::default() })),
        }).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let mut buffer = bytes::BytesMut::new();
        let mut seen = Vec::new();
        for piece in bytes.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = Frames::default().take(&mut buffer).expect("frames") {
                seen.push(frame);
            }
        }
        prop_assert_eq!(seen, frames);
        prop_assert!(buffer.is_empty());
    }
}
