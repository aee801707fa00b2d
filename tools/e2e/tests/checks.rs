//! Checks and health checks of command tasks, taken by a real agent.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use tepui_e2e::images::certificate;
use tepui_e2e::scheduler::task;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::server::{Page, PageServer};
use tepui_e2e::{Bench, Scheduler};
use tepui_proto::json;
use tepui_proto::v1::environment::Variable;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{CheckInfo, Environment, HealthCheck, TaskInfo, TaskState, TaskStatus};

fn health(text: &str) -> HealthCheck {
    let times =
        r#""delay_seconds":0,"interval_seconds":0.1,"grace_period_seconds":0,"timeout_seconds":5"#;
    json::to_message(format!("{{{text},{times}}}").as_bytes()).expect("a health check")
}

fn check(text: &str) -> CheckInfo {
    let times = r#""delay_seconds":0,"interval_seconds":0.1,"timeout_seconds":1"#;
    json::to_message(format!("{{{text},{times}}}").as_bytes()).expect("a check")
}

/// Waits for an update that has this.
#[track_caller]
fn wait_for(
    scheduler: &mut Scheduler,
    task: &str,
    has: impl Fn(&TaskStatus) -> bool,
) -> TaskStatus {
    scheduler.wait(&format!("an update of {task}"), |scheduler| {
        let updates = scheduler.updates.get(task)?;
        updates.iter().find(|status| has(status)).cloned()
    })
}

fn sleeping(id: &str) -> TaskInfo {
    let mut task = task(id, "touch own; exec sleep 1000", 0.1, 32.0);
    let variable = Variable {
        name: "OWN".to_owned(),
        value: Some("1".to_owned()),
        ..Variable::default()
    };
    task.command.as_mut().expect("set").environment = Some(Environment {
        variables: vec![variable],
    });
    task
}

#[test]
fn health_is_told_and_decides() {
    let bench = Bench::new();
    let server = PageServer::start([("/health", Page::Whole("200 OK", b"fine".into()))]);
    let agent = bench.agent(&[]);
    let port = server.address.port();
    let mut scheduler = bench.scheduler(true);
    let with = |id: &str, text: &str| TaskInfo {
        health_check: Some(health(text)),
        ..sleeping(id)
    };
    let tasks = vec![
        with(
            "http",
            &format!(
                r#""type":"HTTP","http":{{"port":{port},"path":"/health"}},"consecutive_failures":2"#
            ),
        ),
        with("tcp", &format!(r#""type":"TCP","tcp":{{"port":{port}}}"#)),
        // Where the task works, and with its environment.
        with(
            "command",
            r#""type":"COMMAND","command":{"value":"test -e own -a \"$OWN\" = 1"},"consecutive_failures":100"#,
        ),
        with(
            "refused",
            r#""type":"TCP","tcp":{"port":1,"protocol":"IPv6"},"consecutive_failures":1"#,
        ),
    ];
    scheduler.launch(tasks);
    for id in ["http", "tcp", "command"] {
        let healthy = wait_for(&mut scheduler, id, |status| status.healthy == Some(true));
        assert_eq!(healthy.reason(), Reason::TaskHealthCheckStatusUpdated);
    }
    server.set("/health", Page::Whole("500 Oops", b"not fine".into()));
    for id in ["http", "refused"] {
        let killed = scheduler.wait_state(id, TaskState::TaskKilled);
        assert_eq!(killed.healthy, Some(false), "{id}");
        assert_eq!(
            killed.message(),
            "Command terminated with signal Terminated"
        );
    }
    for id in ["tcp", "command"] {
        scheduler.kill(id);
        let killed = scheduler.wait_state(id, TaskState::TaskKilled);
        assert_eq!(killed.healthy, None, "{id} was not killed for its health");
    }
    // Looks leave no sandboxes behind.
    let slaves = bench.scratch.path().join("agent");
    let left = std::process::Command::new("find")
        .arg(slaves)
        .args(["-name", "check-*"])
        .output();
    assert_eq!(
        String::from_utf8_lossy(&left.expect("find runs").stdout),
        ""
    );
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

/// A server that speaks TLS, with a certificate that nobody has reason to trust: OpenSSL's own.
struct TlsServer {
    openssl: Child,
    port: u16,
}

impl TlsServer {
    fn start(dir: &std::path::Path) -> Self {
        let (certificate, key) = certificate(dir, "server");
        let mut openssl = std::process::Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut lines = BufReader::new(openssl.stdout.take().expect("is piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let at = line.strip_prefix("ACCEPT 127.0.0.1:")?;
            at.trim().parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.expect("it says where it listens");
        Self { openssl, port }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

#[test]
fn health_is_asked_by_https_whatever_the_certificate() {
    let bench = Bench::new();
    let server = TlsServer::start(bench.scratch.path());
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let with = |id: &str, scheme: &str| TaskInfo {
        health_check: Some(health(&format!(
            r#""type":"HTTP","http":{{"scheme":"{scheme}","port":{},"path":"/"}},"consecutive_failures":2"#,
            server.port
        ))),
        ..sleeping(id)
    };
    scheduler.launch(vec![with("https", "https"), with("http", "http")]);
    let healthy = wait_for(&mut scheduler, "https", |status| {
        status.healthy == Some(true)
    });
    assert_eq!(healthy.reason(), Reason::TaskHealthCheckStatusUpdated);
    // The same port without TLS answers nobody.
    let killed = scheduler.wait_state("http", TaskState::TaskKilled);
    assert_eq!(killed.healthy, Some(false));
    drop(server);
    let killed = scheduler.wait_state("https", TaskState::TaskKilled);
    assert_eq!(killed.healthy, Some(false));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn checks_report_and_go_on_with_the_next_agent() {
    let bench = Bench::new();
    let server = PageServer::start([("/there", Page::Whole("204 No Content", Vec::new()))]);
    let agent = bench.agent(&[]);
    let (port, page) = (agent.address.port(), server.address.port());
    let mut scheduler = bench.scheduler(true);
    let with = |id: &str, text: &str| TaskInfo {
        check: Some(check(text)),
        ..sleeping(id)
    };
    scheduler.launch(vec![
        with(
            "http",
            &format!(r#""type":"HTTP","http":{{"port":{page},"path":"/there"}}"#),
        ),
        with("tcp", r#""type":"TCP","tcp":{"port":1}"#),
        with(
            "command",
            r#""type":"COMMAND","command":{"command":{"value":"exit 7"}}"#,
        ),
        with(
            "slow",
            r#""type":"COMMAND","command":{"command":{"value":"touch begun; sleep 1000"}}"#,
        ),
    ]);
    let status = |status: &TaskStatus| status.check_status.unwrap_or_default();
    wait_for(&mut scheduler, "http", |s| {
        status(s)
            .http
            .is_some_and(|http| http.status_code == Some(204))
    });
    wait_for(&mut scheduler, "tcp", |s| {
        status(s)
            .tcp
            .is_some_and(|tcp| tcp.succeeded == Some(false))
    });
    wait_for(&mut scheduler, "command", |s| {
        status(s).command.is_some_and(|c| c.exit_code == Some(7))
    });
    agent.kill();
    server.set("/there", Page::Whole("503 Later", Vec::new()));
    let agent = bench.agent_at(port, &[]);
    wait_for(&mut scheduler, "http", |s| {
        status(s)
            .http
            .is_some_and(|http| http.status_code == Some(503))
    });
    for id in ["http", "tcp", "command", "slow"] {
        scheduler.kill(id);
        let killed = scheduler.wait_state(id, TaskState::TaskKilled);
        assert!(
            killed.check_status.is_some(),
            "every update of a task with a check has it"
        );
    }
    let slow = &scheduler.updates["slow"];
    let told = slow
        .iter()
        .filter(|status| status.reason() == Reason::TaskCheckStatusUpdated);
    assert_eq!(told.count(), 0, "a check that is never over has no result");
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}
