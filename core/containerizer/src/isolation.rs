//! The isolators of an agent, as the containerizer calls them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use tepui_host::{CallError, kinds::isolator::IsolatorClient};
use tepui_module_proto::common::IsolatorManifest;
use tepui_module_proto::isolator::{
    CleanupReply, ContainerConfig, IsolateRequest, LaunchPlan, LimitedReply, PrepareRequest,
    RecoverRequest, StatusReply, UpdateRequest, UsageReply,
};
use tepui_proto::v1::{LinuxInfo, linux_info::IpcMode, volume::source::Type as Source};

/// What a call of an isolator comes to; an error is text for people.
pub type Called<'a, T> = BoxFuture<'a, Result<T, String>>;

/// The images of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The configuration of its root's image, in the image's own form; empty without one.
    pub config: Vec<u8>,
    /// Directories with the images of volumes, by the volume's path.
    pub volumes: BTreeMap<String, String>,
}

/// One isolator. Deadlines, lanes and restarts are behind it.
pub trait Isolator: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// Whether it takes part in nested containers.
    fn nesting(&self) -> bool;
    /// Whether it takes part in standalone containers.
    fn standalone(&self) -> bool;
    /// Whether it tells of containers over a limit.
    fn limits(&self) -> bool;
    /// What has to be there as well: other isolators, `root`, `launcher/linux`.
    fn needs(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether a name in the configuration means this isolator.
    fn is_called(&self, name: &str) -> bool {
        self.name() == name
    }
    /// What the isolators after it are told of the images of a container that it has prepared.
    fn images(&self, _container: &str) -> Option<Images> {
        None
    }
    /// The first call.
    fn recover(&self, request: RecoverRequest) -> Called<'_, ()>;
    /// Answers what it adds to the plan.
    fn prepare(&self, request: PrepareRequest) -> Called<'_, LaunchPlan>;
    /// The first process waits at the gate.
    fn isolate(&self, request: IsolateRequest) -> Called<'_, ()>;
    /// New resources of a running container.
    fn update(&self, request: UpdateRequest) -> Called<'_, ()>;
    /// Removes all traces.
    fn cleanup(&self, container: String) -> Called<'_, CleanupReply>;
    /// Consumption of some containers.
    fn usage(&self, containers: Vec<String>) -> Called<'_, UsageReply>;
    /// Addresses and cgroups of some containers.
    fn status(&self, containers: Vec<String>) -> Called<'_, StatusReply>;
    /// Answers once the revision differs from the one seen.
    fn limited(&self, seen: u64) -> Called<'_, LimitedReply>;
}

/// An isolator that the module host has loaded.
#[derive(Debug)]
struct Loaded {
    client: IsolatorClient,
    manifest: IsolatorManifest,
}

/// The isolator behind a client of the module host.
pub fn loaded(client: IsolatorClient) -> Arc<dyn Isolator> {
    let manifest = client.manifest();
    Arc::new(Loaded { client, manifest })
}

impl Isolator for Loaded {
    fn name(&self) -> &str {
        self.client.instance().name()
    }
    fn nesting(&self) -> bool {
        self.manifest.nesting
    }
    fn standalone(&self) -> bool {
        self.manifest.standalone
    }
    fn limits(&self) -> bool {
        self.manifest.limits
    }
    fn needs(&self) -> Vec<String> {
        self.manifest.needs.clone()
    }
    fn is_called(&self, name: &str) -> bool {
        self.name() == name
            || self
                .client
                .instance()
                .selected()
                .iter()
                .any(|selected| selected == name)
    }
    fn recover(&self, request: RecoverRequest) -> Called<'_, ()> {
        text(self.client.recover(request))
    }
    fn prepare(&self, request: PrepareRequest) -> Called<'_, LaunchPlan> {
        text(self.client.prepare(request))
    }
    fn isolate(&self, request: IsolateRequest) -> Called<'_, ()> {
        text(self.client.isolate(request))
    }
    fn update(&self, request: UpdateRequest) -> Called<'_, ()> {
        text(self.client.update(request))
    }
    fn cleanup(&self, container: String) -> Called<'_, CleanupReply> {
        text(async move { self.client.cleanup(&container).await })
    }
    fn usage(&self, containers: Vec<String>) -> Called<'_, UsageReply> {
        text(self.client.usage(containers))
    }
    fn status(&self, containers: Vec<String>) -> Called<'_, StatusReply> {
        text(self.client.status(containers))
    }
    fn limited(&self, seen: u64) -> Called<'_, LimitedReply> {
        text(self.client.limited(seen))
    }
}

fn text<'a, T: 'a>(call: impl Future<Output = Result<T, CallError>> + Send + 'a) -> Called<'a, T> {
    call.map_err(|error| error.to_string()).boxed()
}

/// Name of the step that pulls images and makes root file systems of them.
pub(crate) const PROVISIONER: &str = "provisioner";

/// Mesos' order of preparation; what is not named here comes after, in configured order.
const ORDER: &[&str] = &[
    // What gives a container its root file system.
    PROVISIONER,
    "filesystem/posix",
    "filesystem/windows",
    "filesystem/linux",
    "filesystem/shared",
    "posix/cpu",
    "posix/mem",
    "posix/rlimits",
    "windows/cpu",
    "windows/mem",
    "cgroups/all",
    "cgroups/blkio",
    "cgroups/cpu",
    "cgroups/cpuset",
    "cgroups/devices",
    "cgroups/hugetlb",
    "cgroups/mem",
    "cgroups/net_cls",
    "cgroups/net_prio",
    "cgroups/perf_event",
    "cgroups/pids",
    "appc/runtime",
    "docker/runtime",
    "linux/devices",
    "linux/capabilities",
    "linux/nnp",
    "namespaces/ipc",
    "namespaces/pid",
    "volume/sandbox_path",
    "docker/volume",
    "volume/host_path",
    "volume/image",
    "volume/secret",
    "volume/csi",
    "disk/du",
    "disk/xfs",
    "linux/seccomp",
    "gpu/nvidia",
    "network/cni",
    "network/port_mapping",
    "network/ports",
    "environment_secret",
];

/// Puts isolators in the order they prepare.
pub(crate) fn sort(isolators: &mut [Arc<dyn Isolator>]) {
    isolators.sort_by_key(|isolator| place(isolator.name()));
}

fn place(name: &str) -> usize {
    // The module of all cgroups/* subsystems stands where the first of them does.
    let name = if name == "cgroups" {
        "cgroups/all"
    } else {
        name
    };
    ORDER
        .iter()
        .position(|known| *known == name)
        .unwrap_or(ORDER.len())
}

/// The first isolator that lacks something it needs, in words.
pub(crate) fn missing(isolators: &[Arc<dyn Isolator>], is_root: bool) -> Option<String> {
    for isolator in isolators {
        for need in isolator.needs() {
            let name = isolator.name();
            match need.as_str() {
                "root" if !is_root => {
                    return Some(format!(
                        "isolator '{name}' needs root: the agent does not run as root"
                    ));
                }
                "root" | "launcher/linux" => {}
                other if isolators.iter().any(|isolator| isolator.is_called(other)) => {}
                other => {
                    return Some(format!(
                        "isolator '{name}' needs '{other}', which is not in --isolation"
                    ));
                }
            }
        }
    }
    None
}

/// The isolators that take part in a container.
pub(crate) fn select(
    isolators: &[Arc<dyn Isolator>],
    config: &ContainerConfig,
) -> Vec<Arc<dyn Isolator>> {
    let nested = config.id.contains('.');
    let takes_part = |isolator: &&Arc<dyn Isolator>| {
        (!nested || isolator.nesting()) && (!config.standalone || isolator.standalone())
    };
    isolators.iter().filter(takes_part).cloned().collect()
}

/// Where volumes come from, in words, and the isolator of each.
const VOLUMES: [(Source, &str, &str); 5] = [
    (Source::HostPath, "a volume of the host", "volume/host_path"),
    (
        Source::SandboxPath,
        "a volume of a sandbox",
        "volume/sandbox_path",
    ),
    (Source::Secret, "a secret as a file", "volume/secret"),
    (
        Source::DockerVolume,
        "a volume of a Docker volume driver",
        "docker/volume",
    ),
    (Source::CsiVolume, "a CSI volume", "volume/csi"),
];

/// What a container asks for that none of its isolators gives, in words. Mesos starts such containers without it.
pub(crate) fn unmet(
    config: &crate::ContainerConfig,
    isolators: &[Arc<dyn Isolator>],
) -> Option<String> {
    let info = config.container.as_ref();
    let linux = info.and_then(|info| info.linux_info.as_ref());
    let asks = |asks: fn(&LinuxInfo) -> bool| linux.is_some_and(asks);
    let rlimits = info.and_then(|info| info.rlimit_info.as_ref());
    let given = |name: &str| isolators.iter().any(|isolator| isolator.is_called(name));
    let needs = [
        (
            !config.secrets.is_empty(),
            "a secret in the environment",
            "environment_secret",
        ),
        (
            rlimits.is_some_and(|info| !info.rlimits.is_empty()),
            "ContainerInfo.rlimit_info",
            "posix/rlimits",
        ),
        (
            asks(|linux| linux.effective_capabilities.is_some()),
            "ContainerInfo.linux_info.effective_capabilities",
            "linux/capabilities",
        ),
        (
            asks(|linux| linux.bounding_capabilities.is_some()),
            "ContainerInfo.linux_info.bounding_capabilities",
            "linux/capabilities",
        ),
        (
            asks(asks_in_the_older_form),
            "ContainerInfo.linux_info.capability_info",
            "linux/capabilities",
        ),
        (
            asks(|linux| {
                let seccomp = linux.seccomp.as_ref();
                seccomp.is_some_and(|seccomp| seccomp.profile_name.is_some())
            }),
            "ContainerInfo.linux_info.seccomp",
            "linux/seccomp",
        ),
        (
            asks(|linux| linux.ipc_mode() == IpcMode::Private),
            "ContainerInfo.linux_info.ipc_mode",
            "namespaces/ipc",
        ),
        (
            // Those of filesystem/linux are mounted.
            asks_for_persistent(config) && !given("filesystem/linux"),
            "a persistent volume",
            "filesystem/posix",
        ),
        (
            info.is_some_and(|info| info.volumes.iter().any(|volume| volume.image.is_some())),
            "a volume with an image",
            "volume/image",
        ),
        (
            asks(|linux| linux.shm_size.is_some()),
            "ContainerInfo.linux_info.shm_size",
            "namespaces/ipc",
        ),
    ];
    let image = info.and_then(|info| info.mesos.as_ref()?.image.as_ref());
    if image.is_some()
        && !isolators
            .iter()
            .any(|isolator| isolator.name() == PROVISIONER)
    {
        return Some(
            "ContainerInfo.mesos.image needs an image store: the agent has no --image_providers"
                .to_owned(),
        );
    }
    let volumes = VOLUMES
        .iter()
        .map(|(source, field, isolator)| (asks_for_volume(config, *source), *field, *isolator));
    let (_, field, isolator) = needs
        .into_iter()
        .chain(volumes)
        .find(|(asked, _, isolator)| *asked && !given(isolator))?;
    Some(format!(
        "{field} needs the isolator '{isolator}', which is not in this agent's --isolation"
    ))
}

/// Whether there is a persistent volume among its resources.
fn asks_for_persistent(config: &crate::ContainerConfig) -> bool {
    let mut resources = config.resources.iter();
    resources.any(tepui_model::Resource::is_persistent_volume)
}

/// Whether a volume comes from there. One of the older form, with nothing but a path of the host, does from the host.
fn asks_for_volume(config: &crate::ContainerConfig, wanted: Source) -> bool {
    let volumes = config.container.iter().flat_map(|info| &info.volumes);
    let mut sources = volumes
        .filter(|volume| volume.image.is_none())
        .map(|volume| match &volume.source {
            Some(source) => source.r#type(),
            None => Source::HostPath,
        });
    sources.any(|source| source == wanted)
}

#[expect(deprecated, reason = "frameworks still send it")]
fn asks_in_the_older_form(linux: &LinuxInfo) -> bool {
    linux.capability_info.is_some()
}

/// The first part of a plan that this containerizer cannot perform yet; none when it can do all of it.
pub(crate) fn beyond_us(plan: &LaunchPlan) -> Option<&'static str> {
    let parts = [
        (!plan.pre_exec.is_empty(), "pre_exec"),
        (plan.hostname.is_some(), "hostname"),
        (plan.user.is_some(), "user"),
        (plan.umask.is_some(), "umask"),
        (!plan.sysctls.is_empty(), "sysctls"),
        (plan.tty.is_some(), "tty"),
    ];
    parts
        .into_iter()
        .find_map(|(used, name)| used.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mesos_order_comes_before_custom_ones() {
        let mut names = vec![
            "acme/b",
            "namespaces/pid",
            "cgroups/mem",
            "acme/a",
            "filesystem/linux",
            "cgroups/cpu",
        ];
        names.sort_by_key(|name| place(name));
        assert_eq!(
            names,
            [
                "filesystem/linux",
                "cgroups/cpu",
                "cgroups/mem",
                "namespaces/pid",
                "acme/b",
                "acme/a"
            ]
        );
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        assert_eq!(beyond_us(&LaunchPlan::none()), None);
        let plan = LaunchPlan {
            hostname: Some("x".to_owned()),
            ..LaunchPlan::default()
        };
        assert_eq!(beyond_us(&plan), Some("hostname"));
    }
}
