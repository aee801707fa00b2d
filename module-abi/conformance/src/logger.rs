//! Suite of kind `container-logger`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tepui_host::kinds::logger::LoggerClient;
use tepui_module_proto::isolator::ContainerConfig;
use tepui_module_proto::kind;
use tepui_module_proto::logger::{Method, PrepareRequest};

use crate::Subject;
use crate::common::{block_on, common};

/// Checks that a logger names places that a container can write to, and that a container it does not know, or has
/// forgotten already, can be forgotten.
pub fn container_logger(subject: &Subject) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::CONTAINER_LOGGER)?;
        let started = [Method::Recover, Method::Prepare, Method::Cleanup];
        common(&instance, &started.map(|method| method as u32), &[]).await?;
        let client = LoggerClient::new(instance);
        client.recover(Vec::new()).await?;
        client.cleanup("conformance-unknown").await?;
        let sandbox = tempfile::tempdir()?;
        for id in ["conformance-1", "conformance-2.nested"] {
            let directory = sandbox.path().join(id);
            std::fs::create_dir(&directory)?;
            let request = PrepareRequest {
                config: Some(ContainerConfig {
                    id: id.to_owned(),
                    sandbox: directory.display().to_string(),
                    ..ContainerConfig::default()
                }),
                ..PrepareRequest::default()
            };
            let reply = client.prepare(request).await?;
            for (path, name) in [(&reply.stdout, "stdout"), (&reply.stderr, "stderr")] {
                let path = match path.is_empty() {
                    true => directory.join(name),
                    false => PathBuf::from(path),
                };
                writes(&path).with_context(|| format!("{name} of {id}"))?;
            }
            client.cleanup(id).await?;
            client.cleanup(id).await?;
        }
        Ok(())
    })
}

/// As a container's first process opens it.
fn writes(path: &Path) -> Result<()> {
    ensure!(path.is_absolute(), "'{}' is not absolute", path.display());
    let mut file = File::options().append(true).create(true).open(path)?;
    Ok(file.write_all(b"conformance\n")?)
}
