//! The HTTP layer of real daemons.

use tepui_e2e::{Daemon, Scratch, wait_for};

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
