//! What commands may do: limits, capabilities and system calls, read back from inside containers. As root.

mod common;

use std::collections::BTreeSet;

use common::{containerizer, kernel, read, shell};
use serde_json::json;
use tepui_containerizer::{ContainerConfig, Containerizer, Exit, LaunchError, leaks};
use tepui_proto::v1::{
    CapabilityInfo, ContainerInfo, LinuxInfo, RLimitInfo, SeccompInfo,
    capability_info::Capability,
    r_limit_info::{RLimit, r_limit::Type},
};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("not run: needs root");
    }
    root
}

fn capabilities(names: &[Capability]) -> Option<CapabilityInfo> {
    let capabilities = names.iter().map(|name| i32::from(*name)).collect();
    Some(CapabilityInfo { capabilities })
}

/// Runs a command to its end and answers what it wrote.
async fn output(containerizer: &Containerizer, config: &ContainerConfig) -> String {
    containerizer.launch(config.clone()).await.unwrap();
    let termination = containerizer.wait(&config.id).await.unwrap();
    let said = read(config, "stderr");
    assert_eq!(termination.exit, Exit::Status(0), "{said}");
    read(config, "stdout")
}

async fn refusal(containerizer: &Containerizer, config: ContainerConfig) -> String {
    match containerizer.launch(config).await {
        Err(LaunchError::Failed { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_command_are_those_asked_for() {
    let at = tempfile::tempdir().unwrap();
    let isolators = kernel::load(&["posix/rlimits"], json!({})).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let limit = |kind: Type, soft, hard| RLimit {
        r#type: Some(kind.into()),
        soft,
        hard,
    };
    let asking = |id: &str, text: &str, rlimits: Vec<RLimit>| {
        let mut config = shell(at.path(), id, text);
        config.container = Some(ContainerInfo {
            rlimit_info: Some(RLimitInfo { rlimits }),
            ..Default::default()
        });
        config
    };
    let config = asking(
        "c",
        "grep -E '^Max (open files|core file size|cpu time)' /proc/self/limits | tr -s ' '",
        vec![
            limit(Type::RlmtNofile, Some(63), Some(64)),
            limit(Type::RlmtCore, None, None),
            limit(Type::RlmtCpu, Some(1000), Some(1000)),
        ],
    );
    assert_eq!(
        output(&containerizer, &config).await,
        "Max cpu time 1000 1000 seconds \n\
         Max core file size unlimited unlimited bytes \n\
         Max open files 63 64 files \n"
    );
    let half = asking("half", "true", vec![limit(Type::RlmtAs, Some(1), None)]);
    let said = refusal(&containerizer, half).await;
    assert!(said.contains("'RLMT_AS' has only one of"), "{said}");
    let mut elsewhere = asking("elsewhere", "true", Vec::new());
    elsewhere.container = Some(ContainerInfo {
        linux_info: Some(LinuxInfo {
            effective_capabilities: capabilities(&[]),
            ..Default::default()
        }),
        ..Default::default()
    });
    let said = containerizer
        .launch(elsewhere)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "ContainerInfo.linux_info.effective_capabilities needs the isolator 'linux/capabilities', which is not in \
         this agent's --isolation"
    );
    let unnamed = asking("unnamed", "true", vec![RLimit::default()]);
    let said = refusal(&containerizer, unnamed).await;
    assert!(said.contains("has no type"), "{said}");
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

/// Sets of capabilities of the command, as the kernel shows them.
const SHOW_SETS: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | uniq";

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_those_asked_for_whoever_the_user_is() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let settings = json!({ "linux/capabilities": {
        "effective_capabilities": { "capabilities": ["KILL"] },
        "bounding_capabilities": { "capabilities": ["CHOWN", "KILL", "NET_RAW"] },
    }});
    let isolators = kernel::load(&["linux/capabilities"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    // Users other than root walk through this directory.
    std::fs::set_permissions(
        at.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let asking = |id: &str, user: &str, text: &str, linux: LinuxInfo| {
        let mut config = shell(at.path(), id, text);
        config.user = Some(user.to_owned());
        config.container = Some(ContainerInfo {
            linux_info: Some(linux),
            ..Default::default()
        });
        config
    };
    let (chown, kill, net_raw) = (1 << 0, 1 << 5, 1 << 13);
    let set = |mask: u64| format!("{mask:016x}\n");
    for user in ["root", "nobody"] {
        // What the agent's flags say: inheritable, permitted and effective are one, bounding is more.
        let default = asking(
            &format!("default-{user}"),
            user,
            SHOW_SETS,
            LinuxInfo::default(),
        );
        assert_eq!(
            output(&containerizer, &default).await,
            set(kill) + &set(chown | kill | net_raw) + &set(kill),
            "{user}"
        );
        let less = LinuxInfo {
            effective_capabilities: capabilities(&[Capability::NetRaw]),
            bounding_capabilities: capabilities(&[Capability::NetRaw]),
            ..Default::default()
        };
        let less = asking(&format!("less-{user}"), user, SHOW_SETS, less);
        assert_eq!(output(&containerizer, &less).await, set(net_raw), "{user}");
        let none = LinuxInfo {
            effective_capabilities: capabilities(&[]),
            bounding_capabilities: capabilities(&[]),
            ..Default::default()
        };
        let none = asking(&format!("none-{user}"), user, SHOW_SETS, none);
        assert_eq!(output(&containerizer, &none).await, set(0), "{user}");
    }
    // In force, not only shown.
    let chown = LinuxInfo {
        effective_capabilities: capabilities(&[Capability::Chown]),
        ..Default::default()
    };
    let chown = asking(
        "chown",
        "nobody",
        "touch f && chown 12345 f && stat -c %u f",
        chown,
    );
    assert_eq!(output(&containerizer, &chown).await, "12345\n");
    let text = "touch f; chown 12345 f 2>/dev/null || echo refused";
    let powerless = asking("powerless", "root", text, LinuxInfo::default());
    assert_eq!(output(&containerizer, &powerless).await, "refused\n");

    let too_much = LinuxInfo {
        effective_capabilities: capabilities(&[Capability::SysAdmin]),
        ..Default::default()
    };
    let said = refusal(&containerizer, asking("much", "root", "true", too_much)).await;
    assert!(
        said.contains("SYS_ADMIN are not within the bounding set (CHOWN,KILL,NET_RAW)"),
        "{said}"
    );
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_gains_privileges() {
    let at = tempfile::tempdir().unwrap();
    let isolators = kernel::load(&["linux/nnp"], json!({})).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let config = shell(at.path(), "c", "grep NoNewPrivs /proc/self/status");
    assert_eq!(output(&containerizer, &config).await, "NoNewPrivs:\t1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn system_calls_are_filtered_by_the_chosen_profile() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        at.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let profiles = at.path().join("profiles");
    std::fs::create_dir(&profiles).unwrap();
    let no = |names: serde_json::Value, errno: u32| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }],
        })
    };
    let write = |name: &str, json: serde_json::Value| {
        std::fs::write(profiles.join(name), json.to_string()).unwrap();
    };
    write("default.json", no(json!(["mkdir", "mkdirat"]), 13));
    write("links.json", no(json!(["symlink", "symlinkat"]), 1));
    write("bad.json", json!({ "defaultAction": "SCMP_ACT_MAYBE" }));
    let settings = json!({ "linux/seccomp": {
        "seccomp_config_dir": profiles, "seccomp_profile_name": "default.json",
    }});
    for with in [&["linux/seccomp"][..], &["linux/seccomp", "linux/nnp"]] {
        let isolators = kernel::load(with, settings.clone()).unwrap();
        let at = at.path().join(with.len().to_string());
        let containerizer = containerizer(&at, isolators);
        containerizer.recover(BTreeSet::new()).await.unwrap();
        let asking = |id: &str, user: &str, seccomp: Option<SeccompInfo>| {
            let text =
                "mkdir d && echo made; ln -s x l && echo linked; grep ^Seccomp: /proc/self/status";
            let mut config = shell(&at, id, text);
            config.user = Some(user.to_owned());
            config.container = seccomp.map(|seccomp| ContainerInfo {
                linux_info: Some(LinuxInfo {
                    seccomp: Some(seccomp),
                    ..Default::default()
                }),
                ..Default::default()
            });
            config
        };
        let named = |name: &str| SeccompInfo {
            profile_name: Some(name.to_owned()),
            unconfined: None,
        };
        for user in ["root", "nobody"] {
            let default = asking(&format!("default-{user}"), user, None);
            assert_eq!(
                output(&containerizer, &default).await,
                "linked\nSeccomp:\t2\n"
            );
            let said = read(&default, "stderr");
            assert!(said.contains("Permission denied"), "{said}");
            let links = asking(&format!("links-{user}"), user, Some(named("links.json")));
            assert_eq!(output(&containerizer, &links).await, "made\nSeccomp:\t2\n");
        }
        let unconfined = SeccompInfo {
            profile_name: None,
            unconfined: Some(true),
        };
        let free = asking("free", "nobody", Some(unconfined));
        let inherited = std::fs::read_to_string("/proc/self/status").unwrap();
        let inherited = inherited.lines().find(|line| line.starts_with("Seccomp:"));
        assert_eq!(
            output(&containerizer, &free).await,
            format!("made\nlinked\n{}\n", inherited.unwrap())
        );
        for (number, (name, words)) in [
            ("missing.json", "No such file"),
            (
                "../profiles/links.json",
                "is not the name of a seccomp profile",
            ),
            ("bad.json", "SCMP_ACT_MAYBE"),
        ]
        .into_iter()
        .enumerate()
        {
            let config = asking(&format!("bad-{number}"), "root", Some(named(name)));
            let said = refusal(&containerizer, config).await;
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(leaks::find(&at, None, &[]), Vec::<String>::new());
    }
    let settings = json!({ "linux/seccomp": {
        "seccomp_config_dir": profiles, "seccomp_profile_name": "bad.json",
    }});
    let said = kernel::load(&["linux/seccomp"], settings)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("SCMP_ACT_MAYBE") && said.contains("seccomp_profile_name"),
        "{said}"
    );
}
