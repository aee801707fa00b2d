//! The launcher of an agent: forks a supervisor for each container, and waits for those that end.

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::setsid,
};

use crate::{root::Nowhere, supervisor, sys};

/// The whole life of the launcher, which is that of its agent.
pub(crate) fn run() -> ExitCode {
    let Ok(agent) = sys::take_stdin().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    // What a terminal or a service manager sends to the agent's group is not meant for it.
    let _ = setsid();
    // It runs from a descriptor, whose number would be its name in lists of processes.
    let _ = prctl::set_name(c"tepui-init");
    // Keeps no directory of the agent busy.
    let _ = std::env::set_current_dir("/");
    let ended = SigSet::from(Signal::SIGCHLD);
    let signals = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ended), None).and_then(|()| {
        SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
    });
    let Ok(signals) = signals else {
        return ExitCode::FAILURE;
    };
    // Without one, containers change their root in the slow way.
    let mut nowhere = Nowhere::make().ok();
    loop {
        let mut ready = [
            PollFd::new(agent.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        let [asked, ended] = ready.map(|source| source.any().unwrap_or(true));
        if ended {
            while let Ok(Some(_)) = signals.read_signal() {}
            while sys::reap(None, false).is_some() {}
        }
        if !asked {
            continue;
        }
        let Ok(Some(conversation)) = tepui_init::next_supervisor(&agent) else {
            return ExitCode::SUCCESS;
        };
        let conversation = UnixStream::from(conversation);
        match sys::fork_into(0) {
            Ok(Some(_)) => {}
            Ok(None) => {
                drop((agent, signals));
                supervisor::run(conversation, nowhere.take());
            }
            Err(error) => {
                let message = format!("the launcher cannot fork a supervisor: {error}");
                supervisor::refuse(conversation, message);
            }
        }
    }
}
