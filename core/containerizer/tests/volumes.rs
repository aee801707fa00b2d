//! Volumes that come to containers that run, and those that several users share. As root.

mod common;

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt};

use common::{busybox, is_root, kernel, provisioner, read, shell};
use serde_json::json;
use tepui_containerizer::{ContainerConfig, Containerizer, Limits, leaks};
use tepui_proto::{
    convert, json as mesos_json,
    v1::{self, ContainerInfo},
};

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_to_running_containers_and_go() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let Some(root) = busybox(at.path()) else {
        return;
    };
    let volume = |id: &str, mode: &str| -> v1::Resource {
        fs::create_dir_all(at.path().join("volumes/roles/r").join(id)).unwrap();
        let described = json!({
            "name": "disk", "type": "SCALAR", "scalar": { "value": 1 },
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": id }, "volume": { "mode": mode, "container_path": format!("in/{id}") } },
        });
        mesos_json::to_message(described.to_string().as_bytes()).unwrap()
    };
    let of = |id: &str, name: &str| at.path().join("volumes/roles/r").join(id).join(name);
    for image in [false, true] {
        let name = if image { "image" } else { "plain" };
        let begin = async || {
            let mut isolators =
                kernel::load_in(&["filesystem/linux"], json!({}), None, Some(at.path())).unwrap();
            if image {
                isolators.push(provisioner(&root));
            }
            common::containerizer(at.path(), isolators)
        };
        let containerizer = begin().await;
        containerizer.recover(BTreeSet::new()).await.unwrap();
        // Answers what it finds in its sandbox to who asks.
        let text = "while :; do for v in a b; do if [ -e ask-$v ]; then rm ask-$v; touch in/$v/$0 2>/dev/null; \
                    (ls in/$v 2>&1; [ -w in/$v ] && echo writable) > answer; mv answer told-$v; fi; done; sleep 0.05; done";
        let mut config = shell(at.path(), name, text);
        config.command.as_mut().unwrap().value = text.replace("$0", name);
        let id = config.id.clone();
        let sandbox = config.sandbox.clone();
        let ask = async |what: &str| {
            let told = sandbox.join(format!("told-{what}"));
            fs::write(sandbox.join(format!("ask-{what}")), "").unwrap();
            common::wait_for("an answer", || told.exists()).await;
            let text = fs::read_to_string(&told).unwrap();
            fs::remove_file(told).unwrap();
            text
        };
        let set = async |containerizer: &Containerizer, volumes: &[v1::Resource]| {
            let resources = convert::resources(volumes).unwrap();
            containerizer
                .update(&id, resources, Limits::default())
                .await
        };
        containerizer.launch(config.clone()).await.unwrap();
        set(&containerizer, &[volume("a", "RW")]).await.unwrap();
        assert_eq!(ask("a").await, format!("{name}\nwritable\n"));
        assert!(of("a", name).exists());
        fs::write(of("b", ""), "").unwrap_err();
        set(&containerizer, &[volume("a", "RW"), volume("b", "RO")])
            .await
            .unwrap();
        fs::write(of("b", "given"), "").unwrap();
        assert!(ask("b").await.starts_with("given\n"));
        assert!(!of("b", name).exists(), "it is read-only");
        // The next agent process knows what is there.
        drop(containerizer);
        let containerizer = begin().await;
        containerizer
            .recover(BTreeSet::from([id.clone()]))
            .await
            .unwrap();
        set(&containerizer, &[volume("b", "RO")]).await.unwrap();
        assert!(!ask("a").await.contains(name), "it is gone");
        assert!(ask("b").await.starts_with("given\n"));
        assert!(of("a", name).exists(), "what was written stays");
        // What the task puts in the way is not followed.
        let outside = at.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let way = sandbox.join("in");
        set(&containerizer, &[]).await.unwrap();
        fs::remove_dir(&way).unwrap();
        std::os::unix::fs::symlink(&outside, &way).unwrap();
        let refused = set(&containerizer, &[volume("a", "RW")]).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("failed to mount the volume 'a' at "),
            "{refused}"
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        containerizer.destroy(&id).await.unwrap();
        containerizer.forget(&id).unwrap();
        fs::remove_file(of("b", "given")).unwrap();
        fs::remove_file(of("a", name)).unwrap();
    }
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

/// The agent's isolators with groups for volumes.
async fn with_groups(
    at: &std::path::Path,
    known: BTreeSet<tepui_model::id::ContainerId>,
    last: u32,
) -> Containerizer {
    let ranges = json!({ "volume_gid_ranges": [[20001, last]] });
    let settings = json!({ "filesystem/linux": ranges, "volume/sandbox_path": ranges });
    let names = ["filesystem/linux", "volume/sandbox_path"];
    let isolators = kernel::load_in(&names, settings, None, Some(at)).unwrap();
    let containerizer = common::containerizer(at, isolators);
    containerizer.recover(known).await.unwrap();
    containerizer
}

#[tokio::test(flavor = "multi_thread")]
async fn users_share_volumes_of_the_parent_by_a_group() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let mut containerizer = with_groups(at.path(), BTreeSet::new(), 20001).await;
    let mut around = shell(at.path(), "around", "sleep 1000");
    around.is_command_task = false;
    containerizer.launch(around.clone()).await.unwrap();
    let nested = |name: &str, user: &str, path: &str, text: &str| {
        let volume = json!({ "mode": "RW", "container_path": "v",
            "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": path } } });
        let info = json!({ "type": "MESOS", "volumes": [volume] }).to_string();
        let info: ContainerInfo = mesos_json::to_message(info.as_bytes()).unwrap();
        ContainerConfig {
            id: around.id.child(name),
            sandbox: around.sandbox.join("containers").join(name),
            user: Some(user.to_owned()),
            container: Some(info),
            is_command_task: false,
            ..shell(at.path(), name, text)
        }
    };
    let said = async |containerizer: &Containerizer, config: ContainerConfig| {
        containerizer.launch(config.clone()).await.unwrap();
        containerizer.wait(&config.id).await.unwrap();
        assert_eq!(read(&config, "stderr"), "", "{}", config.id);
        read(&config, "stdout")
    };
    let write = "umask 002; echo $USER >> v/file; id -G";
    for (number, user) in ["nobody", "irc"].into_iter().enumerate() {
        let config = nested(user, user, "shared", &write.replace("$USER", user));
        let groups = said(&containerizer, config).await;
        assert!(
            groups.split_whitespace().any(|gid| gid == "20001"),
            "{groups}"
        );
        if number == 0 {
            // The next agent process gives the same group to the same volume.
            drop(containerizer);
            let known = BTreeSet::from([around.id.clone()]);
            containerizer = with_groups(at.path(), known, 20001).await;
        }
    }
    let shared = around.sandbox.join("shared");
    assert_eq!(
        fs::read_to_string(shared.join("file")).unwrap(),
        "nobody\nirc\n"
    );
    let about = fs::metadata(shared.join("file")).unwrap();
    assert_eq!(about.gid(), 20001);
    // Root needs none; and there is no second one.
    let groups = said(&containerizer, nested("root", "root", "shared", "id -G")).await;
    assert!(!groups.contains("20001"), "{groups}");
    let refused = containerizer
        .launch(nested("more", "nobody", "more", "true"))
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("all 1 groups of --volume_gid_range are in use by other volumes"),
        "{refused}"
    );
    fs::remove_dir_all(&shared).unwrap();
    let groups = said(&containerizer, nested("later", "nobody", "more", "id -G")).await;
    assert!(
        groups.contains("20001"),
        "what is gone has no group: {groups}"
    );
    // The end of the container around gives its groups back, and nothing of it is the next one's.
    let left = around.sandbox.join("more");
    fs::write(left.join("file"), "").unwrap();
    assert_eq!(fs::metadata(left.join("file")).unwrap().gid(), 20001);
    containerizer.destroy(&around.id).await.unwrap();
    for path in [left.clone(), left.join("file")] {
        let about = fs::metadata(path).unwrap();
        assert_eq!((about.gid(), about.mode() & 0o2000), (0, 0));
    }
    let mut next = shell(at.path(), "next", "sleep 1000");
    next.is_command_task = false;
    containerizer.launch(next.clone()).await.unwrap();
    let mut config = nested("nobody", "nobody", "own", "id -G");
    config.id = next.id.child("nobody");
    config.sandbox = next.sandbox.join("containers/nobody");
    let groups = said(&containerizer, config).await;
    assert!(groups.contains("20001"), "{groups}");
    containerizer.destroy(&next.id).await.unwrap();
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_share_persistent_volumes_by_a_group() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let containerizer = with_groups(at.path(), BTreeSet::new(), 20002).await;
    let volume = at.path().join("volumes/roles/r/id");
    fs::create_dir_all(&volume).unwrap();
    let described = json!({
        "name": "disk", "type": "SCALAR", "scalar": { "value": 1 }, "shared": {},
        "reservations": [{ "type": "DYNAMIC", "role": "r" }],
        "disk": { "persistence": { "id": "id" }, "volume": { "mode": "RW", "container_path": "v" } },
    });
    let resource: v1::Resource = mesos_json::to_message(described.to_string().as_bytes()).unwrap();
    for user in ["nobody", "irc"] {
        let mut config = shell(
            at.path(),
            user,
            &format!("umask 002; echo {user} >> v/file"),
        );
        config.user = Some(user.to_owned());
        config.resources = convert::resources(std::slice::from_ref(&resource)).unwrap();
        containerizer.launch(config.clone()).await.unwrap();
        containerizer.wait(&config.id).await.unwrap();
        assert_eq!(read(&config, "stderr"), "");
    }
    let about = fs::metadata(&volume).unwrap();
    assert_eq!(
        (about.uid(), about.gid(), about.mode() & 0o2070),
        (0, 20001, 0o2070)
    );
    assert_eq!(
        fs::read_to_string(volume.join("file")).unwrap(),
        "nobody\nirc\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_going_was_only_recorded_goes_with_the_next_agent_process() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    let volume = |id: &str| -> v1::Resource {
        fs::create_dir_all(at.path().join("volumes/roles/r").join(id)).unwrap();
        let described = json!({
            "name": "disk", "type": "SCALAR", "scalar": { "value": 1 },
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": id }, "volume": { "mode": "RW", "container_path": id } },
        });
        mesos_json::to_message(described.to_string().as_bytes()).unwrap()
    };
    for isolator in ["filesystem/linux", "filesystem/posix"] {
        let name = isolator.replace('/', "-");
        // Without isolators nothing is done with what is recorded: an agent that ended in between.
        let begin = async |names: &[&str], known: BTreeSet<_>| {
            let loaded = kernel::load_in(names, json!({}), None, Some(at.path())).unwrap();
            let containerizer = common::containerizer(at.path(), loaded);
            containerizer.recover(known).await.unwrap();
            containerizer
        };
        let text = "while :; do if [ -e ask ]; then rm ask; for v in first later kept gone; do [ -e $v/in-$v ] && echo $v; \
                    done > answer; mv answer told; fi; sleep 0.05; done";
        let config = shell(at.path(), &name, text);
        let id = config.id.clone();
        let sandbox = config.sandbox.clone();
        let sees = async || {
            let told = sandbox.join("told");
            fs::write(sandbox.join("ask"), "").unwrap();
            common::wait_for("an answer", || told.exists()).await;
            let text = fs::read_to_string(&told).unwrap();
            fs::remove_file(told).unwrap();
            text
        };
        let volumes = ["first", "later", "kept", "gone"].map(volume);
        for id in ["first", "later", "kept", "gone"] {
            let path = at.path().join("volumes/roles/r").join(id);
            fs::write(path.join(format!("in-{id}")), "").unwrap();
        }
        let [first, later, kept, gone] = volumes;
        let set = async |containerizer: &Containerizer, volumes: &[&v1::Resource]| {
            let volumes: Vec<_> = volumes.iter().map(|volume| (*volume).clone()).collect();
            let resources = convert::resources(&volumes).unwrap();
            let updated = containerizer.update(&id, resources, Limits::default());
            updated.await.unwrap();
        };
        let containerizer = begin(&[isolator], BTreeSet::new()).await;
        let mut config = config.clone();
        config.resources = convert::resources(std::slice::from_ref(&first)).unwrap();
        containerizer.launch(config).await.unwrap();
        set(&containerizer, &[&first, &later, &kept, &gone]).await;
        assert_eq!(sees().await, "first\nlater\nkept\ngone\n", "{isolator}");
        drop(containerizer);
        let known = BTreeSet::from([id.clone()]);
        let containerizer = begin(&[], known.clone()).await;
        set(&containerizer, &[&kept]).await;
        drop(containerizer);
        // What is destroyed leaves nothing to compare with.
        fs::remove_dir_all(at.path().join("volumes/roles/r/gone")).unwrap();
        assert_eq!(sees().await, "first\nlater\nkept\n", "{isolator}");
        let containerizer = begin(&[isolator], known).await;
        assert_eq!(sees().await, "kept\n", "{isolator}");
        assert!(!sandbox.join("gone").exists(), "{isolator}");
        containerizer.destroy(&id).await.unwrap();
        containerizer.forget(&id).unwrap();
    }
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_groups_a_shared_volume_is_the_first_ones_who_has_it() {
    let at = tempfile::tempdir().unwrap();
    if !is_root() {
        return;
    }
    for isolator in ["filesystem/linux", "filesystem/posix"] {
        let isolators = kernel::load_in(&[isolator], json!({}), None, Some(at.path())).unwrap();
        let containerizer = common::containerizer(at.path(), isolators);
        containerizer.recover(BTreeSet::new()).await.unwrap();
        let name = isolator.replace('/', "-");
        let volume = at.path().join("volumes/roles/r").join(&name);
        fs::create_dir_all(&volume).unwrap();
        let described = json!({
            "name": "disk", "type": "SCALAR", "scalar": { "value": 1 }, "shared": {},
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": name }, "volume": { "mode": "RW", "container_path": "v" } },
        });
        let resource = mesos_json::to_message(described.to_string().as_bytes()).unwrap();
        let launch = async |user: &str| {
            let mut config = shell(at.path(), &format!("{name}-{user}"), "sleep 1000");
            config.user = Some(user.to_owned());
            config.resources = convert::resources(std::slice::from_ref(&resource)).unwrap();
            containerizer.launch(config.clone()).await.unwrap();
            config.id
        };
        let owner = || fs::metadata(&volume).unwrap().uid();
        let id_of = |user| {
            nix::unistd::User::from_name(user)
                .unwrap()
                .unwrap()
                .uid
                .as_raw()
        };
        let first = launch("nobody").await;
        assert_eq!(owner(), id_of("nobody"), "{isolator}");
        let second = launch("irc").await;
        assert_eq!(owner(), id_of("nobody"), "{isolator}");
        for id in [first, second] {
            containerizer.destroy(&id).await.unwrap();
            containerizer.forget(&id).unwrap();
        }
        let again = launch("root").await;
        assert_eq!(owner(), id_of("nobody"), "root needs it not: {isolator}");
        containerizer.destroy(&again).await.unwrap();
        let last = launch("irc").await;
        assert_eq!(owner(), id_of("irc"), "{isolator}");
        containerizer.destroy(&last).await.unwrap();
    }
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}
