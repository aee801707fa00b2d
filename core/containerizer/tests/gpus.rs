//! Containers with GPUs, as root on cgroups of either version. There is no GPU: a double of NVML tells of two, and their nodes
//! have NVIDIA's numbers and no driver behind them. So what a container may use cannot be opened for want of the device,
//! and what it may not for want of the permission.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{busybox, containerizer, kernel, provisioner_of, read, shell, wait_for};
use tepui_containerizer::{ContainerConfig, Images, Isolator, leaks};
use tepui_model::resources::Resources;

/// A directory with device nodes, and the double of NVML.
fn machine(at: &Path) -> Option<PathBuf> {
    let library = at.join("libnvml-double.so");
    if let Some(built) = std::env::var_os("TEPUI_TEST_NVML") {
        std::fs::copy(built, &library).unwrap();
    } else {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/nvml_double.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source);
        match cc.status() {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                eprintln!("not run: needs a C compiler (Debian: gcc): {error}");
                return None;
            }
        }
    }
    let dev = at.join("dev");
    std::fs::create_dir(&dev).unwrap();
    for (name, minor) in [
        ("nvidia0", 0),
        ("nvidia1", 1),
        ("nvidiactl", 255),
        ("nvidia-uvm", 254),
    ] {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&dev.join(name), SFlag::S_IFCHR, mode, makedev(195, minor)).unwrap();
    }
    Some(dev)
}

fn isolators(at: &Path, root: &str) -> Vec<Arc<dyn Isolator>> {
    let settings = serde_json::json!({
        "cgroups": { "cgroups_root": root },
        "gpu/nvidia": { "library": at.join("libnvml-double.so"), "device_dir": at.join("dev") },
    });
    let names = ["filesystem/linux", "cgroups/devices", "gpu/nvidia"];
    kernel::load_in(&names, settings, Some(&at.join("modules")), Some(at)).unwrap()
}

/// Says which devices may be used, once for each file `1`, `2`, ... of the sandbox.
fn tries(at: &Path) -> String {
    let dev = at.join("dev").display().to_string();
    format!(
        "n=0; while :; do n=$((n + 1)); while ! test -e $n; do sleep 0.05; done; \
         for device in nvidia0 nvidia1 nvidiactl; do \
         if (true < {dev}/$device) 2>&1 | grep -q permitted; then echo no; else echo $device; fi; done; echo end; done"
    )
}

fn with_gpus(at: &Path, id: &str, gpus: &str) -> ContainerConfig {
    let mut config = shell(at, id, &tries(at));
    let text = format!("cpus:0.1;mem:32;gpus:{gpus}");
    config.resources = Resources::parse(&text, "*").unwrap();
    config
}

/// What a container may use, asked for the n-th time.
async fn usable(config: &ContainerConfig, n: usize) -> String {
    std::fs::write(config.sandbox.join(n.to_string()), "").unwrap();
    let answers = || read(config, "stdout");
    wait_for("the tries", || answers().matches("end\n").count() == n).await;
    answers()
        .split("end\n")
        .nth(n - 1)
        .unwrap()
        .replace('\n', " ")
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_is_one_containers_until_it_gives_it_back() {
    if !kernel::limits() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let Some(_) = machine(at.path()) else { return };
    let root = kernel::Root::new("gpus");
    let first = containerizer(at.path(), isolators(at.path(), &root.0));
    first.recover(BTreeSet::new()).await.unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|id| with_gpus(at.path(), id, "1"));
    let none = with_gpus(at.path(), "none", "0");
    for config in [&a, &b, &none] {
        first.launch(config.clone()).await.unwrap();
    }
    assert_eq!(usable(&a, 1).await, "nvidia0 no nvidiactl");
    assert_eq!(usable(&b, 1).await, "no nvidia1 nvidiactl");
    assert_eq!(usable(&none, 1).await, "no no nvidiactl");
    let refused = first.launch(c.clone()).await.unwrap_err().to_string();
    assert!(
        refused.contains("1 GPUs are asked for and 0 are there"),
        "{refused}"
    );
    let half = first.launch(with_gpus(at.path(), "half", "0.5")).await;
    let half = half.unwrap_err().to_string();
    assert!(half.contains("expected a whole number"), "{half}");

    // A later agent knows who has which.
    drop(first);
    let second = containerizer(at.path(), isolators(at.path(), &root.0));
    let known = [&a.id, &b.id, &none.id].map(Clone::clone).into();
    assert_eq!(second.recover(known).await.unwrap().running.len(), 3);
    let late = with_gpus(at.path(), "late", "1");
    assert!(second.launch(late).await.is_err());
    // One gives its own back while it runs, another takes it.
    let resources = Resources::cpus_mem(0.1, 32.0);
    second
        .update(&a.id, resources, Default::default())
        .await
        .unwrap();
    assert_eq!(usable(&a, 2).await, "no no nvidiactl");
    let more = Resources::parse("cpus:0.1;mem:32;gpus:2", "*").unwrap();
    second
        .update(&b.id, more, Default::default())
        .await
        .unwrap();
    assert_eq!(usable(&b, 2).await, "nvidia0 nvidia1 nvidiactl");
    // The end of a container is enough.
    second.destroy(&b.id).await.unwrap();
    let next = with_gpus(at.path(), "next", "2");
    second.launch(next.clone()).await.unwrap();
    assert_eq!(usable(&next, 1).await, "nvidia0 nvidia1 nvidiactl");
    for config in [&a, &none, &next] {
        second.destroy(&config.id).await.unwrap();
    }
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_shares_gpus_or_has_some_of_its_own() {
    if !kernel::limits() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let Some(_) = machine(at.path()) else { return };
    let root = kernel::Root::new("gpus-nested");
    let containerizer = containerizer(at.path(), isolators(at.path(), &root.0));
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mut around = with_gpus(at.path(), "around", "2");
    around.is_command_task = false;
    containerizer.launch(around.clone()).await.unwrap();
    let nested = |name: &str, share_cgroups, gpus| ContainerConfig {
        id: around.id.child(name),
        sandbox: around.sandbox.join("containers").join(name),
        share_cgroups,
        is_command_task: false,
        ..with_gpus(at.path(), name, gpus)
    };
    let sharing = nested("sharing", true, "0");
    let [own, other, third] = ["own", "other", "third"].map(|name| nested(name, false, "1"));
    for config in [&sharing, &own, &other] {
        containerizer.launch(config.clone()).await.unwrap();
    }
    assert_eq!(usable(&sharing, 1).await, "nvidia0 nvidia1 nvidiactl");
    assert_eq!(usable(&own, 1).await, "nvidia0 no nvidiactl");
    assert_eq!(usable(&other, 1).await, "no nvidia1 nvidiactl");
    let refused = containerizer.launch(third).await.unwrap_err().to_string();
    assert!(
        refused.contains("free in the container around it"),
        "{refused}"
    );
    containerizer.destroy(&own.id).await.unwrap();
    let again = nested("again", false, "1");
    containerizer.launch(again.clone()).await.unwrap();
    assert_eq!(usable(&again, 1).await, "nvidia0 no nvidiactl");
    containerizer.destroy(&around.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_get_the_nodes_and_the_drivers_files_they_ask_for() {
    let at = tempfile::tempdir().unwrap();
    let (true, Some(rootfs)) = (kernel::limits(), busybox(at.path())) else {
        return;
    };
    let Some(_) = machine(at.path()) else { return };
    let root = kernel::Root::new("gpus-image");
    let mut isolators = isolators(at.path(), &root.0);
    let image = serde_json::json!({ "config": { "Labels": { "com.nvidia.volumes.needed": "nvidia_driver" } } });
    let images = Images {
        config: image.to_string().into_bytes(),
        ..Images::default()
    };
    isolators.push(provisioner_of(&rootfs, images));
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mut config = with_gpus(at.path(), "c", "1");
    let text = "ls /dev | while read name; do case $name in nvidia*) echo $name; esac; done; \
                ls /usr/local/nvidia; mkdir /usr/local/nvidia/x 2>&- || echo read-only; echo $LD_LIBRARY_PATH $PATH";
    config.command.as_mut().unwrap().value = text.to_owned();
    containerizer.launch(config.clone()).await.unwrap();
    containerizer.wait(&config.id).await.unwrap();
    assert_eq!(read(&config, "stderr"), "");
    assert_eq!(
        read(&config, "stdout"),
        "nvidia-uvm\nnvidia0\nnvidiactl\nbin\nlib\nlib64\nread-only\n\
         /usr/local/nvidia/lib:/usr/local/nvidia/lib64:/usr/local/cuda/compat \
         /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/nvidia/bin\n"
    );
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}
