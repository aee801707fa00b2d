//! The floor beside the containers of an image: what the kernel alone needs for as many, by a bare loop.
//!
//! For each: directories, cgroups of its own for cpu, cpuacct and memory with their limits, one process in a pid and a mount
//! namespace that joins them, mounts an overlay and /proc, changes its root and executes `sleep`. No supervisor, no
//! records, no log, no devices, no masked paths, and nobody who is told.

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, chdir, execv, pivot_root},
};

const HIERARCHIES: [&str; 3] = ["cpu", "cpuacct", "memory"];

/// One container of the loop.
struct Bare {
    pid: Pid,
    cgroups: Vec<PathBuf>,
    directory: PathBuf,
}

/// Launches and destroys containers below a directory, of a layer that has `/bin/sleep`; how long both took. The process
/// must have one thread.
pub(crate) fn run(containers: usize, at: &Path, layer: &Path) -> io::Result<(Duration, Duration)> {
    let roots = HIERARCHIES.map(|name| {
        let own = format!("tepui-bench-floor-{}", std::process::id());
        Path::new("/sys/fs/cgroup").join(name).join(own)
    });
    for root in &roots {
        fs::create_dir(root)?;
    }
    let begun = Instant::now();
    // Its writing end is closed by each program that is executed.
    let (mut begins, end) = io::pipe()?;
    let all: Vec<Bare> = (0..containers)
        .map(|number| launch(&at.join(number.to_string()), number, &roots, layer))
        .collect::<io::Result<_>>()?;
    drop(end);
    begins.read_to_end(&mut Vec::new())?;
    let launched = begun.elapsed();
    let begun = Instant::now();
    let ended = destroy(&all);
    let destroyed = begun.elapsed();
    for root in &roots {
        fs::remove_dir(root)?;
    }
    match ended? {
        true => Ok((launched, destroyed)),
        false => Err(io::Error::other("a bare container ended early")),
    }
}

fn launch(directory: &Path, number: usize, roots: &[PathBuf], layer: &Path) -> io::Result<Bare> {
    for part in ["upper", "work", "root", "sandbox"] {
        fs::create_dir_all(directory.join(part))?;
    }
    let cgroups: Vec<PathBuf> = roots
        .iter()
        .map(|root| root.join(number.to_string()))
        .collect();
    for cgroup in &cgroups {
        fs::create_dir(cgroup)?;
    }
    let [cpu, _, memory] = &cgroups[..] else {
        unreachable!("one of each hierarchy")
    };
    fs::write(cpu.join("cpu.shares"), "102")?;
    fs::write(memory.join("memory.soft_limit_in_bytes"), "33554432")?;
    fs::write(memory.join("memory.limit_in_bytes"), "33554432")?;
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::SIGCHLD;
    // SAFETY: a null stack gives fork semantics, and this process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            let error = become_container(directory, &cgroups, layer);
            let _ = writeln!(io::stderr(), "{error}");
            // SAFETY: ends this copy of the process without running what the other has registered.
            unsafe { libc::_exit(1) }
        }
        pid => Ok(Bare {
            pid: Pid::from_raw(i32::try_from(pid).expect("a pid")),
            cgroups,
            directory: directory.to_owned(),
        }),
    }
}

/// Comes back with what failed.
fn become_container(directory: &Path, cgroups: &[PathBuf], layer: &Path) -> io::Error {
    let prepare = || -> io::Result<()> {
        for cgroup in cgroups {
            fs::write(cgroup.join("tasks"), "0")?;
        }
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        let root = directory.join("root");
        let part = |name: &str| directory.join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layer.display(),
            part("upper"),
            part("work")
        );
        let kind = Some("overlay");
        mount(kind, &root, kind, MsFlags::MS_NODEV, Some(&*options))?;
        chdir(&root)?;
        mount(Some("proc"), "proc", Some("proc"), MsFlags::empty(), none)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        Ok(())
    };
    if let Err(error) = prepare() {
        return error;
    }
    let arguments = ["sleep", "1000"].map(|word| CString::new(word).expect("no zero in it"));
    match execv(c"/bin/sleep", &arguments) {
        Err(errno) => errno.into(),
        Ok(never) => match never {},
    }
}

/// Whether all were running until now.
fn destroy(all: &[Bare]) -> io::Result<bool> {
    for bare in all {
        kill(bare.pid, Signal::SIGKILL)?;
    }
    let mut killed = true;
    for bare in all {
        let status = waitpid(bare.pid, None)?;
        killed &= matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        for cgroup in &bare.cgroups {
            // A process that has just ended is still counted for a moment.
            while let Err(error) = fs::remove_dir(cgroup) {
                if error.kind() != io::ErrorKind::ResourceBusy {
                    return Err(error);
                }
                std::thread::yield_now();
            }
        }
        fs::remove_dir_all(&bare.directory)?;
    }
    Ok(killed)
}
