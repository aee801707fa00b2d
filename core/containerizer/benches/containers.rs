//! Launches and destroys many containers and prints what each costs: `cargo bench -p tepui-containerizer`.
//!
//! `TEPUI_BENCH_CONTAINERS` (200) containers at once, `TEPUI_BENCH_AT_ONCE` (16) launches under way. As root on
//! cgroups v1 with cgroups/cpu, cgroups/mem and namespaces/pid, else without isolators; where there is /bin/busybox also
//! with filesystem/linux and an image on overlayfs, below `TEPUI_BENCH_DIR` (the temporary directory), and before that the
//! same by a bare loop. `TEPUI_INIT` names the program to measure, which should be the static one.

#[path = "../tests/common/mod.rs"]
mod common;
mod floor;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use common::kernel;
use futures::{StreamExt, TryStreamExt, stream};
use tepui_containerizer::{Command, ContainerConfig, Containerizer, Isolator, Provisioner, leaks};
use tepui_host::{
    HostSettings, ModuleHost, config::ModuleConfig, kinds::image_store::ImageStoreClient,
};
use tepui_model::id::ContainerId;
use tepui_module_sdk::prelude::*;
use tepui_proto::v1;

/// Has one image, of one layer, whatever is asked for.
struct OneImage {
    layer: PathBuf,
}

/// Settings of [`OneImage`].
#[config]
struct Layer {
    /// Directory of the layer.
    layer: PathBuf,
}

impl Module for OneImage {
    type Config = Layer;
    const NAME: &'static str = "docker";
    const DESCRIPTION: &'static str = "one image for everything";

    fn create(config: Layer, _: tepui_module_sdk::Context) -> Result<Self> {
        Ok(Self {
            layer: config.layer,
        })
    }
}

impl ImageStore for OneImage {
    async fn pull(&self, _: mesos::Image) -> Result<Pulled> {
        Ok(Pulled {
            id: "one".to_owned(),
            layers: vec![self.layer.clone()],
            ..Pulled::default()
        })
    }

    async fn prune(&self, _: Prune) -> Result<Pruned> {
        Ok(Pruned::default())
    }
}

/// A layer with nothing but busybox, and the places that images have for what is mounted; none where there is no busybox.
fn layer(at: &Path) -> Option<PathBuf> {
    let program = Path::new("/bin/busybox");
    if !program.exists() {
        return None;
    }
    let layer = at.join("layer");
    for part in ["bin", "dev", "etc", "mnt", "proc", "sys", "tmp"] {
        fs::create_dir_all(layer.join(part)).expect("a directory");
    }
    for file in ["hostname", "hosts", "resolv.conf"] {
        fs::write(layer.join("etc").join(file), "").expect("space");
    }
    fs::copy(program, layer.join("bin/busybox")).expect("space");
    std::os::unix::fs::symlink("busybox", layer.join("bin/sleep")).expect("space");
    Some(layer)
}

/// The provisioner of an image with that layer.
fn provisioner(at: &Path) -> Option<Provisioner> {
    let layer = layer(at)?;
    let mut config = ModuleConfig::default();
    let table = serde_json::json!({ "layer": layer });
    let table = table.as_object().cloned().expect("a table");
    config.settings.insert("docker".to_owned(), table);
    let host = ModuleHost::new(HostSettings::new("agent", config));
    host.link(tepui_module_sdk::linked!(image_store: OneImage));
    let mut stores = host
        .load_all("image-store", &["docker".to_owned()])
        .expect("a store");
    let store = ImageStoreClient::new(stores.pop().expect("one"));
    let stores = [("docker".to_owned(), store)].into();
    let dir = at.join("provisioner");
    Some(Provisioner::new(stores, None, dir, |_, _| {}).expect("a back end"))
}

fn of_image() -> v1::ContainerInfo {
    let image = v1::Image {
        r#type: v1::image::Type::Docker.into(),
        docker: Some(v1::image::Docker {
            name: "one".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        mesos: Some(v1::container_info::MesosInfo { image: Some(image) }),
        ..Default::default()
    }
}

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (containers, at_once) = (
        number("TEPUI_BENCH_CONTAINERS", 200),
        number("TEPUI_BENCH_AT_ONCE", 16),
    );
    bare(containers);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for with_image in [false, true] {
        runtime.block_on(run(containers, at_once, with_image));
    }
}

/// Where a run lies.
fn directory() -> tempfile::TempDir {
    let at = match std::env::var_os("TEPUI_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    at.expect("a directory")
}

/// The floor. Before this process has a second thread.
fn bare(containers: usize) {
    let at = directory();
    let Some(layer) = kernel::available().then(|| layer(at.path())).flatten() else {
        return;
    };
    let (launched, destroyed) = floor::run(containers, at.path(), &layer).expect("a bare loop");
    println!(
        "a bare loop with an image on overlayfs: {containers} launched in {launched:.2?}, destroyed in {destroyed:.2?}"
    );
}

fn isolators(root: &kernel::Root, at: &Path, with_image: bool) -> Vec<Arc<dyn Isolator>> {
    if !with_image {
        return kernel::isolators(&root.0, serde_json::json!({}));
    }
    let names = [
        "filesystem/linux",
        "cgroups/cpu",
        "cgroups/mem",
        "namespaces/pid",
    ];
    let settings = serde_json::json!({ "cgroups": { "cgroups_root": root.0 } });
    kernel::load_in(&names, settings, Some(&at.join("modules")), Some(at)).expect("isolators")
}

async fn run(containers: usize, at_once: usize, with_image: bool) {
    let at = directory();
    let mut settings = common::settings(at.path());
    let root = kernel::available().then(|| kernel::Root::new("bench"));
    if with_image {
        settings.provisioner = root.as_ref().and_then(|_| provisioner(at.path()));
        if settings.provisioner.is_none() {
            println!("not run: containers of an image need root, cgroups v1 and /bin/busybox");
            return;
        }
    }
    let isolators = root
        .as_ref()
        .map(|root| isolators(root, at.path(), with_image))
        .unwrap_or_default();
    println!(
        "init: {}, isolators: {}, image: {}",
        settings.init.display(),
        isolators.len(),
        if with_image { "on overlayfs" } else { "none" }
    );
    let containerizer = Containerizer::new(settings, isolators).expect("a containerizer");
    containerizer
        .recover(BTreeSet::new())
        .await
        .expect("nothing to recover");

    let configs: Vec<ContainerConfig> = (0..containers)
        .map(|number| {
            let mut config = common::shell(at.path(), &format!("c{number}"), "");
            config.command = Some(Command {
                shell: false,
                value: "/bin/sleep".to_owned(),
                arguments: vec!["sleep".to_owned(), "1000".to_owned()],
            });
            config.container = with_image.then(of_image);
            config
        })
        .collect();
    let ids: Vec<ContainerId> = configs.iter().map(|config| config.id.clone()).collect();

    let open = descriptors();
    let (started, used) = (Instant::now(), processor_time());
    let launch = |config: ContainerConfig| {
        let containerizer = containerizer.clone();
        async move {
            let started = Instant::now();
            let launched = containerizer.launch(config).await?;
            Ok::<_, tepui_containerizer::LaunchError>((started.elapsed(), launched.pid))
        }
    };
    let launched: Vec<(Duration, u32)> = stream::iter(configs)
        .map(launch)
        .buffer_unordered(at_once)
        .try_collect()
        .await
        .expect("launched");
    report(
        "launch",
        started.elapsed(),
        processor_time() - used,
        launched.iter().map(|(took, _)| *took).collect(),
    );

    let pss: u64 = launched.iter().map(|(_, pid)| pss_of_init(*pid)).sum();
    println!(
        "memory: {} KiB PSS a container (supervisor and first process); {:.1} descriptors of this process",
        pss / containers as u64,
        descriptors().saturating_sub(open) as f64 / containers as f64
    );

    let (started, used) = (Instant::now(), processor_time());
    let destroy = |id: ContainerId| {
        let containerizer = containerizer.clone();
        async move {
            let started = Instant::now();
            containerizer.destroy(&id).await.expect("destroyed");
            containerizer.forget(&id).expect("forgotten");
            started.elapsed()
        }
    };
    let destroyed: Vec<Duration> = stream::iter(ids)
        .map(destroy)
        .buffer_unordered(at_once)
        .collect()
        .await;
    let used = processor_time() - used;
    report("destroy", started.elapsed(), used, destroyed);
    let left = leaks::find(at.path(), root.as_ref().map(|root| root.0.as_str()), &[]);
    assert!(left.is_empty(), "{left:?}");
}

/// Of this process, and of those that it has started, and that these have, and that have ended: of supervisors that run,
/// nothing.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let of = |who| {
        let usage = getrusage(who).expect("always known");
        let time = usage.user_time() + usage.system_time();
        Duration::from_micros(
            u64::try_from(nix::sys::time::TimeValLike::num_microseconds(&time)).unwrap_or(0),
        )
    };
    let launchers = common::children(std::process::id()).into_iter();
    let launchers: Duration = launchers.map(processor_time_of).sum();
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN) + launchers
}

/// Of a process and its children that have ended.
fn processor_time_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let each = each.ok().flatten().expect("the system has ticks");
    Duration::from_secs_f64(ticks as f64 / each as f64)
}

/// What this process has open.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn report(what: &str, total: Duration, used: Duration, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |share: f64| each[((each.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} containers in {total:.2?}, {:.2?} each; one takes p50 {:.2?}, p99 {:.2?}; processor time {used:.2?}",
        each.len(),
        total / u32::try_from(each.len()).unwrap_or(1),
        at(0.5),
        at(0.99)
    );
}

/// Kilobytes of the first process and of its supervisor.
fn pss_of_init(first: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1));
    let of = |pid: &str| {
        let rollup = fs::read_to_string(PathBuf::from("/proc").join(pid).join("smaps_rollup"))
            .unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
    };
    of(&first.to_string()) + parent.map(of).unwrap_or(0)
}
