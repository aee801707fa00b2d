//! An isolator: a scratch directory per container that asks for one, bound at /scratch and limited in size.

#![allow(missing_docs, reason = "shown in the tutorial as it is")]
// begin
use tepui_module_sdk::prelude::*;

#[config]
pub struct Config {
    /// Where scratch directories are made.
    root: PathBuf,
    /// Kill a container above this size.
    max_megabytes: u64,
}
pub struct Scratch(Config);

#[rustfmt::skip]
impl Module for Scratch {
    type Config = Config;
    const NAME: &'static str = "acme/scratch";
    fn create(config: Config, _: Context) -> Result<Self> { Ok(Self(config)) }
}

#[rustfmt::skip]
impl Isolator for Scratch {
    async fn recover(&self, _running: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        for id in &orphans { self.cleanup(id).await? }
        Ok(())
    }
    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        if !container.labels.contains_key("scratch") { return Ok(LaunchPlan::none()) }
        fs::create_dir_all(self.0.root.join(&*container.id)).await?;
        Ok(LaunchPlan::none().bind(self.0.root.join(&*container.id), "/scratch"))
    }
    async fn limited(&self, id: &ContainerId) -> Limitation {
        loop {
            time::sleep(Duration::from_secs(15)).await;
            let du = Command::new("du").arg("-sm").arg(self.0.root.join(&**id)).output().await.ok();
            let text = du.and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default();
            if text.split('\t').next().and_then(|number| number.parse().ok()) > Some(self.0.max_megabytes) { return Limitation::disk("/scratch is full") }
        }
    }
    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        if fs::try_exists(self.0.root.join(&**id)).await? { fs::remove_dir_all(self.0.root.join(&**id)).await? }
        Ok(())
    }
}
export!(isolator: Scratch);
