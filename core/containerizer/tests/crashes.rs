//! A process that embeds the containerizer is killed before any of its system calls, whatever it is about: cgroups, mounts,
//! volumes of drivers, groups of shared volumes. The next one leaves nothing of it behind. As root.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{kernel, settings, shell, tracer, wait_for};
use serde_json::{Value, json};
use tepui_containerizer::{ContainerConfig, Containerizer, Limits, leaks};
use tepui_model::{id::ContainerId, resources::Resources};
use tepui_proto::{convert, json as mesos_json, v1::ContainerInfo};

const DIRECTORY: &str = "TEPUI_TEST_DIRECTORY";
const ROOT: &str = "TEPUI_TEST_ROOT";
/// Effects from one that a process is killed before to the next; all of them with `TEPUI_TEST_EVERY=1`.
const EVERY: &str = "TEPUI_TEST_EVERY";
const USUAL: u64 = 9;

const ISOLATORS: [&str; 6] = [
    "namespaces/pid",
    "cgroups/cpu",
    "cgroups/mem",
    "filesystem/linux",
    "volume/sandbox_path",
    "docker/volume",
];

/// A driver of volumes, which makes real mounts. One that is mounted it mounts again as it is; what is not mounted it does
/// not unmount. It is slow with the one called `two` as long as there is a file `hold`, and says when it has begun.
fn dvdcli(at: &Path) {
    let program = at.join("dvdcli");
    let text = format!(
        "#!/bin/sh\ncd {}; name=${{3#--volumename=}}; at=mounts/$name; touch $1-$name\n\
         while [ $name = two ] && [ $1 = mount ] && [ -e hold ]; do sleep 0.02; done\n\
         case $1 in\n\
         mount) mkdir -p $at; mountpoint -q $at || mount -t tmpfs tmpfs $at; echo $PWD/$at ;;\n\
         unmount) umount $at ;;\n\
         esac\n",
        at.display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn containerizer(at: &Path, root: &str) -> Containerizer {
    let ranges = json!({ "volume_gid_ranges": [[20001, 20003]] });
    let own = json!({
        "cgroups": { "cgroups_root": root },
        "filesystem/linux": ranges,
        "volume/sandbox_path": ranges,
        "docker/volume": { "dvdcli": at.join("dvdcli"), "docker_volume_checkpoint_dir": at.join("docker") },
    });
    let isolators = kernel::load_in(&ISOLATORS, own, None, Some(at)).unwrap();
    Containerizer::new(settings(at), isolators).unwrap()
}

fn resources(at: &Path, volumes: &[&str]) -> Resources {
    let mut all = vec![
        json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": 0.1 } }),
        json!({ "name": "mem", "type": "SCALAR", "scalar": { "value": 32 } }),
    ];
    for id in volumes {
        fs::create_dir_all(at.join("volumes/roles/r").join(id)).unwrap();
        all.push(json!({
            "name": "disk", "type": "SCALAR", "scalar": { "value": 1 }, "shared": {},
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": id }, "volume": { "mode": "RW", "container_path": id } },
        }));
    }
    let all = all
        .iter()
        .map(|one| mesos_json::to_message(one.to_string().as_bytes()).unwrap());
    convert::resources(&all.collect::<Vec<_>>()).unwrap()
}

fn with_volumes(at: &Path, name: &str, volumes: &[Value]) -> ContainerConfig {
    let info = json!({ "type": "MESOS", "volumes": volumes }).to_string();
    let info: ContainerInfo = mesos_json::to_message(info.as_bytes()).unwrap();
    ContainerConfig {
        container: Some(info),
        is_command_task: false,
        sandbox: at.join("slaves/s").join(name),
        ..shell(at, name, "sleep 1000")
    }
}

fn of_driver(name: &str) -> Value {
    let volume = json!({ "driver": "tmp", "name": name });
    json!({ "mode": "RW", "container_path": format!("data/{name}"),
        "source": { "type": "DOCKER_VOLUME", "docker_volume": volume } })
}

/// What the process does that is killed.
async fn work(containerizer: &Containerizer, at: &Path) {
    let mut first = with_volumes(at, "a", &[of_driver("one"), of_driver("two")]);
    first.user = Some("nobody".to_owned());
    first.resources = resources(at, &["p"]);
    containerizer.launch(first.clone()).await.unwrap();
    for volumes in [&["p", "q"][..], &["q"]] {
        let changed = resources(at, volumes);
        let updated = containerizer.update(&first.id, changed, Limits::default());
        updated.await.unwrap();
    }
    let parent = json!({ "mode": "RW", "container_path": "v",
        "source": { "type": "SANDBOX_PATH", "sandbox_path": { "type": "PARENT", "path": "shared" } } });
    let mut nested = with_volumes(at, "n", &[parent]);
    nested.id = first.id.child("n");
    nested.sandbox = first.sandbox.join("containers/n");
    nested.user = Some("nobody".to_owned());
    containerizer.launch(nested).await.unwrap();
    let second = with_volumes(at, "b", &[of_driver("one")]);
    containerizer.launch(second.clone()).await.unwrap();
    for id in [first.id.child("n"), first.id, second.id] {
        containerizer.destroy(&id).await.unwrap();
        containerizer.forget(&id).unwrap();
    }
}

/// The process that is killed: this program again, told by its environment.
#[test]
#[ignore = "only as a child of the other test"]
fn embedded() {
    let Some(at) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    // Until it is traced.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let containerizer = containerizer(&at, &std::env::var(ROOT).unwrap());
        containerizer.recover(BTreeSet::new()).await.unwrap();
        work(&containerizer, &at).await;
    });
}

/// What is left in a directory that should be empty but for these.
fn left(directory: PathBuf, but: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let left = entries.filter(|entry| !but.iter().any(|name| entry.file_name() == *name));
    left.map(|entry| entry.path()).collect()
}

/// The process that is to be killed.
fn victim(at: &Path, root: &kernel::Root) -> Command {
    dvdcli(at);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["embedded", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, at)
        .env(ROOT, &root.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Ends what a containerizer knows, and checks that nothing is left then.
async fn end_all(containerizer: &Containerizer, at: &Path, root: &kernel::Root, about: &str) {
    let mut all = containerizer.containers();
    // What is nested goes before what is around it.
    all.sort();
    for id in all.into_iter().rev() {
        containerizer.destroy(&id).await.unwrap();
        containerizer.forget(&id).unwrap();
    }
    let begun = Instant::now();
    loop {
        let mut found = leaks::find(at, Some(&root.0), &[]);
        let empty = [
            ("run", &[][..]),
            ("meta", &["volume_gid_manager"]),
            ("docker", &["lock"]),
        ];
        for (directory, but) in empty {
            let left = left(at.join(directory), but).into_iter();
            found.extend(left.map(|path| path.display().to_string()));
        }
        let groups = fs::read_to_string(at.join("meta/volume_gid_manager/volume_gids"));
        let groups = groups.unwrap_or_default();
        let of_sandboxes = groups.lines().filter(|line| line.contains("/slaves/"));
        found.extend(of_sandboxes.map(str::to_owned));
        if found.is_empty() {
            return;
        }
        // A supervisor that was just being started ends as soon as it gets to run.
        let is_late = begun.elapsed() > Duration::from_secs(30);
        assert!(!is_late, "{about}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn kill_and_recover(kill_at: u64) -> bool {
    let at = tempfile::tempdir().unwrap();
    let root = kernel::Root::new(&format!("crashes{kill_at}"));
    let mut command = victim(at.path(), &root);
    let ended = tokio::task::spawn_blocking(move || tracer::run(&mut command, kill_at));
    let ended = ended.await.unwrap();
    let survived = match ended {
        tracer::End::Killed(_) => false,
        tracer::End::Itself(status, effects) => {
            assert_eq!(status, 0, "it fails");
            assert!(effects > 100, "only {effects} effects");
            true
        }
    };
    let known = ["a", "b"].map(ContainerId::new);
    let known = match kill_at % 2 {
        0 => BTreeSet::new(),
        _ => known.into(),
    };
    let containerizer = containerizer(at.path(), &root.0);
    containerizer.recover(known).await.unwrap();
    let about = format!("effect {kill_at}, {ended:?}");
    end_all(&containerizer, at.path(), &root, &about).await;
    survived
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_outlives_its_agent_is_waited_for() {
    if !kernel::available() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let root = kernel::Root::new("straggler");
    fs::write(at.path().join("hold"), "").unwrap();
    let mut child = victim(at.path(), &root).spawn().unwrap();
    let file = |name: &str| at.path().join(name);
    wait_for("the driver", || file("mount-two").exists()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let containerizer = containerizer(at.path(), &root.0);
    let recover = containerizer.recover(BTreeSet::new());
    let go = async {
        // An agent that does not wait has it unmounted now, in vain.
        let in_vain = wait_for("nothing", || file("unmount-two").exists());
        let _ = tokio::time::timeout(Duration::from_millis(300), in_vain).await;
        fs::remove_file(file("hold")).unwrap();
    };
    let (recovered, ()) = tokio::join!(recover, go);
    recovered.unwrap();
    wait_for("the driver's end", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        file("unmount-two").exists() && !mounts.contains(&file("mounts/two").display().to_string())
    })
    .await;
    end_all(&containerizer, at.path(), &root, "the driver").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_crash_comes_between_nothing_is_left() {
    if !kernel::available() {
        return;
    }
    let every = std::env::var(EVERY).map_or(USUAL, |every| every.parse().unwrap());
    for kill_at in (0..).step_by(usize::try_from(every).unwrap()) {
        if kill_and_recover(kill_at).await {
            return;
        }
    }
}
