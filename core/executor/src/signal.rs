//! Texts of wait statuses, as `WSTRINGIFY` of Mesos writes them.

/// By number, as `strsignal` of glibc has them.
const NAMES: [&str; 32] = [
    "Unknown signal 0",
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

/// First real-time signal that programs may use, with glibc.
const SIGRTMIN: i32 = 34;

/// Last real-time signal.
const SIGRTMAX: i32 = 64;

/// What a raw wait status says: "exited with status 3", "terminated with signal Killed".
#[must_use]
pub fn describe_status(status: i32) -> String {
    let signal = status & 0x7f;
    if signal == 0 {
        return format!("exited with status {}", (status >> 8) & 0xff);
    }
    let name = match usize::try_from(signal).ok().and_then(|i| NAMES.get(i)) {
        Some(name) => (*name).to_owned(),
        None if (SIGRTMIN..=SIGRTMAX).contains(&signal) => {
            format!("Real-time signal {}", signal - SIGRTMIN)
        }
        None => format!("Unknown signal {signal}"),
    };
    let core = if status & 0x80 == 0 {
        ""
    } else {
        " (core dumped)"
    };
    format!("terminated with signal {name}{core}")
}

#[cfg(test)]
mod tests {
    use super::describe_status;

    #[test]
    fn statuses_are_described_as_mesos_does() {
        assert_eq!(describe_status(0), "exited with status 0");
        assert_eq!(describe_status(7 << 8), "exited with status 7");
        assert_eq!(describe_status(255 << 8), "exited with status 255");
        assert_eq!(describe_status(9), "terminated with signal Killed");
        assert_eq!(describe_status(15), "terminated with signal Terminated");
        assert_eq!(
            describe_status(11 | 0x80),
            "terminated with signal Segmentation fault (core dumped)"
        );
        assert_eq!(
            describe_status(35),
            "terminated with signal Real-time signal 1"
        );
        assert_eq!(
            describe_status(33),
            "terminated with signal Unknown signal 33"
        );
    }
}
