//! Executors of frameworks: real processes on the v1 executor API.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_http::scheduler_client::scalar;
use tepui_proto::v1::framework_info::Capability;
use tepui_proto::v1::framework_info::capability::Type as CapabilityType;
use tepui_proto::v1::scheduler::{self, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState, executor_info};

struct Bench {
    master: Daemon,
    agent: Option<Daemon>,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The agent gets these flags.
    fn with(flags: &[&str]) -> Self {
        let scratch = Scratch::new();
        let master = Daemon::master(scratch.path(), &[]);
        let mut bench = Self {
            master,
            agent: None,
            scratch,
        };
        bench.agent = Some(bench.start_agent(0, flags));
        bench
    }

    fn start_agent(&self, port: u16, more: &[&str]) -> Daemon {
        let flags = ["--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]"];
        let (dir, master) = (self.scratch.path(), self.master.address);
        Daemon::agent_at(port, dir, "agent", master, &[&flags, more].concat())
    }

    /// The agent is killed and started anew, as an init system would.
    fn restart_agent(&mut self) {
        let agent = self.agent.take().expect("it runs");
        let port = agent.address.port();
        agent.kill();
        self.agent = Some(self.start_agent(port, &[]));
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("executor.log")
    }

    /// What the executors have sent and were sent, in order.
    fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let rows = text.lines().map(serde_json::from_str);
        rows.map(|row| row.expect("a row")).collect()
    }

    #[expect(deprecated, reason = "the recorded one has a source")]
    fn executor(&self) -> v1::ExecutorInfo {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/executor.py");
        let variable = |name: &str, value: String| v1::environment::Variable {
            name: name.to_owned(),
            value: Some(value),
            r#type: Some(v1::environment::variable::Type::Value.into()),
            ..Default::default()
        };
        v1::ExecutorInfo {
            r#type: Some(executor_info::Type::Custom.into()),
            executor_id: v1::ExecutorId {
                value: "peer-executor".to_owned(),
            },
            name: Some("peer".to_owned()),
            source: Some("peer".to_owned()),
            command: Some(v1::CommandInfo {
                shell: Some(true),
                value: Some(format!("exec python3 {script}")),
                environment: Some(v1::Environment {
                    variables: vec![
                        variable("EXECUTOR_LOG", self.log().display().to_string()),
                        variable("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
                    ],
                }),
                ..Default::default()
            }),
            resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
            ..Default::default()
        }
    }

    fn task(&self, id: &str, what: &str) -> v1::TaskInfo {
        v1::TaskInfo {
            name: id.to_owned(),
            task_id: v1::TaskId {
                value: id.to_owned(),
            },
            resources: vec![scalar("cpus", 0.1), scalar("mem", 16.0)],
            executor: Some(self.executor()),
            data: Some(what.to_owned().into()),
            ..Default::default()
        }
    }

    fn shutdown(&self, agent: &v1::AgentId) -> scheduler::Call {
        scheduler::Call {
            shutdown: Some(call::Shutdown {
                executor_id: self.executor().executor_id,
                agent_id: agent.clone(),
            }),
            ..Default::default()
        }
    }

    fn end(mut self) {
        let agent = self.agent.take().expect("it runs");
        agent.stop(Signal::SIGUSR1);
        wait_clean(self.scratch.path());
    }
}

/// The framework of the recorded session.
fn recorded_framework() -> v1::FrameworkInfo {
    let capabilities = [
        CapabilityType::MultiRole,
        CapabilityType::PartitionAware,
        CapabilityType::ReservationRefinement,
    ];
    v1::FrameworkInfo {
        hostname: Some("localhost".to_owned()),
        roles: vec!["peer".to_owned()],
        failover_timeout: Some(3600.0),
        capabilities: capabilities
            .map(|kind| Capability {
                r#type: Some(kind.into()),
            })
            .into(),
        ..framework("peer-life", false)
    }
}

fn message(agent: &v1::AgentId, data: &'static str) -> scheduler::Call {
    scheduler::Call {
        message: Some(call::Message {
            agent_id: agent.clone(),
            executor_id: v1::ExecutorId {
                value: "peer-executor".to_owned(),
            },
            data: data.into(),
        }),
        ..Default::default()
    }
}

fn other<T>(
    scheduler: &mut Scheduler,
    what: &str,
    take: impl Fn(&scheduler::Event) -> Option<T>,
) -> T {
    scheduler.wait(what, |scheduler| scheduler.other.iter().find_map(&take))
}

/// What differs from run to run, and from executor program to executor program.
fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "uuid" | "timestamp" | "port" | "command" | "framework_id" | "agent_id"
                    | "container_id" | "id" => *value = json!("*"),
                    _ => mask(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// Rows of the executor's first life. Acknowledgements come apart, as tasks: how they mix with what
/// else is on the way depends on who is quicker, and so does the end of the task that is a command.
fn split(rows: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let shutdown = |row: &Value| row["event"]["type"] == "SHUTDOWN";
    let end = rows.iter().position(shutdown).expect("a SHUTDOWN");
    let (mut order, mut acknowledged) = (Vec::new(), Vec::new());
    for row in &rows[..=end] {
        let mut row = row.clone();
        let status = &row["call"]["update"]["status"];
        let own_time = status["task_id"]["value"] == "t-sh" && status["state"] == "TASK_FAILED";
        if row["event"]["type"] == "ACKNOWLEDGED" {
            acknowledged.push(row["event"]["acknowledged"]["task_id"]["value"].clone());
        } else if !own_time && row.get("subscribe-response").is_none() {
            mask(&mut row);
            order.push(row);
        }
    }
    (order, acknowledged)
}

#[test]
fn an_executor_sees_what_is_recorded() {
    let bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, recorded_framework());
    let first = [
        ("t-finish", "finish"),
        ("t-stay", "run"),
        ("t-fail", "fail"),
        ("t-sh", "sh exit 3"),
        ("t-only", "finish-only"),
    ];
    let offer = scheduler.launch(first.map(|(id, what)| bench.task(id, what)).into());
    let failed = scheduler.wait_state("t-sh", TaskState::TaskFailed);
    assert_eq!(failed.message(), "exit 3");
    scheduler.wait_state("t-only", TaskState::TaskFinished);
    let failed = scheduler.wait_state("t-fail", TaskState::TaskFailed);
    assert_eq!(failed.message(), "told to fail");
    let container = failed.container_status.expect("of its executor");
    assert!(container.executor_pid.is_some() && container.container_id.is_some());

    scheduler.call(call::Type::Message, message(&offer.agent_id, "hello"));
    let said = other(&mut scheduler, "an answer", |event| event.message.clone());
    assert_eq!(said.data, "hello");
    assert_eq!(said.executor_id.value, "peer-executor");

    let mut zero = bench.task("t-zero", "finish");
    zero.resources[0] = scalar("cpus", 0.0);
    scheduler.launch(vec![zero]);
    scheduler.wait_state("t-zero", TaskState::TaskFinished);

    let state = bench.master.get("/master/state");
    let shown = &state["frameworks"][0]["executors"][0];
    assert_eq!(shown["executor_id"], "peer-executor", "{shown}");
    let running = &state["frameworks"][0]["tasks"][0];
    assert_eq!(running["executor_id"], "peer-executor", "{running}");
    let known = bench.master.call(&json!({"type": "GET_EXECUTORS"}));
    let known = &known["get_executors"]["executors"][0];
    assert_eq!(known["executor_info"]["type"], "CUSTOM", "{known}");

    scheduler.kill("t-stay");
    scheduler.wait_state("t-stay", TaskState::TaskKilled);
    let teardown = scheduler::Call::default();
    scheduler.call(call::Type::Teardown, teardown);
    wait_for("a SHUTDOWN", || {
        let rows = bench.rows();
        match rows.last() {
            Some(row) if row["event"]["type"] == "SHUTDOWN" => Ok(()),
            last => Err(format!("{last:?}")),
        }
    });

    let recorded = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/recordings/events/executor-log.json"
    );
    let recorded = fs::read(recorded).expect("the recording");
    let recorded: Value = serde_json::from_slice(&recorded).expect("JSON");
    let (expected, acknowledged) = split(recorded["rows"].as_array().expect("rows"));
    let (order, seen) = split(&bench.rows());
    for (at, (row, expected)) in order.iter().zip(&expected).enumerate() {
        assert_eq!(row, expected, "row {at}");
    }
    assert_eq!(order.len(), expected.len());
    for id in first.map(|(id, _)| id) {
        let of = |all: &[Value]| all.iter().filter(|task| **task == id).count();
        assert_eq!(of(&seen), of(&acknowledged), "{id}");
    }
    bench.end();
}

#[test]
fn an_executor_and_its_tasks_survive_the_agent() {
    let mut bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, framework("e2e", true));
    let go_on = bench.scratch.path().join("go-on");
    let wait = format!("sh while [ ! -e {} ]; do sleep 0.05; done", go_on.display());
    let tasks = vec![bench.task("waits", &wait), bench.task("stays", "run")];
    let offer = scheduler.launch(tasks);
    let pid = |status: v1::TaskStatus| status.container_status.and_then(|c| c.executor_pid);
    let before = pid(scheduler.wait_state("stays", TaskState::TaskRunning));
    scheduler.wait_state("waits", TaskState::TaskRunning);
    let agent = bench.agent.take().expect("it runs");
    let port = agent.address.port();
    agent.kill();
    // It ends while there is no agent to be told.
    fs::write(&go_on, "").expect("the scratch folder");
    wait_for("the end of the task in the executor", || {
        let ended = |row: &Value| row["call"]["update"]["status"]["state"] == "TASK_FINISHED";
        bench.rows().iter().any(ended).then_some(()).ok_or("runs")
    });
    bench.agent = Some(bench.start_agent(port, &[]));
    let finished = scheduler.wait_state("waits", TaskState::TaskFinished);
    assert_eq!(pid(finished), before);

    // The same process goes on with more.
    scheduler.call(
        call::Type::Message,
        message(&offer.agent_id, "still there?"),
    );
    let said = other(&mut scheduler, "an answer", |event| event.message.clone());
    assert_eq!(said.data, "still there?");
    scheduler.launch(vec![bench.task("more", "finish")]);
    let finished = scheduler.wait_state("more", TaskState::TaskFinished);
    assert_eq!(pid(finished), before);
    scheduler.kill("stays");
    scheduler.wait_state("stays", TaskState::TaskKilled);
    // An acknowledgement that the agent did not live to hear of is asked for again, nothing else.
    for (task, updates) in &scheduler.updates {
        let uuids: BTreeSet<&[u8]> = updates.iter().map(v1::TaskStatus::uuid).collect();
        assert_eq!(uuids.len(), 2, "{task}: {updates:?}");
    }
    bench.end();
}

#[test]
fn without_checkpoint_an_executor_ends_with_the_agent() {
    let mut bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, framework("e2e", false));
    scheduler.launch(vec![bench.task("lost", "run")]);
    scheduler.wait_state("lost", TaskState::TaskRunning);
    bench.restart_agent();
    scheduler.wait_state("lost", TaskState::TaskLost);
    // Its id is free for another.
    scheduler.launch(vec![bench.task("next", "finish")]);
    scheduler.wait_state("next", TaskState::TaskFinished);
    bench.end();
}

#[test]
fn a_drain_reaches_the_executor() {
    let bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, framework("e2e", true));
    let offer = scheduler.launch(vec![bench.task("t-drain", "run")]);
    scheduler.wait_state("t-drain", TaskState::TaskRunning);
    bench
        .master
        .call(&json!({"type": "DRAIN_AGENT", "drain_agent": {
        "agent_id": {"value": offer.agent_id.value},
        "max_grace_period": {"seconds": 10, "nanos": 0}}}));
    let killed = scheduler.wait_state("t-drain", TaskState::TaskKilled);
    assert_eq!(killed.reason(), Reason::AgentDraining);
    let is_kill = |row: &&Value| row["event"]["type"] == "KILL";
    let rows = bench.rows();
    let kill = rows.iter().find(is_kill).expect("a KILL");
    let policy = json!({"grace_period": {"nanoseconds": 10_000_000_000_u64}});
    assert_eq!(kill["event"]["kill"]["kill_policy"], policy, "{kill}");
    // As recorded, an executor without tasks keeps its agent from being drained.
    scheduler.call(call::Type::Shutdown, bench.shutdown(&offer.agent_id));
    wait_for("a drained agent", || {
        let agents = bench.master.call(&json!({"type": "GET_AGENTS"}));
        let drain = agents["get_agents"]["agents"][0]["drain_info"]["state"].clone();
        if drain == "DRAINED" {
            Ok(())
        } else {
            Err(drain)
        }
    });
    bench.end();
}

#[test]
fn an_executor_finds_the_agent_at_a_socket() {
    let flags = ["--http_executor_domain_sockets"];
    let mut bench = Bench::with(&flags);
    let mut scheduler = Scheduler::subscribe(bench.master.address, framework("e2e", true));
    let environment = bench.scratch.path().join("environment");
    let env = format!("env {}", environment.display());
    scheduler.launch(vec![bench.task("env", &env)]);
    scheduler.wait_state("env", TaskState::TaskRunning);
    let environment: Value = wait_for("the environment", || {
        let text = fs::read(&environment).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    });
    let socket = bench.scratch.path().join("agent.run/agent.sock");
    let told = environment["MESOS_DOMAIN_SOCKET"].as_str();
    assert_eq!(told, socket.to_str());
    // A killed agent leaves its socket; the next one is there in its place.
    let agent = bench.agent.take().expect("it runs");
    let port = agent.address.port();
    agent.kill();
    assert!(socket.exists());
    bench.agent = Some(bench.start_agent(port, &flags));
    scheduler.kill("env");
    scheduler.wait_state("env", TaskState::TaskKilled);
    scheduler.launch(vec![bench.task("more", "finish")]);
    scheduler.wait_state("more", TaskState::TaskFinished);
    let agent = bench.agent.take().expect("it runs");
    agent.stop(Signal::SIGUSR1);
    assert!(!socket.exists());
    wait_clean(bench.scratch.path());
}

#[test]
fn executors_that_end() {
    let bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, framework("e2e", true));
    let environment = bench.scratch.path().join("environment");
    let env = format!("env {}", environment.display());
    scheduler.launch(vec![bench.task("env", &env), bench.task("stays", "run")]);
    scheduler.wait_state("stays", TaskState::TaskRunning);
    let environment: Value = wait_for("the environment", || {
        let text = fs::read(&environment).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    });
    let agent = bench.agent.as_ref().expect("it runs").address.to_string();
    let expected = [
        ("MESOS_EXECUTOR_ID", "peer-executor"),
        ("MESOS_FRAMEWORK_ID", &scheduler.id.value),
        ("MESOS_AGENT_ENDPOINT", &agent),
        ("MESOS_SLAVE_PID", &format!("slave(1)@{agent}")),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
        ("LIBPROCESS_PORT", "0"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ];
    for (name, value) in expected {
        assert_eq!(environment[name], value, "{name}");
    }
    assert_eq!(environment["MESOS_SANDBOX"], environment["MESOS_DIRECTORY"]);

    // It exits by itself: its tasks have failed, and the framework hears of it.
    let offer = scheduler.launch(vec![bench.task("exits", "exit 3")]);
    for task in ["env", "stays", "exits"] {
        let failed = scheduler.wait_state(task, TaskState::TaskFailed);
        assert_eq!(failed.reason(), Reason::ExecutorTerminated, "{task}");
    }
    let failure = other(&mut scheduler, "FAILURE", |event| event.failure.clone());
    assert_eq!(failure.status, Some(3 << 8));
    assert_eq!(failure.agent_id.as_ref(), Some(&offer.agent_id));
    let id = failure.executor_id.expect("of an executor");
    assert_eq!(id.value, "peer-executor");

    // A group is told in one event; SHUTDOWN ends its executor.
    scheduler.other.clear();
    let offer = scheduler.wait("an offer with room for all", |scheduler| {
        let room = |offer: &v1::Offer| {
            let mut cpus = offer.resources.iter().filter(|r| r.name == "cpus");
            cpus.any(|r| r.scalar.is_some_and(|scalar| scalar.value >= 1.0))
        };
        let found = scheduler.offers.iter().position(room)?;
        Some(scheduler.offers.remove(found))
    });
    let member = |name: &str| v1::TaskInfo {
        executor: None,
        agent_id: offer.agent_id.clone(),
        ..bench.task(name, "run")
    };
    let mut executor = bench.executor();
    executor.framework_id = Some(scheduler.id.clone());
    // Executors of groups have some, other than those of tasks.
    executor.resources.push(scalar("disk", 1.0));
    let group = v1::offer::operation::LaunchGroup {
        executor,
        task_group: v1::TaskGroupInfo {
            tasks: vec![member("one"), member("two")],
        },
    };
    let accept = call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::LaunchGroup.into()),
            launch_group: Some(group),
            ..Default::default()
        }],
        ..Default::default()
    };
    let accept = scheduler::Call {
        accept: Some(accept),
        ..Default::default()
    };
    scheduler.call(call::Type::Accept, accept);
    for task in ["one", "two"] {
        scheduler.wait_state(task, TaskState::TaskRunning);
    }
    let told = |row: &&Value| row["event"]["type"] == "LAUNCH_GROUP";
    let rows = bench.rows();
    let group = rows.iter().find(told).expect("a LAUNCH_GROUP");
    let tasks = &group["event"]["launch_group"]["task_group"]["tasks"];
    assert_eq!(tasks.as_array().map(Vec::len), Some(2), "{group}");
    scheduler.call(call::Type::Shutdown, bench.shutdown(&offer.agent_id));
    for task in ["one", "two"] {
        let failed = scheduler.wait_state(task, TaskState::TaskFailed);
        assert_eq!(failed.reason(), Reason::ExecutorTerminated, "{task}");
    }
    let failure = other(&mut scheduler, "FAILURE", |event| event.failure.clone());
    assert_eq!(failure.status, Some(0));
    assert!(
        scheduler
            .other
            .iter()
            .all(|event| event.r#type() != event::Type::Error)
    );
    bench.end();
}

#[test]
fn labels_and_discovery_are_shown_of_tasks_and_executors() {
    let bench = Bench::new();
    let mut scheduler = Scheduler::subscribe(bench.master.address, recorded_framework());
    let labels = |value: &str| v1::Labels {
        labels: vec![v1::Label {
            key: "k".to_owned(),
            value: Some(value.to_owned()),
        }],
    };
    let discovery = |name: &str| v1::DiscoveryInfo {
        visibility: v1::discovery_info::Visibility::Cluster.into(),
        name: Some(name.to_owned()),
        environment: Some("test".to_owned()),
        ports: Some(v1::Ports {
            ports: vec![v1::Port {
                number: 31001,
                name: Some("web".to_owned()),
                protocol: Some("tcp".to_owned()),
                ..Default::default()
            }],
        }),
        labels: Some(labels(name)),
        ..Default::default()
    };
    let mut task = bench.task("labelled", "run");
    task.labels = Some(labels("task"));
    task.discovery = Some(discovery("task"));
    let executor = task.executor.as_mut().expect("its own");
    executor.labels = Some(labels("executor"));
    executor.discovery = Some(discovery("executor"));
    scheduler.launch(vec![task]);
    scheduler.wait_state("labelled", TaskState::TaskRunning);

    let shown = |name: &str| {
        let ports = json!({"ports": [{"number": 31001, "name": "web", "protocol": "tcp"}]});
        let labels = json!([{"key": "k", "value": name}]);
        let discovery = json!({
            "visibility": "CLUSTER", "name": name, "environment": "test", "ports": ports,
            "labels": {"labels": labels},
        });
        (labels, discovery)
    };
    let agent = bench.agent.as_ref().expect("it runs");
    let of_master = bench.master.get("/state")["frameworks"][0]["tasks"][0].clone();
    let of_agent = agent.get("/state")["frameworks"][0]["executors"][0].clone();
    for task in [&of_master, &of_agent["tasks"][0]] {
        let (labels, discovery) = shown("task");
        assert_eq!(
            (&task["labels"], &task["discovery"]),
            (&labels, &discovery),
            "{task}"
        );
    }
    // The v0 answer has no discovery of executors, as in Mesos.
    assert_eq!(of_agent["labels"], shown("executor").0);
    for daemon in [&bench.master, agent] {
        let answer = daemon.call(&json!({"type": "GET_EXECUTORS"}));
        let executor = &answer["get_executors"]["executors"][0]["executor_info"];
        let (labels, discovery) = shown("executor");
        assert_eq!(executor["labels"]["labels"], labels);
        assert_eq!(executor["discovery"], discovery);
    }
    let agent_id = scheduler.updates["labelled"][0].agent_id.clone();
    let shutdown = bench.shutdown(&agent_id.expect("an agent"));
    scheduler.call(call::Type::Shutdown, shutdown);
    bench.end();
}
