use super::*;
use crate::settings::{AgentSettings, MasterSettings, Registry};

fn run(daemon: Daemon, args: &[&str], env: &[(&str, &str)]) -> Result<Values, String> {
    let args = args.iter().map(|a| a.to_string());
    let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    match read(daemon, args, env) {
        Ok(Read::Run(values)) => Ok(*values),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn master(args: &[&str]) -> Result<Values, String> {
    run(Daemon::Master, args, &[])
}

#[test]
fn flags_are_written_in_every_form_that_mesos_takes() {
    let values = master(&[
        "--work-dir=/w",
        "--port",
        "0",
        "--quiet",
        "--no-hostname_lookup",
        "stray",
        "--slave_ping_timeout=30secs",
        "--offer-timeout=120secs",
        "--",
        "--nonsense",
    ])
    .unwrap();
    assert_eq!(values.text("work_dir"), Some("/w"));
    assert_eq!(values.text("port"), Some("0"));
    assert!(values.is("quiet") && !values.is("hostname_lookup"));
    assert_eq!(values.text("agent_ping_timeout"), Some("30secs"));
    assert_eq!(values.text("offer_timeout"), Some("2mins"));
    assert_eq!(
        values.notices,
        [
            "argument 'stray' is ignored: it is not a flag",
            "flag 'slave_ping_timeout' is an older name of 'agent_ping_timeout'",
        ]
    );

    for (args, message) in [
        (
            &["--wrok_dir=/w"][..],
            "unknown flag 'wrok_dir'; did you mean 'work_dir'?",
        ),
        (&["--zzz"], "unknown flag 'zzz'"),
        (
            &["--agent_ping_timeout=2secs", "--slave-ping-timeout=3secs"],
            "flag 'agent_ping_timeout' is given twice",
        ),
        (&["--work_dir"], "flag 'work_dir' needs a value"),
        (
            &["--no-work_dir"],
            "flag 'no-work_dir' takes no value and works for true/false flags only",
        ),
        (
            &["--no-quiet=true"],
            "flag 'no-quiet' takes no value and works for true/false flags only",
        ),
        (
            &["--quiet=maybe"],
            "flag 'quiet' (command line): \"maybe\" is not true or false",
        ),
        (
            &["--port=70000"],
            "flag 'port' (command line): \"70000\" is not a port number",
        ),
        (
            &["--agent_ping_timeout=1ms"],
            "flag 'agent_ping_timeout' (command line): 1ms is below the least value 1secs",
        ),
        (
            &["--acls={"],
            "flag 'acls' (command line): not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            &["--acls=file:///nowhere"],
            "flag 'acls' (command line): cannot read /nowhere: No such file or directory (os error 2)",
        ),
        (
            &["--authenticate_http_readonly"],
            "flag 'authenticate_http_readonly' (command line) is refused: not supported yet, and the site would not be protected as it asks to be",
        ),
        (
            &["--modules={}", "--modules_dir=/x"],
            "'modules' and 'modules_dir' exclude each other",
        ),
    ] {
        assert_eq!(master(args).unwrap_err(), message);
    }
    assert!(matches!(
        read(Daemon::Agent, ["--help".to_string()], []),
        Ok(Read::Help)
    ));
    assert!(matches!(
        read(Daemon::Agent, ["--version".to_string()], []),
        Ok(Read::Version)
    ));
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file_over_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("master.toml");
    let secret = dir.path().join("acls.json");
    std::fs::write(&secret, "{\"permissive\": true}\n").unwrap();
    std::fs::write(&file, format!(
        "work_dir = '/file'\ncluster = 'file'\nallocator = 'file'\nport = 1\nquiet = true\n\
         module_dirs = ['/a', '/b']\nacls = 'file://{}'\n[modules.hierarchical]\nx = 1\n[load.'acme/x']\nrun_in = 'process'\n",
        secret.display()
    )).unwrap();
    let config = format!("--config={}", file.display());
    let env = [
        ("MESOS_WORK_DIR", "/env"),
        ("mesos_cluster", "env"),
        ("TEPUI_CLUSTER", "own"),
        ("MESOS_SANDBOX", "x"),
        ("MESOS_NO_QUIET", ""),
        ("TEPUI_MODULE_DIRS", "/c"),
    ];
    let values = run(Daemon::Master, &[&config, "--work_dir=/line"], &env).unwrap();
    assert_eq!(values.text("work_dir"), Some("/line"));
    assert_eq!(values.text("cluster"), Some("own"));
    assert_eq!(values.text("allocator"), Some("file"));
    assert_eq!(values.text("registry"), Some("replicated_log"));
    assert_eq!(values.text("acls"), Some("{\"permissive\":true}"));
    assert!(!values.is("quiet"));
    assert_eq!(
        values.modules.dirs,
        [PathBuf::from("/a"), PathBuf::from("/b")]
    );
    let settings = MasterSettings::new(values).unwrap();
    assert_eq!(settings.registry, Registry::Embedded("/line".into()));
    assert_eq!(
        settings.common.modules.settings["local"]["permissive"],
        true
    );

    for (text, message) in [
        (
            "wrok_dir = '/w'",
            "unknown key 'wrok_dir'; did you mean 'work_dir'?",
        ),
        ("work_dir = 3", "work_dir: expected a string, found integer"),
        (
            "modules = 3",
            "modules: expected tables such as [modules.\"NAME\"]",
        ),
        (
            "[load.x]\nfiel = '/x'",
            "[load.\"x\"]: unknown key 'fiel'; did you mean 'file'?",
        ),
        (
            "config = '/x'",
            "unknown key 'config'; did you mean 'config'?",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = run(Daemon::Master, &[&config], &[]).unwrap_err();
        assert_eq!(error, format!("{}: {message}", file.display()));
    }
}

/// The flags of the recorded cluster that were not defaults, and what Mesos then showed.
#[test]
fn flags_are_shown_as_mesos_shows_them() {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/master-flags.json")).unwrap();
    let values = master(&[
        "--hostname=localhost",
        "--registry=in_memory",
        "--work_dir=/var/lib/mesos1/work/master",
    ])
    .unwrap();
    let settings = MasterSettings::new(values).unwrap();
    let shown: serde_json::Map<_, _> = settings
        .common
        .flags
        .into_iter()
        .map(|(k, v)| (k, v.into()))
        .collect();
    assert_eq!(serde_json::Value::Object(shown), recorded["flags"]);

    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/agent-flags.json")).unwrap();
    let values = run(
        Daemon::Agent,
        &[
            "--hostname=localhost",
            "--fetcher_cache_dir=/var/lib/mesos1/work/agents/0/fetch",
            "--isolation=posix/cpu,posix/mem",
            "--launcher=posix",
            "--launcher_dir=/var/lib/mesos1/libexec",
            "--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]",
            "--runtime_dir=/var/lib/mesos1/work/agents/0/run",
            "--work_dir=/var/lib/mesos1/work/agents/0/work",
            "--no-switch_user",
            "--no-systemd_enable_support",
            "--master=127.0.0.1:5050",
        ],
        &[],
    )
    .unwrap();
    let settings = AgentSettings::new(values).unwrap();
    assert_eq!(
        settings.isolation,
        [
            "posix/cpu",
            "posix/mem",
            "filesystem/posix",
            "environment_secret"
        ]
    );
    assert!(settings.isolation_given);
    let shown: serde_json::Map<_, _> = settings
        .common
        .flags
        .into_iter()
        .filter(|(name, _)| name != "master") // the recorded agents were given theirs in another way
        .map(|(k, v)| (k, v.into()))
        .collect();
    assert_eq!(serde_json::Value::Object(shown), recorded["flags"]);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (args, message) in [
        (
            &[][..],
            "'work_dir' is needed for the registry, unless 'registry' is 'in_memory'",
        ),
        (
            &["--registry=disk"],
            "flag 'registry' (command line): \"disk\" is not one of replicated_log, in_memory",
        ),
        (
            &["--registry=in_memory", "--master_detector=x"],
            "'master_contender' and 'master_detector' need each other",
        ),
        (
            &["--registry=in_memory", "--agent_removal_rate_limit=0/1mins"],
            "'agent_removal_rate_limit': expected COUNT/DURATION such as 1/20mins, found '0/1mins'",
        ),
        (
            &["--registry=in_memory", "--recovery_agent_removal_limit=0.5"],
            "'recovery_agent_removal_limit': expected a percentage from 0% to 100%, found '0.5'",
        ),
        (
            &[
                "--registry=in_memory",
                r#"--rate_limits={"limits":[{"principal":"p","qps":0}]}"#,
            ],
            "'rate_limits': principal 'p': expected a qps above 0, found 0",
        ),
        (
            &[
                "--registry=in_memory",
                r#"--rate_limits={"aggregate_default_capacity":5}"#,
            ],
            "'rate_limits': 'aggregate_default_qps' has a capacity and no qps",
        ),
        (
            &["--registry=in_memory", "--role_sorter=fair"],
            "flag 'role_sorter' (command line): \"fair\" is not one of drf, random",
        ),
        (
            &[
                "--registry=in_memory",
                "--allocator_agent_recovery_factor=2",
            ],
            "'allocator_agent_recovery_factor': expected a number from 0 to 1, found 2",
        ),
        (
            &["--registry=in_memory", "--ip=x"],
            "'ip': \"x\" is not an IP address",
        ),
        (
            &["--registry=in_memory", "--authorizers=a,b"],
            "'authorizers': expected one name, found 2",
        ),
        (
            &[
                "--registry=in_memory",
                r#"--firewall_rules={"disabled_endpoints":{"paths":["files"]}}"#,
            ],
            "'firewall_rules': path \"files\" does not begin with '/'",
        ),
        (
            &["--registry=in_memory", r#"--firewall_rules={"disabled":1}"#],
            "'firewall_rules': unknown field `disabled`, expected `disabled_endpoints` at line 1 column 11",
        ),
    ] {
        assert_eq!(
            MasterSettings::new(master(args).unwrap())
                .unwrap_err()
                .to_string(),
            message
        );
    }
    for (args, message) in [
        (
            &["--master=a:1"][..],
            "'work_dir' is needed: the directory for sandboxes and for what has to survive the agent",
        ),
        (
            &["--work_dir=/w"],
            "'master' is needed: host:port of the master, such as 10.0.0.1:5050",
        ),
        (
            &["--work_dir=/w", "--master=10.0.0.1"],
            "'master': expected host:port, such as 10.0.0.1:5050, found '10.0.0.1'",
        ),
        (
            &["--work_dir=/w", "--master=a:1", "--master_detector=x"],
            "'master' and 'master_detector' exclude each other",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                r#"--agent_features={"capabilities":[{"type":"MULTI_ROLE"}]}"#,
            ],
            "'agent_features': 'HIERARCHICAL_ROLE' cannot be left out",
        ),
        (
            &["--work_dir=/w", "--master=zk://x/y"],
            "'master': ZooKeeper is not supported yet; give host:port",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--executor_environment_variables={\"A\":1}",
            ],
            "'executor_environment_variables': the value of 'A' is not a string",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--containerizers=mesos,docker",
            ],
            "flag 'containerizers' (command line): \"mesos,docker\" is not one of mesos",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--isolation=posix/mem,process",
            ],
            "'isolation': 'posix/mem' is named twice",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--isolation=linux/nnp",
                "--seccomp_profile_name=default.json",
            ],
            "'seccomp_profile_name' needs the isolator 'linux/seccomp' in 'isolation'",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--isolation=filesystem/linux",
                "--volume_gid_range=10000",
            ],
            "'volume_gid_range': expected ranges of groups, such as [10000-20000]",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--isolation=filesystem/linux",
                "--volume_gid_range=[0-5]",
            ],
            "'volume_gid_range': groups are numbers from 1 to 4294967294",
        ),
        (
            &[
                "--work_dir=/w",
                "--master=a:1",
                "--isolation=filesystem/posix",
                "--volume_gid_range=[1-5]",
            ],
            "'volume_gid_range': needs the isolator 'filesystem/linux' in 'isolation'",
        ),
    ] {
        let values = run(Daemon::Agent, args, &[]).unwrap();
        assert_eq!(AgentSettings::new(values).unwrap_err().to_string(), message);
    }
}

#[test]
fn flags_of_isolators_become_their_settings() {
    let args = [
        "--work_dir=/w",
        "--master=a:1",
        "--isolation=linux/capabilities,linux/seccomp,namespaces/pid,disk/xfs,cgroups/all,filesystem/linux",
        "--volume_gid_range=[10-12,14-14]",
        r#"--effective_capabilities={"capabilities":["NET_RAW"]}"#,
        "--seccomp_config_dir=/etc/seccomp",
        "--seccomp_profile_name=1",
        "--disallow_sharing_agent_pid_namespace",
        "--enforce_container_disk_quota",
        "--xfs_project_range=[7-9]",
        "--xfs_quota_headroom=1MB",
        "--perf_events=cycles",
        "--perf_duration=5secs",
        "--cgroups_net_cls_primary_handle=0x12",
    ];
    let settings = AgentSettings::new(run(Daemon::Agent, &args, &[]).unwrap()).unwrap();
    let of =
        |module: &str| serde_json::Value::from(settings.common.modules.settings[module].clone());
    assert_eq!(
        of("linux/capabilities"),
        serde_json::json!({ "effective_capabilities": { "capabilities": ["NET_RAW"] } })
    );
    assert_eq!(
        of("linux/seccomp"),
        serde_json::json!({ "seccomp_config_dir": "/etc/seccomp", "seccomp_profile_name": "1" })
    );
    assert_eq!(settings.volume_gids, Some(4));
    for isolator in ["filesystem/linux", "volume/sandbox_path"] {
        assert_eq!(
            of(isolator),
            serde_json::json!({ "volume_gid_ranges": [[10, 12], [14, 14]] })
        );
    }
    assert_eq!(
        of("namespaces/pid"),
        serde_json::json!({ "disallow_sharing_agent_pid_namespace": true })
    );
    assert_eq!(
        of("disk/xfs"),
        serde_json::json!({
            "enforce_container_disk_quota": true,
            "xfs_project_range": "[7-9]",
            "xfs_quota_headroom": 1 << 20,
        })
    );
    assert_eq!(
        of("cgroups"),
        serde_json::json!({
            "perf_events": "cycles",
            "perf_duration_secs": 5,
            "cgroups_net_cls_primary_handle": "0x12",
        })
    );
}

#[test]
fn flags_of_the_allocator_become_its_settings() {
    let args = [
        "--registry=in_memory",
        "--role_sorter=random",
        "--fair_sharing_excluded_resource_names=gpus,disk",
    ];
    let settings = MasterSettings::new(master(&args).unwrap()).unwrap();
    assert_eq!(
        serde_json::Value::from(settings.common.modules.settings["hierarchical"].clone()),
        serde_json::json!({
            "role_sorter": "random",
            "fair_sharing_excluded_resource_names": ["gpus", "disk"],
        })
    );
}

#[test]
fn help_names_every_flag_once() {
    for daemon in [Daemon::Master, Daemon::Agent] {
        let text = help(daemon);
        for flag in daemon.flags() {
            let count = text
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .filter(|word| *word == flag.name)
                .count();
            assert!(count >= 1, "{}", flag.name);
        }
        assert!(text.lines().all(|line| line.len() < 200), "{text}");
    }
}
