//! Isolator `gpu/nvidia`: whole GPUs for containers. Mirrors `src/slave/containerizer/mesos/isolators/gpu/`.
//!
//! Every container may use the driver's control devices; those it was given it may use besides, by its cgroup: in version 1 by
//! lines of `devices.allow`, in version 2 by a program of its own in the place of the one that `cgroups/devices` has
//! attached. Containers with a root file system of their own get the nodes, and the driver's files where their image asks.
//! What is nested shares what its parent has, or is given some of it where it has cgroups of its own.

mod pool;
mod volume;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tepui_isolators_linux::{Cgroup, DeviceFilter, DeviceRule, Nvidia};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator;

use crate::devices::{Allowed, Device, base_rules};
use crate::groups::failure;
use pool::{Gpus, Pool};

/// Every GPU needs the first two.
const CONTROL: [&str; 2] = ["nvidiactl", "nvidia-uvm"];
/// For debuggers; not every driver has it.
const TOOLS: &str = "nvidia-uvm-tools";
/// Where images that are made for NVIDIA's own tool expect the driver.
const VOLUME: &str = "/usr/local/nvidia";
/// Where programs are in an image that does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The label of images that want it.
const LABEL: &str = "com.nvidia.volumes.needed";

const MS_RDONLY: u64 = 1;
const MS_BIND: u64 = 4096;

/// Settings of `gpu/nvidia`.
#[config]
#[derive(Clone, Debug)]
pub struct GpuConfig {
    /// Indices of the GPUs that containers get; all of the machine without it. The agent sets it by its flags
    /// `nvidia_gpu_devices` and `resources`.
    #[serde(default)]
    devices: Option<Vec<u32>>,
    /// NVML, NVIDIA's library. By default the one that the system's linker finds.
    #[serde(default)]
    library: Option<PathBuf>,
    /// Where the device nodes are on the host.
    #[serde(default = "dev")]
    device_dir: PathBuf,
    /// Where the driver's programs and libraries are gathered for images. By default below the agent's runtime directory.
    #[serde(default)]
    volume_dir: Option<PathBuf>,
    /// Devices that all containers may use besides the usual ones, as for `cgroups/devices`.
    #[serde(default)]
    allowed_devices: Allowed,
}

fn dev() -> PathBuf {
    PathBuf::from("/dev")
}

/// See the module.
pub struct NvidiaGpus {
    control: Vec<Device>,
    gpus: BTreeMap<u32, Device>,
    /// What all containers may use, the control devices with it.
    rules: Vec<DeviceRule>,
    /// The directory with the driver's files, and where they are gathered.
    volume: PathBuf,
    /// A file for each container that has GPUs, with their minor numbers.
    records: PathBuf,
    state: Mutex<State>,
}

struct State {
    pool: Pool,
    /// Containers with a cgroup of their own for devices.
    cgroups: BTreeMap<ContainerId, DeviceCgroup>,
}

/// A cgroup that decides about devices.
#[derive(Clone, Debug)]
enum DeviceCgroup {
    /// Of version 1.
    Lists(Cgroup),
    /// Of version 2.
    Program(Cgroup),
}

impl Module for NvidiaGpus {
    type Config = GpuConfig;
    const NAME: &'static str = "gpu/nvidia";
    const DESCRIPTION: &'static str = "whole GPUs of NVIDIA";

    fn create(config: GpuConfig, context: Context) -> Result<Self> {
        let found = Nvidia::detect(config.library.as_deref()).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Failure::unavailable(format!("{error}: {}", cause.unwrap_or_default()))
        })?;
        let node = |name: &str| Device::all_ways(config.device_dir.join(name));
        let wanted = config.devices.clone();
        let wanted = wanted.unwrap_or_else(|| found.gpus.iter().map(|gpu| gpu.index).collect());
        let mut gpus = BTreeMap::new();
        for index in wanted {
            let gpu = found.gpus.iter().find(|gpu| gpu.index == index);
            let gpu = gpu.ok_or_else(|| {
                Failure::invalid(format!(
                    "there is no GPU with index {index}: this machine has {}",
                    found.gpus.len()
                ))
                .setting("devices")
            })?;
            let device = node(&format!("nvidia{}", gpu.minor));
            device.rule()?;
            gpus.insert(gpu.minor, device);
        }
        if !config.device_dir.join(CONTROL[1]).exists() {
            load_uvm();
        }
        let mut control: Vec<Device> = CONTROL.into_iter().map(node).collect();
        if config.device_dir.join(TOOLS).exists() {
            control.push(node(TOOLS));
        }
        let mut rules = base_rules(&config.allowed_devices)?;
        for device in &control {
            rules.push(device.rule()?);
        }
        let volumes = config.volume_dir.unwrap_or_else(|| context.runtime_dir());
        Ok(Self {
            control,
            rules,
            volume: volumes.join(format!("nvidia_{}", found.driver)),
            records: context.runtime_dir().join("containers"),
            state: Mutex::new(State {
                pool: Pool::new(gpus.keys().copied().collect()),
                cgroups: BTreeMap::new(),
            }),
            gpus,
        })
    }
}

/// The kernel module and node for unified memory, which nothing else makes before the first program that uses a GPU.
fn load_uvm() {
    let tried = std::process::Command::new("nvidia-modprobe")
        .args(["-u", "-c", "0"])
        .status();
    match tried {
        Ok(status) if status.success() => {}
        // The missing node says the rest.
        Ok(status) => warn!(%status, "nvidia-modprobe failed"),
        Err(error) => warn!(%error, "nvidia-modprobe cannot be run"),
    }
}

impl Isolator for NvidiaGpus {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root", "cgroups/devices", "filesystem/linux"];

    async fn recover(&self, running: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        std::fs::create_dir_all(&self.records)?;
        let mut running: Vec<_> = running.iter().collect();
        running.sort_by_key(|container| container.id.clone());
        for container in running {
            let id = &container.id;
            // A container of an earlier configuration has no record.
            let Some(gpus) = self.recorded(id)? else {
                continue;
            };
            let mut state = self.state();
            state
                .pool
                .recover(id, gpus)
                .map_err(|failure| failure.context(format!("container {id}")))?;
            if let Some(cgroup) = device_cgroup(container) {
                state.cgroups.insert(id.clone(), cgroup);
            }
        }
        for orphan in orphans {
            self.cleanup(&orphan).await?;
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        if container.config.class() == isolator::ContainerClass::Debug {
            return Ok(LaunchPlan::none());
        }
        let id = &container.id;
        let cgroup = device_cgroup(&container);
        let gpus = match &cgroup {
            Some(cgroup) => {
                let wanted = whole(container.requested("gpus"))?;
                self.state().cgroups.insert(id.clone(), cgroup.clone());
                self.give(id, wanted)?
            }
            None => self.state().pool.usable(id),
        };
        let mut plan = LaunchPlan::none();
        if container.plan.rootfs.is_some() {
            let devices = self.control.iter().chain(self.nodes(&gpus));
            plan.devices = devices
                .map(|device| device.planned_in("/dev"))
                .collect::<Result<_>>()?;
            if wants_volume(&container.config.image_config)? {
                plan = self.with_volume(plan, &container).await?;
            }
        }
        Ok(plan)
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        if !self.state().cgroups.contains_key(id) {
            return Ok(());
        }
        self.give(id, whole(update.requested("gpus"))?).map(drop)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        let mut state = self.state();
        state.pool.take_back(id);
        state.cgroups.remove(id);
        match std::fs::remove_file(self.records.join(id.as_str())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl NvidiaGpus {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a container with a cgroup of its own so many GPUs, and lets it use them. They are recorded before.
    fn give(&self, id: &ContainerId, wanted: usize) -> Result<Gpus> {
        let mut state = self.state();
        let before = state.pool.of(id).cloned().unwrap_or_default();
        let gpus = state.pool.give(id, wanted)?;
        let text: Vec<String> = gpus.iter().map(ToString::to_string).collect();
        let record = self.records.join(id.as_str());
        let fresh = self.records.join(format!(".{id}"));
        std::fs::write(&fresh, text.join("\n"))?;
        std::fs::rename(fresh, record)?;
        match state.cgroups.get(id) {
            Some(DeviceCgroup::Lists(cgroup)) => {
                for device in &self.control {
                    cgroup
                        .write("devices.allow", &device.rule()?.to_string())
                        .map_err(failure)?;
                }
                for device in self.nodes(&before.difference(&gpus).copied().collect()) {
                    cgroup
                        .write("devices.deny", &device.rule()?.to_string())
                        .map_err(failure)?;
                }
                for device in self.nodes(&gpus) {
                    cgroup
                        .write("devices.allow", &device.rule()?.to_string())
                        .map_err(failure)?;
                }
            }
            Some(DeviceCgroup::Program(cgroup)) => {
                let mut rules = self.rules.clone();
                for device in self.nodes(&gpus) {
                    rules.push(device.rule()?);
                }
                let filter = DeviceFilter::load(&rules).map_err(|error| {
                    Failure::unavailable(format!(
                        "the kernel does not take a program for devices: {error}"
                    ))
                })?;
                filter.replace(cgroup).map_err(failure)?;
            }
            None => {}
        }
        Ok(gpus)
    }

    fn nodes(&self, gpus: &Gpus) -> impl Iterator<Item = &Device> {
        gpus.iter().filter_map(|minor| self.gpus.get(minor))
    }

    /// What an earlier agent gave a container.
    fn recorded(&self, id: &ContainerId) -> Result<Option<Gpus>> {
        let path = self.records.join(id.as_str());
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let numbers = text.lines().map(str::parse).collect::<Result<_, _>>();
        numbers.map(Some).map_err(|_| {
            let path = path.display();
            Failure::invalid(format!(
                "'{path}': expected minor numbers of GPUs, one a line"
            ))
        })
    }

    /// Adds the driver's files, and the way to them to the image's own.
    async fn with_volume(&self, plan: LaunchPlan, container: &Container) -> Result<LaunchPlan> {
        let volume = self.volume.clone();
        blocking(move || gather(&volume)).await??;
        let own = |name: &str| {
            let mut variables = container.plan.environment.iter().rev();
            let found = variables.find(|variable| variable.name == name);
            found
                .map(|variable| variable.value.clone())
                .filter(|value| !value.is_empty())
        };
        let with = |name: &str, more: &str| match own(name) {
            Some(value) => format!("{value}:{more}"),
            None => more.to_owned(),
        };
        let path = own("PATH").unwrap_or_else(|| USUAL_PATH.to_owned());
        let path = format!("{path}:{VOLUME}/bin");
        let libraries = format!("{VOLUME}/lib:{VOLUME}/lib64:/usr/local/cuda/compat");
        let libraries = with("LD_LIBRARY_PATH", &libraries);
        let mount = Mount {
            source: self.volume.to_string_lossy().into_owned(),
            target: VOLUME.to_owned(),
            flags: MS_BIND | MS_RDONLY,
            create: isolator::mount::Create::Directory.into(),
            ..Mount::default()
        };
        Ok(plan
            .mount(mount)
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", libraries))
    }
}

/// Finds the driver's files where the host has them.
fn gather(volume: &Path) -> Result<()> {
    let listed = std::process::Command::new("ldconfig").arg("-p").output();
    let listed = listed.map_err(|error| {
        Failure::unavailable(format!(
            "'ldconfig -p', which finds the driver's libraries, cannot be run: {error}"
        ))
    })?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    volume::make(volume, &listed, &programs).map_err(|error| {
        let volume = volume.display();
        Failure::unavailable(format!(
            "the driver's files cannot be gathered in '{volume}': {error}"
        ))
    })
}

/// GPUs are not shared.
fn whole(gpus: f64) -> Result<usize> {
    if gpus.fract() != 0.0 || gpus < 0.0 {
        return Err(Failure::invalid(format!(
            "{gpus} gpus are asked for: expected a whole number"
        )));
    }
    Ok(gpus as usize)
}

/// The cgroup of its own in which a container's devices are decided; none where it shares that of another.
fn device_cgroup(container: &Container) -> Option<DeviceCgroup> {
    if container.config.share_cgroups {
        return None;
    }
    let joins = &container.plan.cgroups;
    // Several subsystems may be mounted together, and be named by one of them.
    let lists = joins.iter().map(|join| Path::new(&join.path));
    let mut lists = lists.filter(|path| path.join("devices.allow").exists());
    if let Some(path) = lists.next() {
        return Some(DeviceCgroup::Lists(Cgroup::at(path)));
    }
    // In version 2 the processes are in a leaf of it.
    let unified = joins.iter().find(|join| join.subsystem.is_empty())?;
    let path = Path::new(&unified.path).parent()?;
    Some(DeviceCgroup::Program(Cgroup::at(path)))
}

/// Whether an image asks for the driver's files.
fn wants_volume(image_config: &[u8]) -> Result<bool> {
    #[derive(Deserialize)]
    struct Image {
        config: Option<Labelled>,
    }
    #[derive(Deserialize)]
    struct Labelled {
        #[serde(rename = "Labels")]
        labels: Option<BTreeMap<String, String>>,
    }
    if image_config.is_empty() {
        return Ok(false);
    }
    let image: Image = serde_json::from_slice(image_config).map_err(|error| {
        Failure::invalid(format!("the image's configuration cannot be read: {error}"))
    })?;
    let labels = image.config.and_then(|config| config.labels);
    Ok(labels.is_some_and(|labels| labels.contains_key(LABEL)))
}
