//! Volumes of Docker's volume drivers: by a `dvdcli` that the test plays, which makes real mounts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tepui_e2e::images::stdout;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::volume::source;
use tepui_proto::v1::{self, TaskInfo, TaskState, volume};

/// Writes a `dvdcli` to `dir/bin`. Its driver `tmp` mounts a tmpfs at `dir/mounts/NAME`, again if it is mounted, as real
/// ones do; what is not mounted it does not unmount. It knows no volume `none`. What it is asked stands in `dir/asked`.
fn dvdcli(dir: &Path) -> PathBuf {
    let (bin, mounts) = (dir.join("bin"), dir.join("mounts"));
    fs::create_dir_all(&bin).expect("a folder");
    fs::create_dir_all(&mounts).expect("a folder");
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> {}\n\
         [ \"$2\" = --volumedriver=tmp ] || {{ echo 'Error: unknown driver' >&2; exit 1; }}\n\
         name=${{3#--volumename=}}; at={}/$name\n\
         [ \"$name\" != none ] || {{ echo 'Error: no such volume' >&2; exit 1; }}\n\
         case $1 in\n\
         mount) mkdir -p $at; mountpoint -q $at || mount -t tmpfs -o mode=755 tmpfs $at; echo \"$at\" ;;\n\
         unmount) umount $at ;;\n\
         esac\n",
        dir.join("asked").display(),
        mounts.display()
    );
    let program = bin.join("dvdcli");
    fs::write(&program, text).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("own file");
    bin
}

/// An agent that finds this `dvdcli`; on port 0 a first one.
fn agent(scratch: &Scratch, master: &Daemon, port: u16) -> Daemon {
    let flags = [
        "--isolation=filesystem/linux,docker/volume",
        "--resources=cpus:4;mem:2048",
        "--docker_volume_chown",
    ];
    let mut command = Daemon::agent_command(port, scratch.path(), "agent", master.address, &flags);
    let path = std::env::var("PATH").expect("a path");
    let bin = scratch.path().join("bin");
    command.env("PATH", format!("{}:{path}", bin.display()));
    Daemon::run("agent", command, scratch.path())
}

/// A task with volumes of drivers, each at `data/NAME` in its sandbox.
fn with_volumes(id: &str, command: &str, volumes: &[(&str, &str)]) -> TaskInfo {
    let mut task = task(id, command, 0.1, 32.0);
    task.command.as_mut().expect("set").user = Some("nobody".to_owned());
    let volumes = volumes.iter().map(|(driver, name)| v1::Volume {
        mode: volume::Mode::Rw.into(),
        container_path: format!("data/{name}"),
        source: Some(volume::Source {
            r#type: Some(source::Type::DockerVolume.into()),
            docker_volume: Some(source::DockerVolume {
                driver: Some((*driver).to_owned()),
                name: (*name).to_owned(),
                driver_options: Some(v1::Parameters {
                    parameter: vec![v1::Parameter {
                        key: "size".to_owned(),
                        value: "5".to_owned(),
                    }],
                }),
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    task.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        volumes: volumes.collect(),
        ..Default::default()
    });
    task
}

fn available() -> bool {
    let has_mountpoint = Command::new("mountpoint")
        .arg("-q")
        .arg("/")
        .status()
        .is_ok();
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root || !has_mountpoint {
        eprintln!("NOT RUN: needs root and mountpoint (Debian's util-linux)");
    }
    is_root && has_mountpoint
}

#[test]
fn a_volume_is_mounted_for_all_who_have_it_and_unmounted_after_the_last() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    dvdcli(scratch.path());
    let asked = || fs::read_to_string(scratch.path().join("asked")).unwrap_or_default();
    let count = |words: &str| {
        asked()
            .lines()
            .filter(|line| line.starts_with(words))
            .count()
    };
    let master = Daemon::master(scratch.path(), &[]);
    let first = agent(&scratch, &master, 0);
    // A scheduler that is gone is offered nothing; its task runs as long as the agent does.
    let mut lost = Scheduler::subscribe(master.address, framework("lost", false));
    let volumes = [("tmp", "left"), ("tmp", "shared")];
    lost.launch(vec![with_volumes("lost", "sleep 1000", &volumes)]);
    lost.wait_state("lost", TaskState::TaskRunning);
    drop(lost);
    let mut kept = Scheduler::subscribe(master.address, framework("kept", true));
    // The writer goes on until it is told to end, in the volume itself.
    let write =
        "echo written > data/shared/file; while ! [ -e data/shared/end ]; do sleep 0.05; done";
    let read = "while ! [ -e data/shared/file ]; do sleep 0.05; done; cat data/shared/file";
    kept.launch(vec![
        with_volumes("writer", write, &[("tmp", "shared"), ("tmp", "own")]),
        with_volumes("reader", read, &[("tmp", "shared")]),
        with_volumes("none", "true", &[("tmp", "good"), ("tmp", "none")]),
        with_volumes("twice", "true", &[("tmp", "x"), ("tmp", "x")]),
    ]);
    kept.wait_state("reader", TaskState::TaskFinished);
    assert_eq!(
        stdout(&scratch, "agent", "reader").lines().last(),
        Some("written")
    );
    let shared = "--volumedriver=tmp --volumename=shared";
    assert_eq!(count(&format!("mount {shared} --volumeopts=size=5")), 3);
    let mounted = scratch.path().join("mounts/shared");
    let nobody = nix::unistd::User::from_name("nobody")
        .ok()
        .flatten()
        .expect("a user");
    assert_eq!(
        fs::metadata(&mounted).expect("a folder").uid(),
        nobody.uid.as_raw()
    );
    let none = kept.wait_state("none", TaskState::TaskFailed);
    let words = "Failed to mount the volume 'none' of the driver 'tmp': 'dvdcli' ended with exit status: 1: \
                 Error: no such volume";
    assert!(none.message().contains(words), "{}", none.message());
    let twice = kept.wait_state("twice", TaskState::TaskFailed);
    assert!(
        twice.message().contains("asked for twice"),
        "{}",
        twice.message()
    );
    // What was mounted for the launch that failed is not any more.
    wait_for("the end of the other volume", || {
        match count("unmount --volumedriver=tmp --volumename=good") {
            1 => Ok(()),
            _ => Err(asked()),
        }
    });

    // Those tasks that end with the agent: the next one unmounts what only they had.
    let port = first.address.port();
    first.kill();
    let second = agent(&scratch, &master, port);
    wait_for("the end of the volume that was left", || {
        match count("unmount --volumedriver=tmp --volumename=left") {
            1 => Ok(()),
            _ => Err(asked()),
        }
    });
    assert_eq!(count(&format!("unmount {shared}")), 0, "{}", asked());
    assert!(mounted.join("file").exists());
    fs::write(mounted.join("end"), "").expect("the volume");
    kept.wait_state("writer", TaskState::TaskFinished);
    wait_for("the end of the shared volume", || {
        match count(&format!("unmount {shared}")) {
            1 => Ok(()),
            _ => Err(asked()),
        }
    });
    let noted = scratch.path().join("agent/modules");
    let left = fs::read_dir(&noted).expect("a folder").flatten();
    let left: Vec<_> = left
        .filter(|entry| entry.file_name().to_string_lossy().contains("docker"))
        .flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten())
        .flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    second.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}
