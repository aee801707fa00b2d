//! The HTTP layer of real daemons.

use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::TaskState;
use tepui_proto::v1::scheduler::{Call, call::Type};

#[test]
fn disabled_endpoints_are_forbidden_and_requests_are_logged() {
    let scratch = Scratch::new();
    let rules = r#"--firewall_rules={"disabled_endpoints":{"paths":["/master/state","/files/browse","/slave(1)/containers"]}}"#;
    let master = Daemon::master(scratch.path(), &[rules]);
    for path in [
        "/state",
        "/master/state",
        "/master/state/?jsonp=f",
        "/master//state/more",
    ] {
        let text = "Endpoint '/master/state' is disabled";
        assert_eq!(master.get_text(path), text, "{path}");
    }
    assert_eq!(
        master.get_text("/files/browse?path=/"),
        "Endpoint '/files/browse' is disabled"
    );
    assert!(master.get("/master/flags")["flags"]["firewall_rules"].is_string());

    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[rules]);
    assert_eq!(
        agent.get_text("/containers"),
        "Endpoint '/slave(1)/containers' is disabled"
    );
    assert!(agent.get("/state")["id"].is_string());
    wait_for("the access log", || {
        let log = agent.log();
        let line = log
            .lines()
            .find(|line| line.contains("HTTP GET for /containers from 127.0.0.1:"));
        match line {
            Some(line) if line.contains(": 403 with ") && line.contains("request=") => Ok(()),
            _ => Err(log),
        }
    });
}

/// Two agents run the same task: one shows it to everybody, the ACLs of the other to nobody.
#[test]
fn acls_of_an_agent_hide_what_runs_on_it() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let none =
        |kind: &str| serde_json::json!([{"principals": {"type": "ANY"}, kind: {"type": "NONE"}}]);
    let acls = serde_json::json!({
        "get_endpoints": [
            {"principals": {"type": "ANY"}, "paths": {"values": ["/metrics/snapshot"]}},
            {"principals": {"type": "ANY"}, "paths": {"type": "NONE"}},
        ],
        "set_log_level": none("level"),
        "view_flags": none("flags"),
        "view_tasks": none("users"),
        "access_sandboxes": none("users"),
    });
    let acls = format!("--acls={acls}");
    let (mut seen, mut levels) = (Vec::new(), Vec::new());
    for (name, flags) in [("open", &[][..]), ("closed", &[acls.as_str()][..])] {
        let flags = [&["--resources=cpus:1;mem:256;disk:256;ports:[]"], flags].concat();
        let agent = Daemon::agent(scratch.path(), name, master.address, &flags);
        let mut scheduler = Scheduler::subscribe(master.address, framework(name, false));
        scheduler.launch(vec![task("t", "sleep 1000", 0.1, 32.0)]);
        scheduler.wait_state("t", TaskState::TaskRunning);
        let state = agent.get("/state");
        let executor = &state["frameworks"][0]["executors"][0];
        let sandbox = executor["directory"].as_str().expect("a sandbox");
        let tasks = agent.call(&serde_json::json!({"type": "GET_TASKS"}));
        let tasks = tasks.pointer("/get_tasks/launched_tasks");
        seen.push([
            executor["tasks"].as_array().expect("tasks").len() == 1,
            state["flags"].is_object(),
            tasks
                .and_then(|tasks| tasks.as_array())
                .is_some_and(|tasks| tasks.len() == 1),
            agent
                .get_text(&format!("/files/browse?path={sandbox}"))
                .contains("stdout"),
            agent.get_text("/containers").starts_with('['),
            agent.get_text("/flags").starts_with('{'),
            agent
                .get_text("/tepui/v1/modules")
                .starts_with(r#"{"modules":[{"#),
            agent.get("/metrics/snapshot")["slave/tasks_running"] == 1.0,
        ]);
        let level = serde_json::json!({"level": 1, "duration": {"nanoseconds": 1_000_000}});
        let call = serde_json::json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": level});
        levels.push(agent.status_of(&call));
        scheduler.call(Type::Teardown, Call::default());
    }
    assert_eq!(levels, [200, 403]);
    assert_eq!(seen[0], [true; 8]);
    assert_eq!(
        seen[1],
        [false, false, false, false, false, false, false, true]
    );
}
