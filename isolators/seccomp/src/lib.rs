//! Isolator `linux/seccomp`: a filter of system calls for each container, made from a profile in Docker's form.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/linux/seccomp.cpp`. The filter is for the machine's own 64-bit
//! system calls; a program that makes others (32-bit ones) is killed.

mod filter;
mod profile;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tepui_module_sdk::mesos::SeccompInfo;
use tepui_module_sdk::prelude::*;

use profile::{Machine, Profile};

/// Settings of `linux/seccomp`, named as Mesos' flags.
#[config]
pub struct Config {
    /// Directory of the profiles, which containers choose by file name.
    #[serde(default)]
    seccomp_config_dir: Option<PathBuf>,
    /// Profile of containers that choose none. Without it they are not filtered.
    #[serde(default)]
    seccomp_profile_name: Option<String>,
}

/// See the crate.
pub struct Seccomp {
    config: Config,
    /// File name of the profile of each container; none is filtered by none.
    chosen: Mutex<BTreeMap<ContainerId, Option<String>>>,
}

impl Module for Seccomp {
    type Config = Config;
    const NAME: &'static str = "linux/seccomp";
    const DESCRIPTION: &'static str = "filters system calls by profiles in Docker's form";

    fn create(config: Config, _: Context) -> Result<Self> {
        let created = Self {
            config,
            chosen: Mutex::default(),
        };
        if let Some(name) = &created.config.seccomp_profile_name {
            created
                .load(name)
                .and_then(|profile| filter::compile(&profile, &Machine::new(u64::MAX)))
                .map_err(|failure| failure.setting("seccomp_profile_name"))?;
        }
        Ok(created)
    }
}

impl Isolator for Seccomp {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const AFTER: &'static [&'static str] = &["linux/capabilities"];

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        let mut running = running;
        // Parents before what is nested in them.
        running.sort_by(|a, b| a.id.cmp(&b.id));
        for container in running {
            let chosen = self.choice(&container)?;
            self.chosen().insert(container.id, chosen);
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let chosen = self.choice(&container)?;
        self.chosen().insert(container.id.clone(), chosen.clone());
        let Some(name) = chosen else {
            return Ok(LaunchPlan::none());
        };
        let profile = self.load(&name)?;
        // What the container can ever have: rules of profiles depend on it.
        let capabilities = container.plan.capabilities.map_or(u64::MAX, |sets| {
            let bits = sets.bounding.iter().filter(|number| **number < 64);
            bits.fold(0, |mask, number| mask | 1 << number)
        });
        let seccomp = filter::compile(&profile, &Machine::new(capabilities))
            .map_err(|failure| failure.context(format!("seccomp profile '{name}'")))?;
        Ok(LaunchPlan {
            seccomp,
            ..LaunchPlan::none()
        })
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.chosen().remove(id);
        Ok(())
    }
}

impl Seccomp {
    fn chosen(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Option<String>>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the container asks for, else what its parent has, else the default.
    fn choice(&self, container: &Container) -> Result<Option<String>> {
        let asked = container.info()?.linux_info.and_then(|info| info.seccomp);
        match asked {
            Some(SeccompInfo {
                profile_name: Some(_),
                unconfined: Some(true),
            }) => Err(Failure::invalid(
                "'linux_info.seccomp' has a 'profile_name' and is 'unconfined': give one of them",
            )),
            Some(SeccompInfo {
                unconfined: Some(true),
                ..
            }) => Ok(None),
            Some(SeccompInfo {
                profile_name: Some(name),
                ..
            }) => Ok(Some(name)),
            _ => {
                let parent = container.id.parent();
                let inherited = parent.and_then(|parent| self.chosen().get(&parent).cloned());
                Ok(inherited.unwrap_or_else(|| self.config.seccomp_profile_name.clone()))
            }
        }
    }

    fn load(&self, name: &str) -> Result<Profile> {
        let Some(directory) = &self.config.seccomp_config_dir else {
            return Err(Failure::invalid(format!(
                "the seccomp profile '{name}' cannot be found: --seccomp_config_dir names no directory of profiles"
            )));
        };
        // A framework names files of this directory only.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(Failure::invalid(format!(
                "'{name}' is not the name of a seccomp profile: expected a file name of '{}'",
                directory.display()
            )));
        }
        let path = directory.join(name);
        let bad = |error: String| {
            Failure::invalid(format!("seccomp profile '{}': {error}", path.display()))
        };
        let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
    }
}
