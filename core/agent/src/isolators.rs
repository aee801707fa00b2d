//! Isolator modules, as the containerizer calls them.

use std::sync::Arc;

use tepui_containerizer::{Called, Isolator};
use tepui_host::kinds::isolator::IsolatorClient;
use tepui_module_proto::common::IsolatorManifest;
use tepui_module_proto::isolator::{
    CleanupReply, IsolateRequest, LaunchPlan, LimitedReply, PrepareRequest, RecoverRequest,
    StatusReply, UpdateRequest, UsageReply,
};

/// One loaded module.
#[derive(Debug)]
struct ModuleIsolator {
    client: IsolatorClient,
    manifest: IsolatorManifest,
}

/// An isolator for the containerizer.
#[must_use]
pub fn isolator(client: IsolatorClient) -> Arc<dyn Isolator> {
    let manifest = client.manifest();
    Arc::new(ModuleIsolator { client, manifest })
}

impl Isolator for ModuleIsolator {
    fn name(&self) -> &str {
        self.client.instance().name()
    }

    fn nesting(&self) -> bool {
        self.manifest.nesting
    }

    fn standalone(&self) -> bool {
        self.manifest.standalone
    }

    fn limits(&self) -> bool {
        self.manifest.limits
    }

    fn recover(&self, request: RecoverRequest) -> Called<'_, ()> {
        Box::pin(async move { self.client.recover(request).await.map_err(text) })
    }

    fn prepare(&self, request: PrepareRequest) -> Called<'_, LaunchPlan> {
        Box::pin(async move { self.client.prepare(request).await.map_err(text) })
    }

    fn isolate(&self, request: IsolateRequest) -> Called<'_, ()> {
        Box::pin(async move { self.client.isolate(request).await.map_err(text) })
    }

    fn update(&self, request: UpdateRequest) -> Called<'_, ()> {
        Box::pin(async move { self.client.update(request).await.map_err(text) })
    }

    fn cleanup(&self, container: String) -> Called<'_, CleanupReply> {
        Box::pin(async move { self.client.cleanup(&container).await.map_err(text) })
    }

    fn usage(&self, containers: Vec<String>) -> Called<'_, UsageReply> {
        Box::pin(async move { self.client.usage(containers).await.map_err(text) })
    }

    fn status(&self, containers: Vec<String>) -> Called<'_, StatusReply> {
        Box::pin(async move { self.client.status(containers).await.map_err(text) })
    }

    fn limited(&self, seen: u64) -> Called<'_, LimitedReply> {
        Box::pin(async move { self.client.limited(seen).await.map_err(text) })
    }
}

fn text(error: tepui_host::CallError) -> String {
    crate::chain(&error)
}
