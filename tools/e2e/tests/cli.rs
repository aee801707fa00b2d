//! What operators do with `tepui`: agents, maintenance, reservations, volumes, quota and weights.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Cluster, Daemon, Scheduler, Scratch, bin, tepui, wait_for};
use tepui_proto::v1::TaskState;

/// What a command says that succeeds.
#[track_caller]
fn says(master: SocketAddr, args: &[&str]) -> String {
    let output = tepui(master, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a command says that fails.
#[track_caller]
fn refused(master: SocketAddr, args: &[&str]) -> String {
    let output = tepui(master, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// The cells of the row that begins with this.
#[track_caller]
fn row(table: &str, first: &str) -> Vec<String> {
    let row = table.lines().find(|line| line.starts_with(first));
    let row = row.unwrap_or_else(|| panic!("no {first} in {table}"));
    row.split("  ")
        .filter(|cell| !cell.is_empty())
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// The ids of this many agents, as the master numbers them.
fn ids(master: SocketAddr, count: usize) -> Vec<String> {
    wait_for("the agents", || {
        let agents: Value =
            serde_json::from_str(&says(master, &["agent", "list", "--json"])).expect("JSON");
        let agents = agents["get_agents"]["agents"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ids = agents
            .iter()
            .map(|agent| agent["agent_info"]["id"]["value"].as_str().expect("an id"));
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        ids.sort();
        if ids.len() == count {
            Ok(ids)
        } else {
            Err(ids)
        }
    })
}

/// A leading master, and agents that may end: with `tepui local` the cluster ends with each of them.
fn daemons(dir: &Path, agents: &[&str]) -> (Daemon, Vec<Daemon>) {
    let master = Daemon::master(dir, &[]);
    wait_for("a leader", || {
        let output = tepui(master.address, &["agents"]);
        if output.status.success() {
            Ok(())
        } else {
            Err(output)
        }
    });
    let start = |name: &&str| {
        Daemon::agent(
            dir,
            name,
            master.address,
            &["--resources=cpus:4;mem:2048;disk:1000"],
        )
    };
    let agents = agents.iter().map(start).collect();
    (master, agents)
}

#[test]
fn agents_are_drained_and_put_back_into_service() {
    let scratch = Scratch::new();
    let (daemon, _agents) = daemons(scratch.path(), &["one", "two"]);
    let master = daemon.address;
    let [first, second] = &ids(master, 2)[..] else {
        panic!("two agents")
    };
    let mut scheduler = Scheduler::subscribe(master, framework("e2e", false));
    // A task that takes its time to end: the drain has something to wait for.
    let stays = "trap 'echo ends; sleep 1; exit 1' TERM; echo runs; while :; do sleep 0.1; done";
    let offer = scheduler.launch(vec![task("stays", stays, 0.1, 32.0)]);
    scheduler.wait_state("stays", TaskState::TaskRunning);
    let here = &offer.agent_id.value;
    let number = here.rsplit_once('-').expect("master-S0").1;
    let shown = says(master, &["agent", "show", number]);
    assert!(
        shown.contains(&format!("id            {here}\n")),
        "{shown}"
    );
    assert_eq!(row(&shown, "stays")[2], "TASK_RUNNING");
    // One that is not there does not keep the other from draining.
    let mut drain = Command::new(bin("tepui"));
    drain
        .args([
            "agent",
            "drain",
            number,
            "nothing",
            "--grace",
            "30s",
            "--wait",
            "--timeout",
            "1m",
        ])
        .env("TEPUI_MASTER", master.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut drain = drain.spawn().expect("the command starts");
    let mut told = BufReader::new(drain.stderr.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let unknown = told.next().expect("it tells of one");
    assert!(
        unknown.starts_with("tepui: nothing: no agent \"nothing\" is registered"),
        "{unknown}"
    );
    assert_eq!(told.next(), Some(format!("{here} drains: 1 task left")));
    scheduler.wait_state("stays", TaskState::TaskKilled);
    assert_eq!(told.last().as_deref(), Some("tepui: 1 of 2 failed"));
    let output = drain.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "one of two failed");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{here} is drained\n")
    );
    assert_eq!(row(&says(master, &["agents"]), here)[3], "drained");
    says(master, &["agent", "reactivate", here]);
    assert_eq!(row(&says(master, &["agents"]), here)[3], "active");

    says(master, &["agent", "deactivate", first, second]);
    let listed = says(master, &["agents"]);
    assert_eq!(row(&listed, first)[3], "deactivated");
    assert_eq!(row(&listed, second)[3], "deactivated");
    says(master, &["agent", "reactivate", "S0", "S1"]);

    assert!(refused(master, &["agent", "gone", "S1"]).contains("say --yes"));
    ids(master, 2);
    says(master, &["agent", "gone", "S1", "--yes"]);
    assert_eq!(ids(master, 1), std::slice::from_ref(first));
    let again = refused(master, &["agent", "drain", second]);
    assert!(again.contains("DRAIN_AGENT at the master"), "{again}");
    assert!(again.contains("400 Bad Request: "), "{again}");
}

#[test]
fn a_machine_goes_through_its_maintenance() {
    let scratch = Scratch::new();
    let (daemon, _agents) = daemons(scratch.path(), &["agent"]);
    let master = daemon.address;
    let id = &ids(master, 1)[0];
    let agent = says(master, &["agent", "show", "S0", "--json"]);
    let agent: Value = serde_json::from_str(&agent).expect("JSON");
    let machine = format!(
        "{}/127.0.0.1",
        agent["agent_info"]["hostname"].as_str().expect("a name")
    );
    let maintenance = |args: &[&str]| says(master, &[&["maintenance"], args].concat());
    let said = maintenance(&[
        "schedule",
        id,
        "--start",
        "2026-11-30T22:00:00Z",
        "--duration",
        "90m",
    ]);
    assert!(
        said.starts_with(&format!("{machine} is scheduled for 2026-1")),
        "{said}"
    );
    assert_eq!(row(&maintenance(&["show"]), &machine)[2], "1h30m");
    let shown: Value = serde_json::from_str(&maintenance(&["show", "--json"])).expect("JSON");
    let window = &shown["get_maintenance_schedule"]["schedule"]["windows"][0]["unavailability"];
    assert_eq!(
        window["start"]["nanoseconds"],
        1_796_076_000_000_000_000_i64
    );
    // Another machine comes beside it, and it gets another time.
    maintenance(&["schedule", "other/10.9.9.9", "--start", "+2h"]);
    maintenance(&["schedule", "S0", "--start", "now", "--duration", "2h"]);
    let table = maintenance(&["show"]);
    assert_eq!(row(&table, "other/10.9.9.9")[2], "for ever");
    assert_eq!(row(&table, &machine)[2], "2h");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(row(&maintenance(&["status"]), &machine)[1], "draining");

    maintenance(&["down", &machine]);
    assert_eq!(row(&maintenance(&["status"]), &machine)[1], "down");
    let twice = refused(master, &["maintenance", "down", &machine]);
    assert!(
        twice.contains("START_MAINTENANCE") && twice.contains("400 Bad Request"),
        "{twice}"
    );
    wait_for("the end of the agent", || {
        let agents = says(master, &["agents"]);
        if agents.contains(id.as_str()) {
            Err(agents)
        } else {
            Ok(())
        }
    });
    // Its agent is gone; the host name says enough.
    let host = machine.split('/').next().expect("a name");
    assert_eq!(maintenance(&["up", host]), format!("{machine} is up\n"));
    maintenance(&["unschedule", "other/10.9.9.9"]);
    assert_eq!(maintenance(&["show"]).lines().count(), 1);
    let off = refused(master, &["maintenance", "unschedule", "other/10.9.9.9"]);
    assert!(off.contains("is not on the schedule"), "{off}");
    let file = scratch.path().join("schedule.json");
    let window = json!({"machine_ids": [{"hostname": "x"}], "unavailability": {"start": {"nanoseconds": 5}}});
    std::fs::write(&file, json!({"windows": [window]}).to_string()).expect("own folder");
    maintenance(&["schedule", "--file", file.to_str().expect("text")]);
    assert_eq!(row(&maintenance(&["show"]), "x/")[2], "for ever");
}

#[test]
fn reservations_and_volumes_come_and_go() {
    let cluster = Cluster::start(&[]);
    let master = cluster.address();
    let id = &ids(master, 1)[0];
    let reserve = [
        "reserve",
        "S0",
        "cpus:1;disk:400",
        "--role",
        "ops",
        "--principal",
        "ann",
        "--label",
        "a=b",
    ];
    let said = says(master, &reserve);
    assert!(
        said.contains("disk(reservations: [(DYNAMIC,ops,ann,{a: b})]):400"),
        "{said}"
    );
    let create = [
        "volumes", "create", "S0", "data", "--role", "ops", "--size", "100MB", "--path", "d",
    ];
    says(master, &create);
    let listed = |volume: &str| {
        let table = says(master, &["volumes", "list"]);
        table
            .lines()
            .find(|line| line.contains(volume))
            .map(|_| row(&table, id))
    };
    assert_eq!(
        listed("data").expect("it is there")[1..],
        ["data", "ops", "100", "d", "no", "no"]
    );
    let grown = says(master, &["volumes", "grow", "S0", "data", "--by", "50MB"]);
    assert_eq!(grown, format!("volume data on {id} has 150 MB now\n"));
    says(
        master,
        &["volumes", "shrink", "S0", "data", "--by", "120MB"],
    );
    assert_eq!(listed("data").expect("it is there")[3], "30");
    let json: Value =
        serde_json::from_str(&says(master, &["volumes", "list", "--json"])).expect("JSON");
    assert_eq!(
        json[0]["volume"]["disk"]["persistence"],
        json!({"id": "data", "principal": "ann"})
    );
    let large = refused(
        master,
        &[
            "volumes", "create", "S0", "x", "--role", "ops", "--size", "1GB",
        ],
    );
    assert!(
        large.contains("disk:1024 is not among what is reserved to role \"ops\""),
        "{large}"
    );
    // What the master refuses is told in its words.
    let twice = refused(master, &create);
    assert!(
        twice.contains("CREATE_VOLUMES at the master") && twice.contains("400 Bad Request"),
        "{twice}"
    );

    says(master, &["volumes", "destroy", "S0", "data"]);
    assert_eq!(listed("data"), None);
    says(master, &["unreserve", "S0", "cpus:0.5", "--role", "ops"]);
    let agent = |field: &str| {
        let shown = says(master, &["agent", "show", "S0"]);
        row(&shown, field)[1].clone()
    };
    assert!(agent("resources").contains("cpus(reservations: [(DYNAMIC,ops,ann,{a: b})]):0.5"));
    says(master, &["unreserve", "S0", "--role", "ops"]);
    assert!(
        !agent("resources").contains("reservations"),
        "{}",
        agent("resources")
    );
    let nothing = refused(master, &["unreserve", "S0", "--role", "ops"]);
    assert!(
        nothing.contains("nothing is reserved to role \"ops\""),
        "{nothing}"
    );
}

#[test]
fn roles_have_quota_and_weights() {
    let cluster = Cluster::start(&[]);
    let master = cluster.address();
    says(
        master,
        &[
            "quota",
            "set",
            "a",
            "--limit",
            "cpus:2;mem:512",
            "--guarantee",
            "cpus:1",
            "--force",
        ],
    );
    says(master, &["weights", "set", "a=2.5", "b=3"]);
    assert_eq!(
        row(&says(master, &["quota", "show"]), "a"),
        ["a", "cpus:1", "cpus:2; mem:512"]
    );
    assert_eq!(row(&says(master, &["weights", "show"]), "b"), ["b", "3"]);
    let roles = says(master, &["roles"]);
    assert_eq!(
        row(&roles, "a"),
        ["a", "2.5", "0", "cpus:1", "cpus:2; mem:512"]
    );
    let over = refused(
        master,
        &[
            "quota",
            "set",
            "a",
            "--limit",
            "cpus:1",
            "--guarantee",
            "cpus:2",
        ],
    );
    assert!(
        over.contains("UPDATE_QUOTA at the master") && over.contains("400 Bad Request"),
        "{over}"
    );
    let some = refused(master, &["quota", "remove", "none", "a"]);
    assert!(some.contains("tepui: none: it has no quota"), "{some}");
    assert!(some.contains("1 of 2 failed"), "{some}");
    assert_eq!(says(master, &["quota", "show"]).lines().count(), 1);
    assert!(refused(master, &["weights", "set", "a=-1"]).contains("400 Bad Request"));
}

#[test]
fn every_isolator_is_known_to_the_doctor_and_to_its_page() {
    let output = |args: &[&str]| {
        let mut tepui = Command::new(bin("tepui"));
        let output = tepui.args(args).output().expect("it starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let list = output(&["module", "list"]);
    let rows = list.lines().filter(|line| line.starts_with("isolator "));
    // The module of all cgroups, and the name for as many of them as there are, are no isolators of their own.
    let is_version = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    let words = rows.flat_map(|row| {
        let words = row.split_whitespace().skip(1);
        words.take_while(move |word| !is_version(word))
    });
    let names: Vec<&str> = words
        .filter(|name| !["cgroups", "cgroups/all"].contains(name))
        .collect();
    let doctor: Value =
        serde_json::from_str(&output(&["agent", "doctor", "--json"])).expect("JSON");
    let verdicts = doctor["isolators"].as_array().expect("a list");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ISOLATORS.md");
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(names.len() > 20, "{list}");
    for name in names {
        let known = verdicts.iter().any(|verdict| verdict["isolator"] == name);
        assert!(known, "{name} is not in the doctor's list");
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not on the page"
        );
    }
}
