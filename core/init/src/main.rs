//! The program `tepui-init`: launcher of an agent, supervisor and first process of its containers.
//!
//! It is started by an agent, once, from a sealed memfd, with one end of a socket pair as its standard input; it takes no
//! arguments. What it is told, and in which order, is the library's documentation.
//!
//! Three kinds of processes come of it. The *launcher* forks a supervisor for each container, and ends with its agent.
//! The *supervisor* stays in the namespaces and cgroups it was started in, so that neither the container's memory limit
//! nor its processes reach it, and outlives the agent. The *first process* is in the container's namespaces and cgroups,
//! reaps what is orphaned there, and starts the command as its child: a command that is pid 1 itself would not be ended
//! by SIGTERM.
//!
//! None of them executes a program for the next: a fork of a small process costs a fraction of that, and what all of
//! them have in common is in memory once.
//!
//! All are single-threaded and stay so: the code between a fork and an exec relies on it.

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod first;
#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tree;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|asked| asked == tepui_init::ASK_PROTOCOL)
    {
        println!("{}", tepui_init::PROTOCOL);
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().len() > 1 || !sys::is_socket(&std::io::stdin()) {
        eprintln!(
            "tepui-init {} (protocol {}): started by tepui-agent, not by hand",
            env!("CARGO_PKG_VERSION"),
            tepui_init::PROTOCOL
        );
        return ExitCode::from(2);
    }
    launcher::run()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("tepui-init runs on Linux only");
    ExitCode::from(2)
}
