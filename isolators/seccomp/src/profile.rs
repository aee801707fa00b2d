//! Profiles in the form of Docker's: <https://docs.docker.com/engine/security/seccomp/>.

use serde::Deserialize;

/// A profile. Fields that are not named here have no effect, as in Mesos.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    pub(crate) default_action: Action,
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(default)]
    pub(crate) syscalls: Vec<Rule>,
}

/// What is done with some system calls.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// The older form.
    name: Option<String>,
    pub(crate) action: Action,
    pub(crate) errno_ret: Option<u32>,
    /// Null is written for none.
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
}

/// A test of an argument.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Argument {
    pub(crate) index: u8,
    pub(crate) value: u64,
    /// With a mask in `value`: what is compared.
    #[serde(default)]
    pub(crate) value_two: u64,
    pub(crate) op: Compare,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Compare {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// When a rule counts: all that is named has to hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What conditions are about.
pub(crate) struct Machine {
    /// Bit n is capability n.
    capabilities: u64,
    /// In the words of profiles.
    architecture: &'static str,
    kernel: [u32; 2],
}

impl Machine {
    /// This one, for a container with these capabilities.
    pub(crate) fn new(capabilities: u64) -> Self {
        let kernel = nix::sys::utsname::uname().ok();
        let kernel = kernel.and_then(|names| version(&names.release().to_string_lossy()));
        Self {
            capabilities,
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            kernel: kernel.unwrap_or_default(),
        }
    }

    fn has(&self, capability: &str) -> bool {
        number(capability).is_some_and(|number| self.capabilities & (1 << number) != 0)
    }

    fn is_at_least(&self, kernel: &str) -> bool {
        version(kernel).is_some_and(|least| self.kernel >= least)
    }
}

impl Rule {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().chain(&self.name).map(String::as_str)
    }

    /// Tests of which one must hold, each a list of which all must; none when the arguments do not matter.
    pub(crate) fn arguments(&self) -> Vec<Vec<Argument>> {
        let arguments = self.args.as_deref().unwrap_or_default();
        let twice = arguments.iter().enumerate().any(|(at, argument)| {
            arguments[..at]
                .iter()
                .any(|other| other.index == argument.index)
        });
        match (arguments.is_empty(), twice) {
            (true, _) => Vec::new(),
            // Two tests of one argument are two rules: so it is in Docker.
            (false, true) => arguments.iter().map(|one| vec![one.clone()]).collect(),
            (false, false) => vec![arguments.to_vec()],
        }
    }

    pub(crate) fn counts(&self, machine: &Machine) -> bool {
        let included = self.includes.as_ref().is_none_or(|condition| {
            condition.caps.iter().all(|name| machine.has(name))
                && (condition.arches.is_empty()
                    || condition
                        .arches
                        .iter()
                        .any(|arch| arch == machine.architecture))
                && condition
                    .min_kernel
                    .as_deref()
                    .is_none_or(|least| machine.is_at_least(least))
        });
        let excluded = self.excludes.as_ref().is_some_and(|condition| {
            condition.caps.iter().any(|name| machine.has(name))
                || condition
                    .arches
                    .iter()
                    .any(|arch| arch == machine.architecture)
                || condition
                    .min_kernel
                    .as_deref()
                    .is_some_and(|least| machine.is_at_least(least))
        });
        included && !excluded
    }
}

/// Major and minor version: "6.1.0-13-amd64".
fn version(text: &str) -> Option<[u32; 2]> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}

/// The kernel's number of a capability.
fn number(name: &str) -> Option<u32> {
    use tepui_module_sdk::mesos::capability_info::Capability;
    let known = Capability::from_str_name(name.trim_start_matches("CAP_"))?;
    u32::try_from(known as i32 - Capability::Chown as i32).ok()
}
