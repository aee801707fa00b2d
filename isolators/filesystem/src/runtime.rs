//! Isolators `docker/runtime` and `appc/runtime`: what an image says of how it is run.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/{docker,appc}/runtime.cpp`. The image's user is not taken, as in Mesos: the
//! command runs as the task's.

use serde::Deserialize;
use tepui_module_sdk::mesos::{CommandInfo, image};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::{Message, isolator};

/// Settings of `docker/runtime`.
#[config]
pub struct Config {
    /// Ignore the entry point, command, environment and working directory of images. Mesos' flag of this name.
    #[serde(default)]
    docker_ignore_runtime: bool,
}

/// See the module.
pub struct DockerRuntime(Config);

/// The same for App Container images, whose store gives their manifests the form of the OCI.
pub struct AppcRuntime;

/// The configuration of an image, as far as it is about running it.
#[derive(Debug, Default, Deserialize)]
struct ImageConfig {
    config: Option<Run>,
}

/// Missing and null are the same in all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl Module for DockerRuntime {
    type Config = Config;
    const NAME: &'static str = "docker/runtime";
    const DESCRIPTION: &'static str =
        "entry point, command, environment and working directory of images";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Isolator for DockerRuntime {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        match self.0.docker_ignore_runtime || is_appc(&container)? {
            true => Ok(LaunchPlan::none()),
            false => plan(&container),
        }
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

impl Module for AppcRuntime {
    type Config = NoConfig;
    const NAME: &'static str = "appc/runtime";
    const DESCRIPTION: &'static str = "program, environment and working directory of Appc images";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Isolator for AppcRuntime {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        match is_appc(&container)? {
            true => plan(&container),
            false => Ok(LaunchPlan::none()),
        }
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

fn is_appc(container: &Container) -> Result<bool> {
    let image = container.info()?.mesos.and_then(|mesos| mesos.image);
    Ok(image.is_some_and(|image| image.r#type() == image::Type::Appc))
}

/// What the container's image says, if it has one.
fn plan(container: &Container) -> Result<LaunchPlan> {
    if container.config.image_config.is_empty() {
        return Ok(LaunchPlan::none());
    }
    let config: ImageConfig =
        serde_json::from_slice(&container.config.image_config).map_err(|error| {
            Failure::invalid(format!("the image's configuration cannot be read: {error}"))
        })?;
    let run = config.config.unwrap_or_default();
    run.check()?;
    let command = CommandInfo::decode(&*container.config.command_info)
        .map_err(|error| Failure::invalid(format!("the command cannot be read: {error}")))?;
    let mut plan = LaunchPlan::none();
    plan.command = run.command(&command)?;
    for variable in run.env.iter().flatten() {
        // One without a value is no variable of the image's.
        if let Some((name, value)) = variable.split_once('=') {
            plan = plan.env(name, value);
        }
    }
    plan.working_directory = run.working_dir.filter(|dir| dir.starts_with('/'));
    Ok(plan)
}

impl Run {
    /// What the kernel takes no program with.
    fn check(&self) -> Result<()> {
        let lists = [&self.entrypoint, &self.cmd, &self.env];
        let mut texts = lists.into_iter().flatten().flatten();
        match texts.any(|text| text.contains('\0')) {
            true => Err(Failure::invalid(
                "the image's configuration has a NUL character in its ENTRYPOINT, CMD or ENV",
            )),
            false => Ok(()),
        }
    }

    /// The command; none where the task's own stands.
    fn command(&self, asked: &CommandInfo) -> Result<Option<isolator::Command>> {
        if asked.shell() || !asked.value().is_empty() {
            return Ok(None);
        }
        let entry = self.entrypoint.iter().flatten();
        let cmd = self.cmd.iter().flatten();
        let mut arguments: Vec<String> = entry.cloned().collect();
        // What the task gives replaces the image's command, where there is an entry point to take it.
        if arguments.is_empty() || asked.arguments.is_empty() {
            arguments.extend(cmd.cloned());
        }
        let value = arguments.first().cloned().ok_or_else(|| {
            Failure::invalid("neither the task nor its image says what to run: 'command.value', ENTRYPOINT or CMD")
        })?;
        arguments.extend(asked.arguments.iter().cloned());
        Ok(Some(isolator::Command {
            value,
            shell: false,
            arguments,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_is_as_in_the_table_of_mesos() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        for (entry, cmd, arguments, run) in [
            ("", "c d", "", Some("c d")),
            ("e f", "", "", Some("e f")),
            ("e f", "c d", "", Some("e f c d")),
            ("", "c d", "x", Some("c d x")),
            ("e f", "c d", "x y", Some("e f x y")),
            ("", "", "x", None),
        ] {
            let image = Run {
                entrypoint: Some(words(entry)),
                cmd: Some(words(cmd)),
                ..Run::default()
            };
            let asked = CommandInfo {
                shell: Some(false),
                arguments: words(arguments),
                ..CommandInfo::default()
            };
            let planned = image.command(&asked).ok().flatten();
            assert_eq!(
                planned.map(|planned| planned.arguments),
                run.map(words),
                "{entry}|{cmd}|{arguments}"
            );
            for own in [
                CommandInfo {
                    value: Some("x".to_owned()),
                    ..asked
                },
                CommandInfo {
                    value: Some("x y".to_owned()),
                    shell: Some(true),
                    ..CommandInfo::default()
                },
            ] {
                assert_eq!(image.command(&own).unwrap(), None);
            }
        }
    }
}
