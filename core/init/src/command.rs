//! The last steps before the command's own program: what happens between fork and exec.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
};

use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{execve, setsid},
};
use tepui_init::{Input, LaunchSpec, Rlimit};

use crate::{privileges, sys};

/// Becomes the command. What fails is written to its standard error; the status is 1 then, as in Mesos.
pub(crate) fn run(spec: &LaunchSpec, stdio: [&File; 3]) -> ! {
    let [_, _, mut stderr] = stdio;
    let error = match prepare(spec, stdio) {
        Ok(()) => format!(
            "Failed to execute '{}': {}",
            spec.program.display(),
            exec(spec)
        ),
        Err((what, error)) => format!("Failed to {what}: {error}"),
    };
    let _ = writeln!(stderr, "{error}");
    sys::exit_now(1)
}

fn prepare(
    spec: &LaunchSpec,
    [stdin, stdout, stderr]: [&File; 3],
) -> Result<(), (&'static str, io::Error)> {
    // Its own session, so that a terminal or a group signal of the first process does not reach it.
    let _ = setsid();
    sys::reset_signals();
    // The agent does without huge pages, which would go on into its tasks.
    let _ = prctl::set_thp_disable(false);
    sys::place(stdin, 0).map_err(|error| ("set standard input", error))?;
    if matches!(spec.input, Input::Terminal { .. }) {
        sys::control_terminal().map_err(|error| ("take the terminal", error))?;
    }
    sys::place(stdout, 1).map_err(|error| ("set standard output", error))?;
    sys::place(stderr, 2).map_err(|error| ("set standard error", error))?;
    for limit in &spec.rlimits {
        set_rlimit(limit).map_err(|error| ("set resource limits", error))?;
    }
    privileges::give_up(spec)
}

fn set_rlimit(limit: &Rlimit) -> io::Result<()> {
    let value = libc::rlimit {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    // SAFETY: `value` outlives the call; the kernel refuses resources that it does not know.
    if unsafe { libc::setrlimit(limit.resource as _, &raw const value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Executes the program, looked for in the PATH of the *new* environment. Comes back only with an error.
fn exec(spec: &LaunchSpec) -> Errno {
    let strings = |items: &[OsString]| -> Result<Vec<CString>, Errno> {
        items
            .iter()
            .map(|item| CString::new(item.as_bytes()).map_err(|_| Errno::EINVAL))
            .collect()
    };
    let (arguments, environment) = match (strings(&spec.arguments), strings(&spec.environment)) {
        (Ok(arguments), Ok(environment)) => (arguments, environment),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let program = spec.program.as_bytes();
    if program.contains(&b'/') {
        return try_exec(program, &arguments, &environment);
    }
    let path = spec
        .environment
        .iter()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let mut result = Errno::ENOENT;
    for directory in path.unwrap_or_default().split(|byte| *byte == b':') {
        // An empty entry is the working directory.
        let mut candidate = if directory.is_empty() {
            b".".to_vec()
        } else {
            directory.to_vec()
        };
        candidate.push(b'/');
        candidate.extend_from_slice(program);
        match try_exec(&candidate, &arguments, &environment) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            // Remembered, but another directory may have one that can be executed.
            Errno::EACCES => result = Errno::EACCES,
            error => return error,
        }
    }
    result
}

fn try_exec(program: &[u8], arguments: &[CString], environment: &[CString]) -> Errno {
    let Ok(program) = CString::new(program) else {
        return Errno::EINVAL;
    };
    match execve(&program, arguments, environment) {
        // A script without `#!` is the shell's, as with execvp.
        Err(Errno::ENOEXEC) => {
            let shell = c"/bin/sh".to_owned();
            let mut with_shell = vec![shell.clone(), program];
            with_shell.extend(arguments.iter().skip(1).cloned());
            execve(&shell, &with_shell, environment).unwrap_err()
        }
        Err(error) => error,
        Ok(never) => match never {},
    }
}
