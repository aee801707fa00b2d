//! Recorded exchanges of Mesos 1.11, replayed against a master and two agents.

use std::path::Path;

use serde_json::{Value, json};
use tepui_e2e::replay::recorded::{AGENTS, Recorded};
use tepui_e2e::replay::{
    Exchange, Outcome, Request, listed_differences, load, open, recordings, replay, verdict,
};
use tepui_e2e::{Scheduler, Scratch, scheduler};

/// The framework whose calls are in the group `errors`, and its stream.
const RECORDED_FRAMEWORK: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a-0017";
const RECORDED_STREAM: &str = "b44912fe-c6d6-4048-99c4-4bfb69b13355";

/// The folder of the sandboxes in the group `files`, and the one sandbox.
const RECORDED_RUNS: &str = "/var/lib/mesos1/work/agents/0/work/slaves/\
    2bb699ce-5753-4d4d-ad59-74064e38038a-S1/frameworks/2bb699ce-5753-4d4d-ad59-74064e38038a-0000/\
    executors/peer-executor/runs";
const RECORDED_RUN: &str = "a3e5581a-4b88-42c3-9945-8bded0ea625c";

/// The task whose sandbox is looked at has the name of the recorded executor.
const TASK: &str = "peer-executor";

/// What is asked with nothing running, and what needs no more than a framework or a sandbox.
const GROUPS: [&str; 6] = [
    "http-idle/",
    "http-headers/",
    "operator-master-idle/",
    "operator-agent-idle/",
    "errors/",
    "files/",
];

fn of_groups(all: &[Exchange], groups: &[&str]) -> Vec<Exchange> {
    let is_in = |exchange: &&Exchange| groups.iter().any(|g| exchange.name.starts_with(g));
    all.iter().filter(is_in).cloned().collect()
}

#[test]
fn answers_are_those_of_mesos() {
    let scratch = Scratch::new();
    let Recorded {
        master,
        agents,
        mut target,
    } = Recorded::start(scratch.path(), &AGENTS);
    let mut all = load(&recordings()).expect("recordings");
    all.retain(|exchange| GROUPS.iter().any(|group| exchange.name.starts_with(group)));

    // The idle groups first: later ones leave completed frameworks behind.
    let mut outcome: Outcome = replay(&of_groups(&all, &GROUPS[..4]), &target);

    let (subscribed, stream) = open(master.address, &subscription(), true).expect("SUBSCRIBE");
    let event: Value = first_event(&subscribed.body);
    let id = event["subscribed"]["framework_id"]["value"]
        .as_str()
        .expect("an id")
        .to_owned();
    let stream_id = subscribed
        .header("Mesos-Stream-Id")
        .expect("a stream id")
        .to_owned();
    target.ids.note(RECORDED_FRAMEWORK, &id);
    target.ids.note(RECORDED_STREAM, &stream_id);
    outcome.extend(replay(&of_groups(&all, &["errors/"]), &target));
    // It holds all offers.
    drop(stream);

    let mut framework = Scheduler::subscribe(master.address, scheduler::framework("files", false));
    framework.launch(vec![scheduler::task(TASK, "sleep 1000", 0.1, 32.0)]);
    framework.wait_state(TASK, tepui_proto::v1::TaskState::TaskRunning);
    let (agent, directory) = agents
        .iter()
        .find_map(|agent| Some((agent, sandbox(&agent.get("/state"))?)))
        .expect("an agent has the sandbox");
    target.agents = vec![agent.address];
    let runs = Path::new(&directory)
        .parent()
        .expect("runs")
        .display()
        .to_string();
    target.texts = vec![
        (format!("{RECORDED_RUNS}/{RECORDED_RUN}"), directory),
        (RECORDED_RUNS.to_owned(), runs),
    ];
    outcome.extend(replay(&of_groups(&all, &["files/"]), &target));
    framework.kill(TASK);

    assert_eq!(outcome.len(), all.len(), "a group was not replayed");
    let listed = listed_differences(&GROUPS);
    let equal = outcome
        .values()
        .filter(|difference| difference.is_none())
        .count();
    println!("{equal} of {} exchanges are equal", outcome.len());
    verdict(&outcome, &listed).unwrap_or_else(|report| panic!("\n{report}"));
}

/// What a replay of the groups that need nothing running finds wrong with a master.
fn found_wrong(bug: Option<&str>) -> Result<(), String> {
    let scratch = Scratch::new();
    let cluster = Recorded::start_with(scratch.path(), &AGENTS, bug);
    let all = load(&recordings()).expect("recordings");
    let groups = ["operator-master-idle/", "http-idle/"];
    let mut asked = of_groups(&all, &groups);
    let is_refused = |exchange: &&Exchange| exchange.name.ends_with("-type-number.json");
    asked.extend(all.iter().filter(is_refused).cloned());
    verdict(
        &replay(&asked, &cluster.target),
        &listed_differences(&groups),
    )
}

#[test]
fn a_planted_bug_is_found() {
    found_wrong(None).expect("no bug, nothing found");
    let encoder = found_wrong(Some("encoder")).expect_err("doubles are written wrong");
    assert!(
        encoder.contains("operator-master-idle/get-agents.json: body differs"),
        "{encoder}"
    );
    assert!(
        encoder.contains("http-idle/get-master-state.json: body differs"),
        "{encoder}"
    );
    let decoder = found_wrong(Some("decoder")).expect_err("a wrong body is taken");
    assert!(
        decoder.contains("errors/agent-type-number.json: "),
        "{decoder}"
    );
    let found = decoder.lines().filter(|line| line.contains(".json: "));
    assert_eq!(found.count(), 2, "{decoder}");
}

/// A framework of the role that the recorded calls name.
fn subscription() -> Request {
    let call = json!({
        "type": "SUBSCRIBE",
        "subscribe": { "framework_info": {
            "user": "root", "name": "err", "roles": ["err"], "capabilities": [{ "type": "MULTI_ROLE" }],
        } },
    });
    let json_type = "application/json".to_owned();
    Request {
        method: "POST".to_owned(),
        path: "/api/v1/scheduler".to_owned(),
        headers: vec![
            ("Content-Type".to_owned(), json_type.clone()),
            ("Accept".to_owned(), json_type),
        ],
        body: Some(call.to_string().into_bytes()),
    }
}

fn first_event(stream: &[u8]) -> Value {
    let mut decoder = tepui_proto::recordio::Decoder::new(1 << 20);
    decoder.push(stream);
    let record = decoder
        .next_record()
        .expect("RecordIO")
        .expect("a whole record");
    serde_json::from_slice(&record).expect("an event in JSON")
}

/// The directory of the only executor in an agent's state.
fn sandbox(state: &Value) -> Option<String> {
    let directory = &state["frameworks"][0]["executors"][0]["directory"];
    directory.as_str().map(str::to_owned)
}
