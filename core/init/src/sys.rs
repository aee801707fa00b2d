//! The few system calls that need `unsafe`, and what is made of /proc.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    mount::MsFlags,
    sched::{CloneFlags as CloneFlag, setns},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        stat::{SFlag, fstat},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tepui_init::{CloneFlags, Join};

/// Whether a descriptor is a socket.
pub(crate) fn is_socket(fd: &impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| {
        SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFSOCK
    })
}

/// Takes standard input over as an owned descriptor, closed on exec, and puts /dev/null in its place.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open; replacing standard input closes only the duplicate source of `taken`.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(taken)
}

/// Forks, the child in new namespaces (`CLONE_NEW*` bits). None in the child.
pub(crate) fn fork_into(namespaces: u64) -> io::Result<Option<Pid>> {
    let flags = namespaces | u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: a null stack gives fork semantics. This program is single-threaded, so the child's copy of every lock
    // and of the allocator is in a consistent state.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(i32::try_from(pid).expect("a pid")))),
    }
}

/// Enters those namespaces whose kind is asked for.
pub(crate) fn enter(joins: &[Join], is_asked: impl Fn(CloneFlags) -> bool) -> Result<(), String> {
    for join in joins.iter().filter(|join| is_asked(join.kind)) {
        let kind = CloneFlag::from_bits_retain(join.kind.0 as i32);
        fs::File::open(&join.path)
            .and_then(|file| setns(file, kind).map_err(Into::into))
            .map_err(|error| format!("failed to enter '{}': {error}", join.path.display()))?;
    }
    Ok(())
}

/// Waits for a child without blocking and gives its raw wait status.
pub(crate) fn reap(pid: Option<Pid>, block: bool) -> Option<(Pid, i32)> {
    let mut status = 0;
    let options = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(pid.map_or(-1, Pid::as_raw), &raw mut status, options) } {
            ..0 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            ..=0 => return None,
            pid => return Some((Pid::from_raw(pid), status)),
        }
    }
}

/// Whether this process has children, also such as have ended and were not waited for.
fn has_children() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, look) != Err(Errno::ECHILD)
}

/// Makes orphaned descendants this process's children.
pub(crate) fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(Into::into)
}

/// Ends this process without running anything that its parent's copy of memory has registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; it does not return.
    unsafe { libc::_exit(code) }
}

/// The signals that both processes take from a descriptor instead of a handler.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    Ok(signals)
}

/// Gives every signal its default action and lets all through, as a command expects to find it.
pub(crate) fn reset_signals() {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action is no handler, so nothing can run in a signal's context.
            unsafe { libc::signal(signal as i32, libc::SIG_DFL) };
        }
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Sends a signal given as a number: real-time signals have no name in `nix`.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: always sound. An error means that the process is gone, which is what callers want in the end.
    unsafe { libc::kill(pid, signal) };
}

/// Makes a descriptor the process's n-th.
pub(crate) fn place(fd: &impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: `fd` is open. The descriptor that is replaced is one of the three standard ones, which nobody owns.
    if unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes standard input the controlling terminal of this process, which leads a session.
pub(crate) fn control_terminal() -> io::Result<()> {
    // SAFETY: takes numbers only; the kernel checks that standard input is a terminal.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes every capability outside a set (bit n is capability n) from all that this process will ever be.
pub(crate) fn drop_bounding(keep: u64) -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: takes numbers only.
        let there = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if there < 0 {
            // The kernel knows no capability of this number.
            break;
        }
        if there == 1 && keep & (1 << capability) == 0 {
            prctl(libc::PR_CAPBSET_DROP, capability, 0)?;
        }
    }
    Ok(())
}

/// Sets the capabilities of this process (bit n is capability n).
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // Two parts of 32 bits, lower ones first, of three sets each.
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let sets = [
        [low(effective), low(permitted), low(inheritable)],
        [high(effective), high(permitted), high(inheritable)],
    ];
    // SAFETY: both outlive the call and have the layout of version 3.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets programs without file capabilities keep these, which must be permitted and inheritable.
pub(crate) fn raise_ambient(set: u64) -> io::Result<()> {
    let wanted = (0..64).filter(|capability| set & (1 << capability) != 0);
    for capability in wanted {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        prctl(libc::PR_CAP_AMBIENT, raise, capability)?;
    }
    Ok(())
}

/// From now on user 0 gains no capabilities by executing a program.
pub(crate) fn give_root_no_capabilities() -> io::Result<()> {
    const NOROOT: libc::c_ulong = 1;
    prctl(libc::PR_SET_SECUREBITS, NOROOT, 0)
}

fn prctl(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers, no addresses.
    if unsafe { libc::prctl(option, first, second, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Installs a system call filter, given as the bytes of its instructions.
pub(crate) fn install_filter(bytes: &[u8]) -> io::Result<()> {
    let (instructions, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut instructions: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|[a, b, jt, jf, k @ ..]| libc::sock_filter {
            code: u16::from_ne_bytes([*a, *b]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidData)?,
        filter: instructions.as_mut_ptr(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program and its instructions outlive the call; the kernel copies and checks them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A copy of a tree of mounts that is not mounted anywhere yet, and in the peer groups of the original.
pub(crate) fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path outlives the call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) })
}

/// Mounts a tree that [`clone_tree`] has made.
pub(crate) fn attach_tree(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: the paths outlive the call, the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Adds restrictions (read-only, nosuid, nodev, noexec) to a mount and all below it; those it has stay.
pub(crate) fn restrict_tree(mounted: &OwnedFd, flags: MsFlags) -> io::Result<()> {
    let bits = [
        (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    ];
    let wanted = bits.iter().filter(|(flag, _)| flags.contains(*flag));
    let attributes = libc::mount_attr {
        attr_set: wanted.map(|(_, bit)| *bit).sum(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: both pointers outlive the call, the size is the structure's, the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes a word into a kernel file.
pub(crate) fn write_word(path: &Path, word: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(word.as_bytes())
}

/// The children of a process, all its threads' together.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .map(Pid::from_raw),
        );
    }
    found
}

/// All processes below one, parents first.
pub(crate) fn descendants(pid: Pid) -> Vec<Pid> {
    let mut found = children(pid);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// Kills and reaps until this process, a subreaper, has no child left.
pub(crate) fn kill_descendants() {
    let own = Pid::this();
    // Mostly there is none: then nothing is looked for.
    while has_children() {
        let mut all = BTreeSet::new();
        loop {
            let mut new = descendants(own);
            new.retain(|pid| all.insert(*pid));
            // Who is stopped forks no more, and its place is not free for another as that of the dead would be.
            for pid in &new {
                kill(pid.as_raw(), libc::SIGSTOP);
            }
            if new.is_empty() {
                break;
            }
        }
        for pid in &all {
            kill(pid.as_raw(), libc::SIGKILL);
        }
        if reap(None, true).is_none() {
            return;
        }
    }
}
