//! Kills a process before any one of its system calls that change something, so that it can be tried what is left then.

#![allow(
    unsafe_code,
    reason = "the kernel's calls for tracing have no safe form here"
)]

use std::{
    io,
    process::{Child, Command, Stdio},
};

/// What leaves something behind, or tells somebody.
const EFFECTS: &[libc::c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_move_mount,
    // The first call after the start of a program.
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_symlinkat,
    libc::SYS_umount2,
    libc::SYS_unlinkat,
    libc::SYS_write,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// How a traced process ended.
#[derive(Debug)]
pub enum End {
    /// It was killed before this call.
    Killed(libc::c_long),
    /// It ended by itself, with this wait status, after so many effects.
    Itself(i32, u64),
}

/// Starts a process that waits for its standard input to end, and kills it before its effect of this number. Blocks.
///
/// Processes that it starts are not traced, and go on.
#[expect(
    clippy::zombie_processes,
    reason = "the tracer is told of its end, and waits for it"
)]
pub fn run(command: &mut Command, kill_at: u64) -> End {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let leader = pid(&child);
    for entry in std::fs::read_dir(format!("/proc/{leader}/task")).unwrap() {
        let thread = entry
            .unwrap()
            .file_name()
            .into_string()
            .unwrap()
            .parse()
            .unwrap();
        let options =
            libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        trace(libc::PTRACE_SEIZE, thread, options as usize).unwrap();
        trace(libc::PTRACE_INTERRUPT, thread, 0).unwrap();
    }
    drop(child.stdin.take());
    let (mut effects, mut killed) = (0, None);
    loop {
        let mut status = 0;
        // Threads of the test have other children.
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: the status outlives the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        assert!(thread > 0, "{}", io::Error::last_os_error());
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if thread == leader {
                return killed.map_or(End::Itself(status, effects), End::Killed);
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let is_call = signal == libc::SIGTRAP | 0x80;
        if is_call && let Some(call) = effect(thread) {
            if effects == kill_at && killed.is_none() {
                killed = Some(call);
                child.kill().unwrap();
            }
            effects += 1;
        }
        let given = if is_call || event != 0 { 0 } else { signal };
        // Fails when it has been killed meanwhile.
        let _ = trace(libc::PTRACE_SYSCALL, thread, given as usize);
    }
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn trace(what: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: these requests take numbers; the result is checked.
    match unsafe { libc::ptrace(what, thread, 0_usize, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The call that a thread is about to make, if it has an effect.
fn effect(thread: i32) -> Option<libc::c_long> {
    // SAFETY: all zeros are a value of the structure, and the kernel writes no more than its size.
    let info: libc::ptrace_syscall_info = unsafe {
        let mut info = std::mem::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info);
        info
    };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel says that it is an entry.
    let entry = unsafe { info.u.entry };
    let call = libc::c_long::try_from(entry.nr).ok()?;
    // Threads wake each other by writes of eight bytes.
    let is_waking = call == libc::SYS_write && entry.args[2] == 8;
    (EFFECTS.contains(&call) && !is_waking).then_some(call)
}
