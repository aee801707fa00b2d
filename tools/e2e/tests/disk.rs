//! An agent whose disk is full or takes no more files: tasks fail and say why, what runs goes on, nothing partial stays, and
//! the agent works again when there is room. One whose disk cannot be written says so.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use tepui_e2e::images::{self, of_image, one_layer, walk};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{CommandInfo, Offer, TaskInfo, TaskState, command_info::Uri};

/// A small disk.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Of so many bytes and files, by tmpfs' options.
    fn mount(options: &str) -> Self {
        let at = tempfile::tempdir().expect("a folder");
        mount(
            Some("tmpfs"),
            at.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .expect("a disk");
        fs::set_permissions(
            at.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("own folder");
        Self(at)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// It has this many bytes left.
    Bytes(u64),
    /// It takes no file more.
    Files,
}

impl Trouble {
    fn begin(self, disk: &Disk) {
        let ballast = disk.path().join("ballast");
        match self {
            Self::Bytes(left) => {
                let mut file = File::create(ballast).expect("room for it");
                let full = io::copy(&mut io::repeat(1), &mut file).expect_err("it is small");
                assert_eq!(full.raw_os_error(), Some(Errno::ENOSPC as i32));
                let length = file.metadata().expect("own file").len();
                file.set_len(length.saturating_sub(left)).expect("own file");
            }
            Self::Files => {
                fs::create_dir(&ballast).expect("room for it");
                let mut names = (0..).map(|number: u32| ballast.join(number.to_string()));
                assert!(names.any(|name| File::create(name).is_err()));
            }
        }
    }

    fn end(self, disk: &Disk) {
        let ballast = disk.path().join("ballast");
        match self {
            Self::Bytes(_) => fs::remove_file(ballast).expect("own file"),
            Self::Files => fs::remove_dir_all(ballast).expect("own folder"),
        }
    }
}

fn with_uri(id: &str, uri: &Path, cache: bool) -> TaskInfo {
    let mut task = task(id, "true", 0.1, 32.0);
    let command = task.command.get_or_insert_with(CommandInfo::default);
    command.uris.push(Uri {
        value: uri.display().to_string(),
        cache: Some(cache),
        ..Uri::default()
    });
    task
}

/// Launches on an offer with room for all: what ended tasks free is offered in pieces.
fn launch(scheduler: &mut Scheduler, mut tasks: Vec<TaskInfo>) {
    let has_room = |offer: &Offer| {
        let cpus = offer.resources.iter().filter(|one| one.name == "cpus");
        cpus.filter_map(|one| one.scalar.as_ref())
            .map(|scalar| scalar.value)
            .sum::<f64>()
            > 1.0
    };
    let offer = scheduler.wait("a large offer", |scheduler| {
        let found = scheduler.offers.iter().position(has_room)?;
        Some(scheduler.offers.remove(found))
    });
    for task in &mut tasks {
        task.agent_id = offer.agent_id.clone();
    }
    scheduler.accept(&offer, tasks);
}

/// What an agent keeps on its way: of images, of fetched files, of records.
fn partial(work: &Path) -> Vec<PathBuf> {
    let mut waiting = vec![work.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_partial = dir.ends_with("staging")
                || dir.ends_with("cache") && dir.parent().is_some_and(|dir| dir.ends_with("uri"))
                || [".tmp", ".new"]
                    .iter()
                    .any(|end| name.to_string_lossy().ends_with(end));
            if is_partial {
                found.push(path.clone());
            }
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path);
            }
        }
    }
    found
}

#[test]
fn an_agent_goes_on_when_its_disk_has_room_again() {
    if !images::available() {
        return;
    }
    for trouble in [Trouble::Bytes(300 << 10), Trouble::Bytes(0), Trouble::Files] {
        suffer(trouble);
    }
}

fn suffer(trouble: Trouble) {
    let scratch = Scratch::new();
    let disk = Disk::mount("size=48m,nr_inodes=2000");
    std::os::unix::fs::symlink(disk.path(), scratch.path().join("agent")).expect("a link");
    let saved = scratch.path().join("saved");
    fs::create_dir(&saved).expect("a folder");
    let layout = one_layer(scratch.path(), "box");
    let from = format!("oci:{}:latest", layout.display());
    let to = format!(
        "docker-archive:{}:box:latest",
        saved.join("box.tar").display()
    );
    images::run("skopeo", &["copy", "--quiet", &from, &to]);
    let large = scratch.path().join("large");
    fs::write(&large, vec![7; 1 << 20]).expect("a file");
    let flags = [
        "--isolation=filesystem/linux,docker/runtime",
        "--image_providers=DOCKER",
        "--resources=cpus:8;mem:4096;disk:40",
        &format!("--docker_registry={}", saved.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("disk", true));
    let go = scratch.path().join("go");
    let wait = format!("while ! [ -e {} ]; do sleep 0.05; done", go.display());
    scheduler.launch(vec![task("before", &wait, 0.1, 32.0)]);
    scheduler.wait_state("before", TaskState::TaskRunning);

    trouble.begin(&disk);
    let during = ["uri", "cached", "image"];
    launch(
        &mut scheduler,
        vec![
            with_uri("uri", &large, false),
            with_uri("cached", &large, true),
            of_image("image", "box", Some("true")),
        ],
    );
    for id in during {
        let failed = scheduler.wait(&format!("the end of {id}"), |scheduler| {
            let updates = scheduler.updates.get(id)?.iter();
            let ends = [
                TaskState::TaskFailed,
                TaskState::TaskLost,
                TaskState::TaskDropped,
            ];
            let mut ends = updates.filter(|status| ends.contains(&status.state()));
            ends.next().cloned()
        });
        let message = failed.message();
        assert!(
            message.contains("No space left on device"),
            "{trouble:?}, {id}: {message}"
        );
    }
    // What ran before ends, whether that can be noted or not.
    fs::write(&go, "").expect("a file");
    wait_for("the end of what ran before", || {
        let state = agent.get("/containers");
        let is_empty = state.as_array().is_some_and(Vec::is_empty);
        if is_empty { Ok(()) } else { Err(state) }
    });
    assert_eq!(agent.get_text("/health"), "");

    trouble.end(&disk);
    scheduler.wait_state("before", TaskState::TaskFinished);
    launch(
        &mut scheduler,
        vec![
            with_uri("uri-after", &large, false),
            with_uri("cached-after", &large, true),
            of_image("image-after", "box", Some("true")),
        ],
    );
    for id in during {
        scheduler.wait_state(&format!("{id}-after"), TaskState::TaskFinished);
    }
    let left = partial(disk.path());
    let is_cached = |path: &PathBuf| path.to_string_lossy().ends_with("-large");
    assert!(
        left.len() <= 1 && left.iter().all(is_cached),
        "{trouble:?}: {left:?}"
    );
    assert!(walk(disk.path(), "layers").is_dir());
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

#[test]
fn an_agent_whose_disk_cannot_be_written_says_so() {
    if !images::available() {
        return;
    }
    let scratch = Scratch::new();
    let disk = Disk::mount("size=1m");
    std::os::unix::fs::symlink(disk.path(), scratch.path().join("agent")).expect("a link");
    let (none, flags) = (None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
    mount(none, disk.path(), none, flags, none).expect("mounted anew");
    let nobody = "127.0.0.1:1".parse().expect("an address");
    let mut agent = Daemon::agent_command(0, scratch.path(), "agent", nobody, &[]);
    let output = agent.output().expect("it is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let last = said.lines().last().unwrap_or_default();
    // By the name it was given, or where that leads.
    let names = [scratch.path().join("agent"), disk.path().to_owned()];
    let is_named = |name: &PathBuf| last.contains(&name.display().to_string());
    assert!(
        last.contains("Read-only file system") && names.iter().any(is_named),
        "{said}"
    );
}
