//! Metrics of real daemons, read by the parser of Prometheus' own client.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tepui_e2e::scheduler::framework;
use tepui_e2e::{Daemon, Scheduler, Scratch, python, wait_for};

/// Type and series (labels and value) by name.
type Families = BTreeMap<String, (String, Vec<(BTreeMap<String, String>, f64)>)>;

fn parse(text: &str) -> Families {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/read_metrics.py");
    let mut parser = Command::new(python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter runs");
    let mut input = parser.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = parser.wait_with_output().expect("it ends");
    assert!(output.status.success(), "not understood:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn value(families: &Families, name: &str) -> f64 {
    let (_, series) = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(series.len(), 1, "{name}");
    series[0].1
}

#[test]
fn prometheus_reads_both_daemons() {
    let scratch = Scratch::new();
    let exporter = "--exporters=prometheus";
    let master = Daemon::master(scratch.path(), &[exporter]);
    let resources = "--resources=cpus:2;mem:1024;disk:1024;ports:[]";
    let agent = Daemon::agent(
        scratch.path(),
        "agent",
        master.address,
        &[resources, exporter],
    );
    let _scheduler = Scheduler::subscribe(master.address, framework("watched", false));
    let families = wait_for("agent and framework in the metrics", || {
        let families = parse(&master.get_text("/metrics"));
        let there = [
            "mesos_master_slaves_active",
            "mesos_master_frameworks_active",
        ];
        let there = there.map(|name| value(&families, name));
        if there == [1.0, 1.0] {
            Ok(families)
        } else {
            Err(there)
        }
    });
    assert_eq!(value(&families, "mesos_master_cpus_total"), 2.0);
    assert_eq!(families["mesos_master_slave_registrations"].0, "counter");
    let (_, calls) = &families["mesos_master_frameworks_calls"];
    let subscribed = calls
        .iter()
        .find(|(labels, _)| labels["call"] == "subscribe");
    let (labels, n) = subscribed.expect("a series of SUBSCRIBE");
    assert_eq!((labels["framework"].as_str(), *n), ("watched", 1.0));

    // What Mesos' endpoint tells is all there.
    let snapshot: Value =
        serde_json::from_str(&master.get_text("/metrics/snapshot")).expect("JSON");
    let names = snapshot.as_object().expect("an object").len();
    let series: usize = families.values().map(|(_, series)| series.len()).sum();
    assert!(
        series > names * 9 / 10,
        "{series} series of {names} metrics"
    );

    let families = parse(&agent.get_text("/metrics"));
    assert_eq!(value(&families, "mesos_slave_registered"), 1.0);
}

/// Manifests in the form of Mesos, read in the order of their names.
#[test]
fn modules_are_configured_by_a_directory_of_manifests() {
    let scratch = Scratch::new();
    let manifests = scratch.path().join("manifests");
    std::fs::create_dir(&manifests).expect("the scratch folder");
    let manifest = |path: &str| {
        let module =
            json!({ "name": "prometheus", "parameters": [{ "key": "path", "value": path }] });
        json!({ "libraries": [{ "modules": [module] }] }).to_string()
    };
    std::fs::write(manifests.join("10-metrics"), manifest("/numbers")).expect("the scratch folder");
    let flag = format!("--modules_dir={}", manifests.display());
    let flags = ["--exporters=prometheus", &flag];
    let master = Daemon::master(scratch.path(), &flags);
    assert!(master.get_text("/numbers").contains("# TYPE mesos_"));
    assert_eq!(master.get_text("/metrics"), "404 Not Found.");
    drop(master);

    std::fs::write(manifests.join("20-again"), manifest("/again")).expect("the scratch folder");
    let refused = Daemon::master_command(scratch.path(), &flags)
        .output()
        .expect("it starts");
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr);
    let first = told.find("10-metrics").expect("the first file's name");
    assert!(
        told[first..].contains("20-again") && told.contains("prometheus"),
        "{told}"
    );
}

#[test]
fn nothing_is_exported_without_an_exporter() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    assert_eq!(master.get_text("/metrics"), "404 Not Found.");
}

#[test]
fn endpoints_are_hidden_by_their_path() {
    let scratch = Scratch::new();
    let acls =
        r#"--acls={"get_endpoints":[{"principals":{"type":"ANY"},"paths":{"type":"NONE"}}]}"#;
    let master = Daemon::master(scratch.path(), &["--exporters=prometheus", acls]);
    assert_eq!(master.get_text("/metrics/snapshot"), "");
    assert_eq!(master.get_text("/metrics"), "");
    assert_eq!(master.get_text("/tepui/v1/modules"), "");
}
