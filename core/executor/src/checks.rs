//! When a task is checked, and what comes of it: checks, which only report, and health checks, which may end it.
//!
//! Mirrors `src/checks/{checker,health_checker}.cpp`: a check begins `delay` after the task runs, the next one
//! `interval` after the last one's end; a check is reported when its result differs from the one before, health at the
//! first success, at each failure, and at the first success after one. Failures within the grace period count for
//! nothing until the task was healthy once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_model::time::Mono;
use tepui_proto::Wire;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{
    CheckInfo, CheckStatusInfo, CommandInfo, HealthCheck, TaskInfo, check_info, check_status_info,
    health_check, network_info,
};

/// One look at a task, to be taken from inside its container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back with the finding.
    pub id: ProbeId,
    /// What is looked at.
    pub kind: ProbeKind,
    /// After how long the look is over without a finding; none for never.
    pub timeout: Option<Duration>,
}

/// Names a probe of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeId {
    /// Of its health check; otherwise of its check.
    pub health: bool,
    /// Grows with each.
    pub number: u64,
}

/// What a probe looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ProbeKind {
    /// How a command ends.
    Command(Wire<CommandInfo>),
    /// What is answered to a GET of this URL, redirects followed; certificates are not verified.
    Http(String),
    /// Whether there is a listener, on the loopback address.
    Tcp {
        /// IPv6 rather than IPv4.
        ipv6: bool,
        /// Its port.
        port: u16,
    },
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// The command's raw wait status.
    Ended(i32),
    /// The status of the answer.
    Status(u16),
    /// A connection was made, or refused.
    Connected(bool),
    /// Nothing: out of time, no answer, no such program.
    Nothing,
}

/// What the finding of a probe means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to tell.
    Same,
    /// The check's result is another.
    CheckChanged,
    /// The task is healthy, or it is not and may have to end.
    Health { kill: bool },
}

impl Verdict {
    /// The reason that an update gives, and whether the task has to end.
    pub(crate) fn news(self) -> Option<(Reason, bool)> {
        match self {
            Self::Same => None,
            Self::CheckChanged => Some((Reason::TaskCheckStatusUpdated, false)),
            Self::Health { kill } => Some((Reason::TaskHealthCheckStatusUpdated, kill)),
        }
    }
}

/// The checks of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checks {
    check: Option<Check>,
    health: Option<Health>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Check {
    timer: Timer,
    /// What the newest result says; empty of its type before the first.
    status: Wire<CheckStatusInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Health {
    timer: Timer,
    grace: Duration,
    /// Failures in a row that end the task.
    limit: u32,
    grace_until: Mono,
    /// It was healthy once.
    proven: bool,
    failures: u32,
    healthy: Option<bool>,
}

/// When a probe is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Timer {
    kind: ProbeKind,
    delay: Duration,
    interval: Duration,
    timeout: Option<Duration>,
    next: Option<Mono>,
    /// Number of the probe that is under way.
    running: Option<u64>,
    number: u64,
}

impl Checks {
    /// The checks that a task asks for; they were validated when it was launched.
    pub(crate) fn of(task: &TaskInfo) -> Self {
        Self {
            check: task.check.as_ref().and_then(Check::new),
            health: task.health_check.as_ref().and_then(Health::new),
        }
    }

    /// The task runs.
    pub(crate) fn start(&mut self, now: Mono) {
        if let Some(health) = &mut self.health {
            health.grace_until = now + health.grace;
        }
        for timer in self.timers() {
            timer.next = Some(now + timer.delay);
        }
    }

    /// The task is about to end: nothing is looked at any more.
    pub(crate) fn stop(&mut self) {
        for timer in self.timers() {
            (timer.next, timer.running) = (None, None);
        }
    }

    /// When the next probe is due.
    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        let check = self.check.as_ref().and_then(|check| check.timer.next);
        let health = self.health.as_ref().and_then(|health| health.timer.next);
        check.into_iter().chain(health).min()
    }

    /// The probes that are due.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<Probe> {
        let check = self.check.as_mut().map(|check| (false, &mut check.timer));
        let health = self.health.as_mut().map(|health| (true, &mut health.timer));
        let timers = check.into_iter().chain(health);
        timers
            .filter(|(_, timer)| timer.next.is_some_and(|at| at <= now))
            .map(|(health, timer)| timer.begin(health))
            .collect()
    }

    /// Takes the finding of a probe; one that nobody waits for any more means nothing.
    pub(crate) fn found(&mut self, id: ProbeId, finding: &Finding, now: Mono) -> Verdict {
        match (id.health, &mut self.check, &mut self.health) {
            (false, Some(check), _) => match check.timer.ends(id.number, now) {
                true => check.take(finding),
                false => Verdict::Same,
            },
            (true, _, Some(health)) => match health.timer.ends(id.number, now) {
                true => health.take(finding, now),
                false => Verdict::Same,
            },
            _ => Verdict::Same,
        }
    }

    /// What updates about the check say: the newest result.
    pub(crate) fn status(&self) -> Option<CheckStatusInfo> {
        self.check.as_ref().map(|check| check.status.0)
    }

    /// What all other updates of a task with a check say: that there is one.
    pub(crate) fn no_status(&self) -> Option<CheckStatusInfo> {
        let check = self.check.as_ref()?;
        Some(empty(check.status.r#type()))
    }

    /// What updates about the checks say of the task's health.
    pub(crate) fn healthy(&self) -> Option<bool> {
        self.health.as_ref()?.healthy
    }

    fn timers(&mut self) -> impl Iterator<Item = &mut Timer> {
        let check = self.check.as_mut().map(|check| &mut check.timer);
        let health = self.health.as_mut().map(|health| &mut health.timer);
        check.into_iter().chain(health)
    }
}

impl Check {
    fn new(info: &CheckInfo) -> Option<Self> {
        let kind = match info.r#type() {
            check_info::Type::Command => ProbeKind::Command(Wire(info.command.clone()?.command)),
            check_info::Type::Http => {
                let http = info.http.as_ref()?;
                ProbeKind::Http(url("http", false, http.port, http.path()))
            }
            check_info::Type::Tcp => ProbeKind::Tcp {
                ipv6: false,
                port: port(info.tcp.as_ref()?.port),
            },
            check_info::Type::Unknown => return None,
        };
        let times = [
            info.delay_seconds(),
            info.interval_seconds(),
            info.timeout_seconds(),
        ];
        Some(Self {
            timer: Timer::new(kind, times),
            status: Wire(empty(info.r#type())),
        })
    }

    fn take(&mut self, finding: &Finding) -> Verdict {
        let mut status = empty(self.status.r#type());
        match finding {
            Finding::Ended(raw) => {
                status.command = Some(check_status_info::Command {
                    // A command that was killed has no result.
                    exit_code: exit_code(*raw),
                });
            }
            Finding::Status(code) => {
                let status_code = Some(u32::from(*code));
                status.http = Some(check_status_info::Http { status_code });
            }
            Finding::Connected(succeeded) => {
                let succeeded = Some(*succeeded);
                status.tcp = Some(check_status_info::Tcp { succeeded });
            }
            Finding::Nothing => {}
        }
        if status == self.status.0 {
            return Verdict::Same;
        }
        self.status = Wire(status);
        Verdict::CheckChanged
    }
}

impl Health {
    fn new(info: &HealthCheck) -> Option<Self> {
        let is_ipv6 = |protocol| protocol == network_info::Protocol::IPv6;
        let kind = match info.r#type() {
            health_check::Type::Command => ProbeKind::Command(Wire(info.command.clone()?)),
            health_check::Type::Http => {
                let http = info.http.as_ref()?;
                let scheme = http.scheme.as_deref().unwrap_or("http");
                ProbeKind::Http(url(
                    scheme,
                    is_ipv6(http.protocol()),
                    http.port,
                    http.path(),
                ))
            }
            health_check::Type::Tcp => {
                let tcp = info.tcp.as_ref()?;
                ProbeKind::Tcp {
                    ipv6: is_ipv6(tcp.protocol()),
                    port: port(tcp.port),
                }
            }
            health_check::Type::Unknown => return None,
        };
        let times = [
            info.delay_seconds(),
            info.interval_seconds(),
            info.timeout_seconds(),
        ];
        Some(Self {
            timer: Timer::new(kind, times),
            grace: seconds(info.grace_period_seconds()),
            limit: info.consecutive_failures(),
            grace_until: Mono(0),
            proven: false,
            failures: 0,
            healthy: None,
        })
    }

    fn take(&mut self, finding: &Finding, now: Mono) -> Verdict {
        let healthy = match finding {
            Finding::Ended(raw) => *raw == 0,
            Finding::Status(code) => (200..400).contains(code),
            Finding::Connected(succeeded) => *succeeded,
            Finding::Nothing => false,
        };
        if healthy {
            let news = !self.proven || self.failures > 0;
            (self.proven, self.failures) = (true, 0);
            self.healthy = Some(true);
            return match news {
                true => Verdict::Health { kill: false },
                false => Verdict::Same,
            };
        }
        if !self.proven && now < self.grace_until {
            return Verdict::Same;
        }
        self.failures += 1;
        self.healthy = Some(false);
        Verdict::Health {
            kill: self.failures >= self.limit,
        }
    }
}

impl Timer {
    fn new(kind: ProbeKind, [delay, interval, timeout]: [f64; 3]) -> Self {
        Self {
            kind,
            delay: seconds(delay),
            interval: seconds(interval),
            timeout: Some(seconds(timeout)).filter(|timeout| !timeout.is_zero()),
            next: None,
            running: None,
            number: 0,
        }
    }

    fn begin(&mut self, health: bool) -> Probe {
        self.number += 1;
        (self.next, self.running) = (None, Some(self.number));
        Probe {
            id: ProbeId {
                health,
                number: self.number,
            },
            kind: self.kind.clone(),
            timeout: self.timeout,
        }
    }

    /// Whether this is the probe that is under way; if so the next one is due after the interval.
    fn ends(&mut self, number: u64, now: Mono) -> bool {
        let ends = self.running == Some(number);
        if ends {
            (self.running, self.next) = (None, Some(now + self.interval));
        }
        ends
    }
}

fn empty(kind: check_info::Type) -> CheckStatusInfo {
    let mut status = CheckStatusInfo {
        r#type: Some(kind.into()),
        ..CheckStatusInfo::default()
    };
    match kind {
        check_info::Type::Command => status.command = Some(Default::default()),
        check_info::Type::Http => status.http = Some(Default::default()),
        check_info::Type::Tcp => status.tcp = Some(Default::default()),
        check_info::Type::Unknown => {}
    }
    status
}

/// `WEXITSTATUS`, where there is one.
fn exit_code(raw: i32) -> Option<i32> {
    (raw & 0x7f == 0).then_some((raw >> 8) & 0xff)
}

fn url(scheme: &str, ipv6: bool, port: u32, path: &str) -> String {
    let host = if ipv6 { "[::1]" } else { "127.0.0.1" };
    format!("{scheme}://{host}:{port}{path}")
}

/// A port that there cannot be is one where nobody listens.
fn port(number: u32) -> u16 {
    number.try_into().unwrap_or(0)
}

/// Seconds of a message; absurd ones are for ever.
fn seconds(number: f64) -> Duration {
    /// Longer than any machine runs.
    const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Duration::try_from_secs_f64(number.max(0.0)).map_or(EVER, |time| time.min(EVER))
}
