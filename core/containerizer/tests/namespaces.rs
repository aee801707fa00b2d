//! Namespaces of pids and of IPC, and shared memory, as containers see them. As root.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{containerizer, kernel, read, shell, wait_for};
use serde_json::json;
use tepui_containerizer::{ContainerConfig, leaks};
use tepui_proto::v1::{ContainerInfo, LinuxInfo, linux_info::IpcMode};

fn asking(
    at: &Path,
    id: &str,
    text: &str,
    mode: IpcMode,
    shm_size: Option<u32>,
) -> ContainerConfig {
    let mut config = shell(at, id, text);
    config.container = Some(ContainerInfo {
        linux_info: Some(LinuxInfo {
            ipc_mode: Some(mode.into()),
            shm_size,
            ..Default::default()
        }),
        ..Default::default()
    });
    config
}

/// The namespace, and size and content of /dev/shm.
const SHOW: &str = "readlink /proc/self/ns/ipc; df -m /dev/shm | awk 'NR == 2 { print $2 }'; \
                    ls /dev/shm | grep -c ^mark-; echo end";

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_shared_memory_are_own_or_shared_as_asked() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let run = at.path().join("modules");
    let settings = json!({ "namespaces/ipc": { "default_container_shm_size": 8 << 20 } });
    let isolators = kernel::load_at(&["namespaces/ipc"], settings, Some(&run)).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let own = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    let own = own.to_string_lossy();
    let show = |config: &ContainerConfig| {
        let text = read(config, "stdout");
        let mut lines = text.lines().map(str::to_owned);
        [(); 3].map(|()| lines.next().unwrap_or_default())
    };
    let ended = |config: &ContainerConfig| read(config, "stdout").ends_with("end\n");

    // One with shared memory of its own, which runs on with a mark in it.
    let text = format!("touch /dev/shm/mark-x; {SHOW}; sleep 1000");
    let around = asking(at.path(), "around", &text, IpcMode::Private, Some(2));
    containerizer.launch(around.clone()).await.unwrap();
    wait_for("the mark", || ended(&around)).await;
    let [private, size, marks] = show(&around);
    assert_ne!(private, own);
    assert_eq!((size.as_str(), marks.as_str()), ("2", "1"));

    let unset = |id: &str| asking(at.path(), id, SHOW, IpcMode::Unknown, None);
    let nested = |name: &str, mode: IpcMode| ContainerConfig {
        id: around.id.child(name),
        ..asking(at.path(), &format!("nested-{name}"), SHOW, mode, None)
    };
    let host = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let host_marks = host
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("mark-"))
        .count();
    // Who is in whose namespace, and whose shared memory it sees.
    for (config, namespace, marks, size) in [
        (unset("unset"), None, host_marks, None),
        (
            asking(at.path(), "private", SHOW, IpcMode::Private, None),
            None,
            0,
            Some("8"),
        ),
        (
            asking(at.path(), "shared", SHOW, IpcMode::ShareParent, None),
            Some(&*own),
            host_marks,
            None,
        ),
        (
            nested("unset", IpcMode::Unknown),
            Some(&*private),
            host_marks,
            None,
        ),
        (nested("private", IpcMode::Private), None, 0, Some("8")),
        (
            nested("shared", IpcMode::ShareParent),
            Some(&*private),
            1,
            Some("2"),
        ),
    ] {
        containerizer.launch(config.clone()).await.unwrap();
        containerizer.wait(&config.id).await.unwrap();
        let [seen, seen_size, seen_marks] = show(&config);
        match namespace {
            Some(namespace) => assert_eq!(seen, namespace, "{}", config.id),
            None => assert!(seen != *own && seen != private, "{}: {seen}", config.id),
        }
        assert_eq!(seen_marks, marks.to_string(), "{}", config.id);
        if let Some(size) = size {
            assert_eq!(seen_size, size, "{}", config.id);
        }
    }
    let sized = asking(at.path(), "sized", "true", IpcMode::ShareParent, Some(1));
    let said = containerizer.launch(sized).await.unwrap_err().to_string();
    assert!(said.contains("needs the 'ipc_mode' PRIVATE"), "{said}");
    containerizer.destroy(&around.id).await.unwrap();
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
    assert_eq!(
        std::fs::read_dir(run.join("module-state/namespaces_ipc"))
            .unwrap()
            .count(),
        0
    );

    let strict = json!({ "namespaces/ipc": { "disallow_sharing_agent_ipc_namespace": true } });
    let isolators = kernel::load_at(&["namespaces/ipc"], strict, Some(&run)).unwrap();
    let at = at.path().join("strict");
    let containerizer = common::containerizer(&at, isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let shared = asking(&at, "shared", "true", IpcMode::ShareParent, None);
    let said = containerizer.launch(shared).await.unwrap_err().to_string();
    assert!(said.contains("is not allowed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pid_namespace_is_the_agents_only_where_that_is_asked_and_allowed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let own = own.to_string_lossy();
    let sharing = |at: &Path, id: &str, share: bool| {
        let mut config = shell(at, id, "readlink /proc/self/ns/pid");
        config.container = Some(ContainerInfo {
            linux_info: Some(LinuxInfo {
                share_pid_namespace: Some(share),
                ..Default::default()
            }),
            ..Default::default()
        });
        config
    };
    for is_strict in [false, true] {
        let settings =
            json!({ "namespaces/pid": { "disallow_sharing_agent_pid_namespace": is_strict } });
        let isolators = kernel::load(&["namespaces/pid"], settings).unwrap();
        let at = at.path().join(is_strict.to_string());
        let containerizer = containerizer(&at, isolators);
        containerizer.recover(BTreeSet::new()).await.unwrap();
        let alone = sharing(&at, "alone", false);
        containerizer.launch(alone.clone()).await.unwrap();
        containerizer.wait(&alone.id).await.unwrap();
        assert_ne!(read(&alone, "stdout").trim(), own);
        let shared = sharing(&at, "shared", true);
        match containerizer.launch(shared.clone()).await {
            Ok(_) if !is_strict => {
                containerizer.wait(&shared.id).await.unwrap();
                assert_eq!(read(&shared, "stdout").trim(), own);
            }
            Err(error) if is_strict => {
                assert!(error.to_string().contains("is not allowed"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(leaks::find(&at, None, &[]), Vec::<String>::new());
    }
}
