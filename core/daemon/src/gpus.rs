//! Which GPUs the agent offers: with the isolator `gpu/nvidia` those of the machine, unless `--resources` and
//! `--nvidia_gpu_devices` say which. Mirrors `NvidiaGpuAllocator::resources` of Mesos.

use std::path::Path;

use anyhow::{Context as _, bail};
use tepui_core_agent::resources as of_machine;
use tepui_isolators_linux::Nvidia;
use tepui_model::Resources;

use crate::settings::AgentSettings;

/// The isolator whose GPUs they are.
pub(crate) const ISOLATOR: &str = "gpu/nvidia";

/// The resources of the agent, and the indices of its GPUs where an isolator gives them to containers.
///
/// # Errors
/// If `--resources` cannot be read, or asks for other GPUs than there are.
pub(crate) fn resources(settings: &AgentSettings) -> anyhow::Result<(Resources, Option<Vec<u32>>)> {
    let found = |gpus| {
        let configured = settings.resources.as_deref();
        of_machine(configured, &settings.default_role, &settings.work_dir, gpus)
            .context("--resources")
    };
    if !settings.isolation.iter().any(|name| name == ISOLATOR) {
        return Ok((found(None)?, None));
    }
    let table = settings.common.modules.settings.get(ISOLATOR);
    let library = table.and_then(|table| table.get("library")?.as_str());
    let there = Nvidia::detect(library.map(Path::new))
        .with_context(|| format!("--isolation: '{ISOLATOR}'"))?;
    let there: Vec<u32> = there.gpus.iter().map(|gpu| gpu.index).collect();
    let named = settings.nvidia_gpu_devices.as_deref();
    // Whoever names devices says how many they are.
    let total = found(named.is_none().then_some(there.len()))?;
    let gpus = choose(total.gpus().0, named, &there)?;
    Ok((total, Some(gpus)))
}

/// Indices for so many thousandths of `gpus`.
fn choose(thousandths: i64, named: Option<&[u32]>, there: &[u32]) -> anyhow::Result<Vec<u32>> {
    let count = usize::try_from(thousandths / 1000).unwrap_or(0);
    if thousandths % 1000 != 0 {
        bail!("--resources: 'gpus' must be a whole number");
    }
    if let Some(named) = named {
        if named.len() != count {
            bail!(
                "--nvidia_gpu_devices names {} GPUs and --resources has gpus:{count}: both have to say the same",
                named.len()
            );
        }
        if let Some(missing) = named.iter().find(|index| !there.contains(index)) {
            bail!(
                "--nvidia_gpu_devices: there is no GPU {missing}; this machine has {}",
                there.len()
            );
        }
        return Ok(named.to_vec());
    }
    if count > there.len() {
        bail!(
            "--resources has gpus:{count}, and this machine has {}",
            there.len()
        );
    }
    Ok(there[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_those_of_the_machine_that_both_flags_name() {
        let there = [0, 1, 2];
        let chosen = |thousandths, named: Option<&[u32]>| {
            choose(thousandths, named, &there).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(3000, None), Ok(vec![0, 1, 2]));
        assert_eq!(chosen(2000, None), Ok(vec![0, 1]));
        assert_eq!(chosen(0, None), Ok(vec![]));
        assert_eq!(chosen(2000, Some(&[2, 0])), Ok(vec![2, 0]));
        for (thousandths, named, said) in [
            (1500, None, "whole number"),
            (4000, None, "this machine has 3"),
            (
                1000,
                Some(&[0, 1][..]),
                "names 2 GPUs and --resources has gpus:1",
            ),
            (0, Some(&[0][..]), "names 1 GPUs and --resources has gpus:0"),
            (1000, Some(&[3][..]), "there is no GPU 3"),
        ] {
            let error = chosen(thousandths, named).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
