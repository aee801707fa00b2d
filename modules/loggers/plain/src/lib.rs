//! Loggers that need nothing beside the container: `sandbox` leaves output in files of the sandbox, as an agent without
//! any logger does; `off` throws it away.

use tepui_module_sdk::prelude::*;

/// Files `stdout` and `stderr` of the sandbox, which grow without bound.
pub struct Sandbox;

/// No output at all.
pub struct Off;

impl Module for Sandbox {
    type Config = NoConfig;
    const NAME: &'static str = "sandbox";
    const ALIASES: &'static [&'static str] = &["org_apache_mesos_SandboxContainerLogger"];
    const DESCRIPTION: &'static str = "output in files of the sandbox";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl ContainerLogger for Sandbox {
    async fn prepare(&self, _: Logged) -> Result<Output> {
        Ok(Output::default())
    }
}

impl Module for Off {
    type Config = NoConfig;
    const NAME: &'static str = "off";
    const DESCRIPTION: &'static str = "no output";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl ContainerLogger for Off {
    async fn prepare(&self, _: Logged) -> Result<Output> {
        let null = Some(PathBuf::from("/dev/null"));
        Ok(Output {
            stdout: null.clone(),
            stderr: null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance() {
        let sandbox = tepui_module_sdk::linked!(container_logger: Sandbox);
        tepui_module_conformance::check(sandbox, "sandbox", "");
        let off = tepui_module_sdk::linked!(container_logger: Off);
        tepui_module_conformance::check(off, "off", "");
    }
}
