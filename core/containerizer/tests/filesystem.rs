//! Root file systems and volumes, as containers see them. As root.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use common::{Notes, busybox, is_root, kernel, provisioner, read, shell, wait_for};
use serde_json::json;
use tepui_containerizer::{Command, ContainerConfig, Containerizer, Isolator, leaks};
use tepui_proto::{
    convert, json as mesos_json,
    v1::{self, ContainerInfo},
};

const ISOLATORS: [&str; 3] = [
    "filesystem/linux",
    "volume/host_path",
    "volume/sandbox_path",
];

async fn containerizer(
    at: &Path,
    root: Option<&Path>,
    settings: serde_json::Value,
) -> Containerizer {
    let mut isolators =
        kernel::load_in(&ISOLATORS, settings, Some(&at.join("modules")), Some(at)).unwrap();
    isolators.extend(root.map(provisioner));
    let containerizer = common::containerizer(at, isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    containerizer
}

fn container(described: serde_json::Value) -> Option<ContainerInfo> {
    Some(mesos_json::to_message(described.to_string().as_bytes()).unwrap())
}

/// Runs a container to its end and answers what it said.
async fn run(containerizer: &Containerizer, config: &ContainerConfig) -> String {
    containerizer.launch(config.clone()).await.unwrap();
    containerizer.wait(&config.id).await.unwrap();
    let said = read(config, "stderr");
    assert_eq!(said, "", "{}", config.id);
    read(config, "stdout")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_of_its_own_has_all_that_programs_expect_and_nothing_of_the_host() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let containerizer = containerizer(at.path(), Some(&root), json!({})).await;
    let text = "ls /; pwd; touch made; id -u; \
        for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        echo x > /dev/null; test -c /dev/pts/ptmx || echo no pts; touch /dev/shm/x; \
        test -s /etc/resolv.conf || echo no resolv.conf; cat /proc/kcore /proc/keys 2>/dev/null; \
        (echo h > /proc/sys/kernel/hostname) 2>/dev/null && echo changed; \
        (touch /sys/x) 2>/dev/null && echo changed; \
        for d in /proc/acpi /sys/firmware; do test -d $d && ls $d; (touch $d/x) 2>/dev/null && echo changed; done; \
        grep -c '^proc /proc proc' /proc/mounts; \
        (echo x > /etc/resolv.conf) 2>/dev/null && echo changed; echo $MESOS_SANDBOX";
    for user in [None, Some("nobody")] {
        let mut config = shell(at.path(), user.unwrap_or("root"), text);
        config.user = user.map(str::to_owned);
        config.environment = vec![(
            "MESOS_SANDBOX".to_owned(),
            config.sandbox.display().to_string(),
        )];
        let said = run(&containerizer, &config).await;
        let uid = if user.is_some() { 65534 } else { 0 };
        assert_eq!(
            said,
            format!(
                "bin\ndev\netc\nmnt\nproc\nsys\n/mnt/mesos/sandbox\n{uid}\n1\n/mnt/mesos/sandbox\n"
            )
        );
        assert_eq!(
            fs::metadata(config.sandbox.join("made")).unwrap().uid(),
            uid
        );
    }
    // Whoever looks into one finds the same sandbox at the same place.
    let around = shell(at.path(), "around", "echo up; sleep 1000");
    containerizer.launch(around.clone()).await.unwrap();
    assert_eq!(containerizer.counts().with_root, Some(1));
    let text = "pwd; echo $MESOS_SANDBOX; cat $MESOS_SANDBOX/stdout";
    let look = Command {
        shell: true,
        value: text.to_owned(),
        arguments: Vec::new(),
    };
    common::wait_for("the task", || read(&around, "stdout") == "up\n").await;
    let look = containerizer.inside(&around.id, "look", look).unwrap();
    assert_eq!(
        run(&containerizer, &look).await,
        "/mnt/mesos/sandbox\n/mnt/mesos/sandbox\nup\n"
    );
    containerizer.destroy(&around.id).await.unwrap();
    assert_eq!(containerizer.counts().with_root, Some(0));
    // What was mounted went with the containers.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*at.path().to_string_lossy()), "{mounts}");
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

/// What is at the root of a process's mount namespace, whoever is asking.
fn at_root_of(pid: u32) -> Vec<std::ffi::OsString> {
    use nix::sched::{CloneFlags, setns, unshare};
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
    let look = move || {
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNS).unwrap();
        let entries = fs::read_dir("/").unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    // Only the thread is in there, and is not used again.
    std::thread::spawn(look).join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_below_the_root_of_a_container_that_unmounts_it() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let containerizer = containerizer(at.path(), Some(&root), json!({})).await;
    let text = "/bin/busybox umount -l / && echo gone; exec sleep 1000";
    let config = shell(at.path(), "c", text);
    let pid = containerizer.launch(config.clone()).await.unwrap().pid;
    wait_for("the end of its root", || {
        read(&config, "stdout") == "gone\n"
    })
    .await;
    assert_eq!(at_root_of(pid), Vec::<std::ffi::OsString>::new());
    containerizer.destroy(&config.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_root_do_not_lead_to_the_host() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let outside = at.path().join("outside");
    fs::create_dir(&outside).unwrap();
    // Absolute, relative, and of each thing that is mounted or made.
    symlink(&outside, root.join("mnt")).unwrap();
    symlink(&outside, root.join("etc")).unwrap();
    symlink("../../../../../../../../dev", root.join("dev")).unwrap();
    symlink("/proc/self/root", root.join("sys")).unwrap();
    let containerizer = containerizer(at.path(), Some(&root), json!({})).await;
    let config = shell(at.path(), "c", "touch /mnt/mesos/sandbox/made");
    let launched = containerizer.launch(config.clone()).await;
    // Refused for its links, or started inside of them; never outside.
    if launched.is_ok() {
        containerizer.wait(&config.id).await.unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*at.path().to_string_lossy()), "{mounts}");
    fs::remove_file(root.join("sys")).unwrap();
    fs::remove_file(root.join("dev")).unwrap();
    // Where the links lead to something, it is inside.
    fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap())).unwrap();
    let config = shell(
        at.path(),
        "d",
        "touch made; test -f /etc/resolv.conf && echo has",
    );
    assert_eq!(run(&containerizer, &config).await, "has\n");
    assert!(config.sandbox.join("made").exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_from_the_host_and_from_sandboxes() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let data = at.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "of the host").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let creatable = at.path().join("creatable");
    let settings = json!({ "volume/host_path": { "host_path_volume_force_creation": creatable } });
    let host = |path: &Path, to: &str, mode: &str| {
        json!({ "mode": mode, "container_path": to,
                "source": { "type": "HOST_PATH", "host_path": { "path": path } } })
    };
    let own = |path: &str, to: &str| {
        json!({ "mode": "RW", "container_path": to,
                "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "SELF", "path": path } } })
    };
    for rootfs in [None, Some(&*root)] {
        let name = if rootfs.is_some() { "with" } else { "without" };
        let at = at.path().join(name);
        let containerizer = containerizer(&at, rootfs, settings.clone()).await;
        let mut config = shell(
            &at,
            "c",
            "cat data/file; echo; (echo no > data/file) 2>/dev/null || echo refused; touch new/x own/y; cat one",
        );
        config.container = container(json!({ "type": "MESOS", "volumes": [
            host(&data, "data", "RO"),
            host(&creatable.join(name), "new", "RW"),
            own("in/side", "own"),
            { "mode": "RO", "container_path": "one", "host_path": data.join("file") },
        ]}));
        let said = run(&containerizer, &config).await;
        assert_eq!(said, "of the host\nrefused\nof the host");
        assert!(creatable.join(name).join("x").exists());
        assert!(config.sandbox.join("in/side/y").exists());
        // Of the host's own tree nothing is made for a volume, and paths that lead elsewhere are refused.
        for (volume, words) in [
            (
                host(&at.join("missing"), "x", "RW"),
                "in HOST_PATH volume does not exist",
            ),
            (host(&data, "../x", "RW"), "must not contain '..'"),
            (own("../x", "x"), "must be relative and without '..'"),
            (
                json!({ "mode": "RW", "container_path": "x",
                        "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": "x" } } }),
                "PARENT type only works for nested container",
            ),
            (
                json!({ "mode": "RW", "container_path": "x" }),
                "neither 'host_path' nor 'source'",
            ),
            (
                json!({ "mode": "RW", "container_path": "x",
                        "source": { "type": "SECRET", "secret": { "type": "VALUE", "value": { "data": "eA==" } } } }),
                "'volume/secret', which is not in this agent's --isolation",
            ),
        ] {
            let mut config = shell(&at, &format!("refused-{}", words.len()), "true");
            config.container = container(json!({ "type": "MESOS", "volumes": [volume] }));
            let said = containerizer.launch(config).await.unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(leaks::find(&at, None, &[]), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_sandbox_does_not_follow_its_links_to_the_host() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let containerizer = containerizer(at.path(), None, json!({})).await;
    let mut config = shell(at.path(), "c", "ls own");
    fs::create_dir_all(&config.sandbox).unwrap();
    let secret = at.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "").unwrap();
    symlink(&secret, config.sandbox.join("link")).unwrap();
    config.container = container(json!({ "type": "MESOS", "volumes": [
        { "mode": "RW", "container_path": "own",
          "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "SELF", "path": "link" } } },
    ]}));
    // The link leads to a path of that name inside the sandbox, where there is none.
    let said = containerizer.launch(config).await.unwrap_err().to_string();
    assert!(said.contains("failed to mount"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_below_a_shared_volume_are_seen_by_both() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let containerizer = containerizer(at.path(), None, json!({})).await;
    // A mount of its own that is shared, whatever this machine's root is.
    let shared = at.path().join("shared");
    fs::create_dir_all(shared.join("from")).unwrap();
    let quietly = |args: &[&str]| {
        let done = std::process::Command::new("mount")
            .args(args)
            .status()
            .unwrap();
        assert!(done.success(), "mount {args:?}");
    };
    let path = shared.to_str().unwrap();
    quietly(&["--bind", path, path]);
    quietly(&["--make-private", path]);
    quietly(&["--make-shared", path]);
    for (mode, seen) in [("HOST_TO_CONTAINER", false), ("BIDIRECTIONAL", true)] {
        let mut config = shell(
            at.path(),
            mode,
            "mount -t tmpfs tmpfs v/from && touch v/from/x && echo done; sleep 1000",
        );
        config.container = container(json!({ "type": "MESOS", "volumes": [
            { "mode": "RW", "container_path": "v", "source": { "type": "HOST_PATH",
              "host_path": { "path": path, "mount_propagation": { "mode": mode } } } },
        ]}));
        containerizer.launch(config.clone()).await.unwrap();
        common::wait_for("the mount", || read(&config, "stdout") == "done\n").await;
        assert_eq!(shared.join("from/x").exists(), seen, "{mode}");
        containerizer.destroy(&config.id).await.unwrap();
    }
    let umount = |path: &Path| nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
    umount(&shared.join("from")).unwrap();
    umount(&shared).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn persistent_volumes_are_in_the_sandbox_and_their_users() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let volume = at.path().join("volumes/roles/r/id");
    fs::create_dir_all(&volume).unwrap();
    let containerizer = containerizer(at.path(), None, json!({})).await;
    let resource = |mode: &str| -> v1::Resource {
        let described = json!({
            "name": "disk", "type": "SCALAR", "scalar": { "value": 1 },
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": "id" }, "volume": { "mode": mode, "container_path": "kept" } },
        });
        mesos_json::to_message(described.to_string().as_bytes()).unwrap()
    };
    for (id, mode, said) in [("first", "RW", ""), ("second", "RO", "refused\n")] {
        let mut config = shell(at.path(), id, "touch kept/$0 2>/dev/null || echo refused");
        config.user = Some("nobody".to_owned());
        config.command.as_mut().unwrap().value =
            format!("touch kept/{id} 2>/dev/null || echo refused");
        config.resources = convert::resources(&[resource(mode)]).unwrap();
        assert_eq!(run(&containerizer, &config).await, said);
    }
    assert!(volume.join("first").exists());
    assert_eq!(fs::metadata(volume.join("first")).unwrap().uid(), 65534);
    assert!(!volume.join("second").exists());
    fs::remove_dir_all(&volume).unwrap();
    let mut config = shell(at.path(), "third", "true");
    config.resources = convert::resources(&[resource("RW")]).unwrap();
    let said = containerizer.launch(config).await.unwrap_err().to_string();
    assert!(said.contains("of the volume 'id' is missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_files_of_their_container_and_on_no_disk() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let run_dir = at.path().join("modules");
    let names = ["filesystem/linux", "volume/secret"];
    let isolators = kernel::load_in(&names, json!({}), Some(&run_dir), Some(at.path())).unwrap();
    let containerizer = common::containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let secret = |value: serde_json::Value| json!({ "mode": "RW", "container_path": "keys/key", "source": { "type": "SECRET", "secret": value } });
    let mut config = shell(
        at.path(),
        "c",
        "cat keys/key; (echo x > keys/key) 2>/dev/null || echo; ls -ln keys/key | cut -c1-10",
    );
    config.user = Some("nobody".to_owned());
    let value = secret(json!({ "type": "VALUE", "value": { "data": "cGFzcyB3b3Jk" } }));
    config.container = container(json!({ "type": "MESOS", "volumes": [value] }));
    assert_eq!(
        run(&containerizer, &config).await,
        "pass word\n-r--------\n"
    );
    assert_eq!(
        fs::read_to_string(config.sandbox.join("keys/key")).unwrap(),
        ""
    );
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
    let mut config = shell(at.path(), "reference", "true");
    let value = secret(json!({ "type": "REFERENCE", "reference": { "name": "x" } }));
    config.container = container(json!({ "type": "MESOS", "volumes": [value] }));
    let said = containerizer.launch(config).await.unwrap_err().to_string();
    assert!(said.contains("no secret resolver"), "{said}");
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_with_a_root_of_their_own_have_the_allowed_devices() {
    let at = tempfile::tempdir().unwrap();
    if !kernel::available() || !Path::new("/dev/kmsg").exists() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let group = kernel::Root::new("devices");
    let device = json!({ "device": { "path": "/dev/kmsg" }, "access": { "read": true } });
    let settings = json!({
        "cgroups": { "cgroups_root": group.0, "allowed_devices": { "allowed_devices": [device] } },
        "linux/devices": { "allowed_devices": [device] },
    });
    let names = ["filesystem/linux", "cgroups/devices", "linux/devices"];
    let mut isolators = kernel::load_in(&names, settings, None, Some(at.path())).unwrap();
    isolators.push(provisioner(&root));
    let containerizer = common::containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let text = "stat -c '%F %t:%T %a' /dev/kmsg; (echo x > /dev/kmsg) 2>/dev/null || echo refused; cat /dev/null";
    let config = shell(at.path(), "c", text);
    assert_eq!(
        run(&containerizer, &config).await,
        "character special file 1:b 444\nrefused\n"
    );
    let missing = kernel::load_in(&["linux/devices"], json!({}), None, None).unwrap();
    let settings = common::settings(at.path());
    let said = Containerizer::new(settings, missing)
        .unwrap_err()
        .to_string();
    assert!(said.contains("needs 'cgroups/devices'"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_too_much_disk_is_ended_where_quotas_are_enforced() {
    let at = tempfile::tempdir().unwrap();
    let described = json!({ "name": "disk", "type": "SCALAR", "scalar": { "value": 1 } });
    let disk: v1::Resource = mesos_json::to_message(described.to_string().as_bytes()).unwrap();
    for enforced in [false, true] {
        let settings = json!({ "disk/du": {
            "container_disk_watch_interval_secs": 1, "enforce_container_disk_quota": enforced,
        } });
        let at = at.path().join(enforced.to_string());
        let isolators = kernel::load_in(&["disk/du"], settings, None, Some(&at)).unwrap();
        let containerizer = common::containerizer(&at, isolators);
        containerizer.recover(BTreeSet::new()).await.unwrap();
        let mut config = shell(
            &at,
            "c",
            "dd if=/dev/zero of=big bs=1048576 count=3 2>/dev/null; sleep 1000",
        );
        config.resources = convert::resources(std::slice::from_ref(&disk)).unwrap();
        containerizer.launch(config.clone()).await.unwrap();
        let id = &config.id;
        if enforced {
            let limitation = containerizer.wait(id).await.unwrap().limitation.unwrap();
            assert_eq!(
                limitation.reason,
                v1::task_status::Reason::ContainerLimitationDisk as i32
            );
            let words = "B) exceeds quota (1048576B)";
            assert!(limitation.message.contains(words), "{}", limitation.message);
            assert!(limitation.resources[0].0.scalar.as_ref().unwrap().value >= 3.0);
        } else {
            let mut used = 0;
            while used < 3 << 20 {
                let usage = containerizer.usage(id).await.unwrap();
                assert_eq!(usage.disk_limit_bytes, Some(1 << 20));
                used = usage.disk_used_bytes.unwrap_or_default();
                tokio::task::yield_now().await;
            }
            containerizer.destroy(id).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_into_a_root_counts_as_disk_also_for_the_next_agent() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let empty = fs::metadata(root.join("bin/busybox")).unwrap().len();
    let described = json!({ "name": "disk", "type": "SCALAR", "scalar": { "value": 1024 } });
    let disk: v1::Resource = mesos_json::to_message(described.to_string().as_bytes()).unwrap();
    let mut config = shell(
        at.path(),
        "c",
        "dd if=/dev/zero of=/big bs=1048576 count=3; sleep 1000",
    );
    config.resources = convert::resources(std::slice::from_ref(&disk)).unwrap();
    config.checkpoint = true;
    symlink("busybox", root.join("bin/dd")).unwrap();
    for known in [BTreeSet::new(), BTreeSet::from([config.id.clone()])] {
        let settings = json!({ "disk/du": { "container_disk_watch_interval_secs": 1 } });
        let names = ["filesystem/linux", "disk/du"];
        let mut isolators = kernel::load_in(&names, settings, None, Some(at.path())).unwrap();
        isolators.push(provisioner(&root));
        let containerizer = common::containerizer(at.path(), isolators);
        let is_first = known.is_empty();
        containerizer.recover(known).await.unwrap();
        if is_first {
            containerizer.launch(config.clone()).await.unwrap();
        }
        let mut used = 0;
        while used < empty + (3 << 20) {
            let usage = containerizer.usage(&config.id).await.unwrap();
            used = usage.disk_used_bytes.unwrap_or_default();
            tokio::task::yield_now().await;
        }
        if !is_first {
            containerizer.destroy(&config.id).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_ended_does_not_wait_for_its_images() {
    let at = tempfile::tempdir().unwrap();
    let calls = Arc::default();
    let notes = |name, hangs| -> Arc<dyn Isolator> {
        Arc::new(Notes {
            name,
            hangs,
            calls: Arc::clone(&calls),
            ..Notes::default()
        })
    };
    let isolators = vec![notes("other", None), notes("provisioner", Some("prepare"))];
    let containerizer = common::containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let config = shell(at.path(), "c", "true");
    let launching = tokio::spawn({
        let (containerizer, config) = (containerizer.clone(), config.clone());
        async move { containerizer.launch(config).await }
    });
    let called = |call: &str| calls.lock().unwrap().iter().any(|one| one == call);
    common::wait_for("the pull", || called("provisioner prepare")).await;
    let termination = containerizer.destroy(&config.id).await.unwrap();
    assert!(termination.destroyed);
    let said = launching.await.unwrap().unwrap_err().to_string();
    assert!(said.contains("destroyed during provisioning"), "{said}");
    // What comes first is cleaned up, and what follows was never asked.
    assert!(called("provisioner cleanup") && !called("other prepare"));
}
