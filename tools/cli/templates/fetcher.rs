//! Fetcher `acme/module`: files of a directory of the site, by URIs `share:PATH`.
use std::fs::File;
use std::path::{Component, Path};

use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::fetcher::User;

/// Settings, as the configuration file has them in `[modules."acme/module"]`.
#[config]
pub struct Config {
    /// The directory whose files may be fetched.
    dir: PathBuf,
}

/// The module.
pub struct AcmeModule(Config);

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Fetcher for AcmeModule {
    async fn fetch(&self, fetch: Fetch) -> Result<()> {
        for uri in &fetch.uris {
            let from = uri.value.strip_prefix("share:").map(Path::new);
            let from = from
                .filter(|path| is_below(path))
                .ok_or_else(|| Failure::invalid(format!("'{}' is no URI share:PATH", uri.value)))?;
            let name = match uri.output_file.as_str() {
                "" => from.file_name().unwrap_or_default(),
                name => name.as_ref(),
            };
            // Only at the top of the sandbox: a parent that runs could make a link of a directory on the way.
            if Path::new(name).components().count() != 1 || !is_below(Path::new(name)) {
                return Err(Failure::invalid(format!(
                    "'{}' needs a plain file name",
                    uri.value
                )));
            }
            let (from, to) = (self.0.dir.join(from), fetch.sandbox.join(name));
            let user = fetch.user;
            let copied = blocking(move || copy(&from, &to, user)).await?;
            copied.map_err(|error| Failure::not_found(format!("'{}': {error}", uri.value)))?;
        }
        Ok(())
    }
}

/// No file that is there is written to, and so no link is followed.
fn copy(from: &Path, to: &Path, user: Option<User>) -> std::io::Result<()> {
    let (mut from, mut file) = (File::open(from)?, File::create_new(to)?);
    std::io::copy(&mut from, &mut file)?;
    match user {
        Some(user) => std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

fn is_below(path: &Path) -> bool {
    let plain = |part| matches!(part, Component::Normal(_));
    path.components().next().is_some() && path.components().all(plain)
}
