//! What isolators do to the tasks of a real agent, as the tasks see it.

use std::fs;

use nix::sys::signal::Signal;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch};
use tepui_proto::v1::{self, TaskState};

/// Writes what a task prints into a file that the test knows.
fn reporting(scratch: &Scratch, id: &str, command: &str) -> v1::TaskInfo {
    let path = scratch.path().join(id);
    task(id, &format!("({command}) > {}", path.display()), 0.1, 32.0)
}

fn report(scratch: &Scratch, id: &str) -> String {
    fs::read_to_string(scratch.path().join(id)).expect("the task has written it")
}

#[test]
fn tasks_have_the_limits_capabilities_filters_and_secrets_they_ask_for() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let profiles = scratch.path().join("profiles");
    fs::create_dir(&profiles).expect("the scratch folder");
    fs::write(
        profiles.join("no-links.json"),
        r#"{ "defaultAction": "SCMP_ACT_ALLOW",
             "syscalls": [{ "names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO" }] }"#,
    )
    .expect("the scratch folder");
    let flags = [
        "--isolation=posix/rlimits,linux/capabilities,linux/nnp,linux/seccomp",
        r#"--bounding_capabilities={"capabilities":["CHOWN","KILL"]}"#,
        &format!("--seccomp_config_dir={}", profiles.display()),
    ];
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let mut confined = reporting(
        &scratch,
        "confined",
        "ulimit -n; ln -s x l 2>&1; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status",
    );
    confined.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        rlimit_info: Some(v1::RLimitInfo {
            rlimits: vec![v1::r_limit_info::RLimit {
                r#type: Some(v1::r_limit_info::r_limit::Type::RlmtNofile.into()),
                hard: Some(77),
                soft: Some(77),
            }],
        }),
        linux_info: Some(v1::LinuxInfo {
            effective_capabilities: Some(v1::CapabilityInfo {
                capabilities: vec![v1::capability_info::Capability::Kill.into()],
            }),
            seccomp: Some(v1::SeccompInfo {
                profile_name: Some("no-links.json".to_owned()),
                unconfined: None,
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let mut greedy = task("greedy", "true", 0.1, 32.0);
    greedy.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        linux_info: Some(v1::LinuxInfo {
            effective_capabilities: Some(v1::CapabilityInfo {
                capabilities: vec![v1::capability_info::Capability::SysAdmin.into()],
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let mut secretive = reporting(&scratch, "secretive", "echo \"$PLAIN:$HIDDEN\"");
    let command = secretive.command.as_mut().expect("set");
    let variable = |name: &str| v1::environment::Variable {
        name: name.to_owned(),
        ..Default::default()
    };
    command.environment = Some(v1::Environment {
        variables: vec![
            v1::environment::Variable {
                value: Some("seen".to_owned()),
                ..variable("PLAIN")
            },
            v1::environment::Variable {
                r#type: Some(v1::environment::variable::Type::Secret.into()),
                secret: Some(v1::Secret {
                    r#type: Some(v1::secret::Type::Value.into()),
                    value: Some(v1::secret::Value {
                        data: b"pass word".to_vec().into(),
                    }),
                    reference: None,
                }),
                ..variable("HIDDEN")
            },
        ],
    });
    scheduler.launch(vec![confined, greedy, secretive]);
    scheduler.wait_state("secretive", TaskState::TaskFinished);
    assert_eq!(report(&scratch, "secretive"), "seen:pass word\n");
    assert!(!agent.log().contains("pass word") && !master.log().contains("pass word"));
    for daemon in [&agent, &master] {
        let seen = daemon
            .call(&serde_json::json!({ "type": "GET_STATE" }))
            .to_string();
        assert!(
            seen.contains("secretive") && !seen.contains("cGFzcyB3b3Jk"),
            "{seen}"
        );
    }
    scheduler.wait_state("confined", TaskState::TaskFinished);
    let kill = format!("{:016x}", 1 << 5);
    let most = format!("{:016x}", 1 << 5 | 1);
    assert_eq!(
        report(&scratch, "confined"),
        format!(
            "77\nln: failed to create symbolic link 'l': Operation not permitted\n\
             CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t{most}\nCapAmb:\t{kill}\n\
             NoNewPrivs:\t1\nSeccomp:\t2\n"
        )
    );
    let refused = scheduler.wait_state("greedy", TaskState::TaskFailed);
    assert!(
        refused
            .message()
            .contains("the capabilities SYS_ADMIN are not within the bounding set (CHOWN,KILL)"),
        "{}",
        refused.message()
    );
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}
