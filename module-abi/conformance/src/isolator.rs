//! Suite of kind `isolator`.

use anyhow::{Result, ensure};
use prost::Message as _;
use tepui_host::kinds::isolator::IsolatorClient;
use tepui_module_proto::isolator::{
    ContainerConfig, LimitedRequest, Method, PrepareRequest, RecoverRequest,
};
use tepui_module_proto::kind;
use tepui_proto::v1;

use crate::Subject;
use crate::common::{block_on, common, stays_open};

/// Checks an isolator with containers that are prepared and cleaned up and never started: cleanup twice and of strangers,
/// orphans in another instance, answers about containers it does not know, and requests it must refuse.
///
/// `config` is a container that the isolator has something to do for; id and sandbox are filled in.
pub fn isolator(subject: &Subject, config: &ContainerConfig) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::ISOLATOR)?;
        let manifest = instance.manifest().isolator.clone();
        ensure!(
            manifest.is_some(),
            "the manifest says nothing about the isolator"
        );
        let limits = manifest.is_some_and(|manifest| manifest.limits);
        let client = IsolatorClient::new(instance.clone());
        client.recover(RecoverRequest::default()).await?;
        let started = [
            Method::Recover,
            Method::Prepare,
            Method::Isolate,
            Method::Update,
            Method::Cleanup,
            Method::Usage,
            Method::Status,
        ];
        common(&instance, &started.map(|method| method as u32), &[]).await?;

        let sandbox = tempfile::tempdir()?;
        let path = sandbox.path().to_string_lossy().into_owned();
        let container = |id: &str| ContainerConfig {
            id: id.to_owned(),
            sandbox: path.clone(),
            ..config.clone()
        };
        prepare_and_clean(&client, container("conformance-1")).await?;
        // The same id again: nothing of the first is left.
        prepare_and_clean(&client, container("conformance-1")).await?;

        client.cleanup("conformance-stranger").await?;
        let strangers = vec!["conformance-stranger".to_owned()];
        for usage in client.usage(strangers.clone()).await?.usages {
            ensure!(
                strangers.contains(&usage.id),
                "usage of {}, which nobody asked for",
                usage.id
            );
            v1::ResourceStatistics::decode(&*usage.statistics)?;
        }
        for status in client.status(strangers.clone()).await?.statuses {
            ensure!(
                strangers.contains(&status.id),
                "status of {}, which nobody asked for",
                status.id
            );
            v1::ContainerStatus::decode(&*status.status)?;
        }
        if limits {
            let seen = LimitedRequest { seen: 0 }.encode_to_vec();
            stays_open(&instance, Method::Limited as u32, seen).await?;
        }

        // Prepared by one instance, found as remains by the next.
        let request = PrepareRequest {
            config: Some(container("conformance-2")),
            plan: None,
        };
        client.prepare(request).await?;
        let next = IsolatorClient::new(subject.load(kind::ISOLATOR)?);
        let orphans = vec![
            "conformance-2".to_owned(),
            "conformance-stranger".to_owned(),
        ];
        next.recover(RecoverRequest {
            running: Vec::new(),
            orphans,
        })
        .await?;
        next.cleanup("conformance-2").await?;
        Ok(())
    })
}

async fn prepare_and_clean(client: &IsolatorClient, config: ContainerConfig) -> Result<()> {
    let id = config.id.clone();
    client
        .prepare(PrepareRequest {
            config: Some(config),
            plan: None,
        })
        .await?;
    client.usage(vec![id.clone()]).await?;
    client.status(vec![id.clone()]).await?;
    client.cleanup(&id).await?;
    client.cleanup(&id).await?;
    Ok(())
}
