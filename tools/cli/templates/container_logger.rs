//! Container logger `acme/module`: output in files of its own, which stay when sandboxes go.
use std::fs::File;

use tepui_module_sdk::prelude::*;

/// Settings, as the configuration file has them in `[modules."acme/module"]`.
#[config]
pub struct Config {
    /// Keep the output of containers that are over.
    keep: bool,
}

/// The module.
pub struct AcmeModule {
    config: Config,
    dir: PathBuf,
}

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, context: Context) -> Result<Self> {
        Ok(Self {
            config,
            dir: context.state_dir(),
        })
    }
}

impl AcmeModule {
    fn path(&self, container: &str, stream: &str) -> PathBuf {
        self.dir.join(format!("{container}.{stream}"))
    }
}

impl ContainerLogger for AcmeModule {
    async fn prepare(&self, container: Logged) -> Result<Output> {
        let file = |stream: &str| -> Result<Option<PathBuf>> {
            let path = self.path(&container.id, stream);
            let file = File::options().create(true).append(true).open(&path)?;
            // The container's first process opens it again, as its user.
            if let Some((user, group)) = container.owner {
                std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
            }
            Ok(Some(path))
        };
        Ok(Output {
            stdout: file("stdout")?,
            stderr: file("stderr")?,
        })
    }

    async fn cleanup(&self, container: &str) -> Result<()> {
        if !self.config.keep {
            for stream in ["stdout", "stderr"] {
                // A container that was never prepared has none.
                let _ = std::fs::remove_file(self.path(container, stream));
            }
        }
        Ok(())
    }
}
