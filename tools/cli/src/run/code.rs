//! The exit status of `tepui run`, from what updates say of the command's end.

use tepui_proto::v1;

/// The code that a shell would report for the command. Mesos tells it in the update's message.
pub(super) fn exit_code(state: Option<v1::TaskState>, message: &str) -> i32 {
    if state == Some(v1::TaskState::TaskFinished) {
        return 0;
    }
    if let Some(code) = message
        .strip_prefix("Command exited with status ")
        .and_then(|text| text.trim().parse().ok())
    {
        return code;
    }
    if let Some(name) = message.strip_prefix("Command terminated with signal ") {
        return 128 + signal_number(name.split(" (").next().unwrap_or(name).trim());
    }
    1
}

/// The number of a signal from what strsignal(3) calls it.
fn signal_number(description: &str) -> i32 {
    use nix::sys::signal::Signal;
    let named = Signal::iterator().find(|signal| describe(*signal) == description);
    named.map_or(0, |signal| signal as i32)
}

fn describe(signal: nix::sys::signal::Signal) -> &'static str {
    use nix::sys::signal::Signal::*;
    match signal {
        SIGHUP => "Hangup",
        SIGINT => "Interrupt",
        SIGQUIT => "Quit",
        SIGILL => "Illegal instruction",
        SIGTRAP => "Trace/breakpoint trap",
        SIGABRT => "Aborted",
        SIGBUS => "Bus error",
        SIGFPE => "Floating point exception",
        SIGKILL => "Killed",
        SIGUSR1 => "User defined signal 1",
        SIGSEGV => "Segmentation fault",
        SIGUSR2 => "User defined signal 2",
        SIGPIPE => "Broken pipe",
        SIGALRM => "Alarm clock",
        SIGTERM => "Terminated",
        SIGXCPU => "CPU time limit exceeded",
        SIGXFSZ => "File size limit exceeded",
        SIGVTALRM => "Virtual timer expired",
        SIGPROF => "Profiling timer expired",
        SIGSYS => "Bad system call",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_a_shell_would_report() {
        let failed = Some(v1::TaskState::TaskFailed);
        assert_eq!(
            exit_code(
                Some(v1::TaskState::TaskFinished),
                "Command exited with status 0"
            ),
            0
        );
        assert_eq!(exit_code(failed, "Command exited with status 7"), 7);
        assert_eq!(
            exit_code(
                failed,
                "Command terminated with signal Segmentation fault (core dumped)"
            ),
            139
        );
        assert_eq!(
            exit_code(failed, "Command terminated with signal Killed"),
            137
        );
        assert_eq!(exit_code(failed, "Container launch failed"), 1);
    }
}
