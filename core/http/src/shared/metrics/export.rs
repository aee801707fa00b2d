//! Metrics in the forms of exporter modules.

use std::sync::Arc;

use http::{Method, StatusCode};
use tepui_host::kinds::exporter::{self, ExporterClient};

use tepui_model::authorization::Action;

use super::{Kind, Metrics, Sample};
use crate::authorize::{Authorizer, Object, require};
use crate::request::Request;
use crate::response::Response;
use crate::router::Router;

/// An exporter's path cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The daemon answers there itself, or another exporter does.
    #[error("exporter '{module}': path {path:?} is taken; its settings must name another")]
    Taken {
        /// The module.
        module: String,
        /// The path that it named.
        path: String,
    },
    /// The module did not say where.
    #[error("exporter '{module}' does not say where to serve it")]
    Silent {
        /// The module.
        module: String,
        /// What it answered.
        source: tepui_host::CallError,
    },
}

impl Metrics {
    /// Serves metrics in an exporter's form. To be called before the endpoints are made.
    pub fn export_by(&self, exporter: ExporterClient) {
        self.with(|table| table.exporters.push(Arc::new(exporter)));
    }

    /// Adds the exporters' paths, after all others. They show what `/metrics/snapshot` shows, and to the same.
    pub(crate) fn register_exporters(
        &self,
        router: &mut Router,
        authorizer: &Arc<dyn Authorizer>,
    ) -> Result<(), ExporterError> {
        for exporter in self.with(|table| table.exporters.clone()) {
            let module = exporter.instance().name().to_owned();
            let path = exporter.path().map_err(|source| ExporterError::Silent {
                module: module.clone(),
                source,
            })?;
            if router.answers(&path) {
                return Err(ExporterError::Taken { module, path });
            }
            let (metrics, authorizer) = (self.clone(), Arc::clone(authorizer));
            router.on(
                &[Method::GET, Method::HEAD],
                &path,
                move |request: Request| {
                    let (metrics, exporter) = (metrics.clone(), Arc::clone(&exporter));
                    let authorizer = Arc::clone(&authorizer);
                    async move {
                        let subject = request.subject.as_ref();
                        let (action, object) = (
                            Action::GetEndpointWithPath,
                            Object::value("/metrics/snapshot"),
                        );
                        match require(&*authorizer, subject, action, &object).await {
                            Ok(()) => metrics.export(&exporter, &request).await,
                            Err(denied) => denied.into(),
                        }
                    }
                },
            );
        }
        Ok(())
    }

    async fn export(&self, exporter: &ExporterClient, request: &Request) -> Response {
        if let Err(refused) = self.pace.turn().await {
            return *refused;
        }
        let samples = self.samples(None).await.into_iter().map(message).collect();
        let accept = request.header("accept").unwrap_or_default();
        match exporter.export(samples, accept).await {
            Ok(reply) => Response::full(StatusCode::OK, &reply.content_type, reply.body),
            Err(error) => {
                let module = exporter.instance().name();
                tracing::error!(%module, %error, "metrics are not exported");
                Response::unavailable(format!("Exporter '{module}' gives no answer: {error}"))
            }
        }
    }
}

fn message(sample: Sample) -> exporter::Sample {
    let kind = match sample.kind {
        Kind::Counter => exporter::SampleKind::Counter,
        Kind::Gauge => exporter::SampleKind::Gauge,
    };
    let label = |(name, value): (&str, String)| exporter::Label {
        name: name.to_owned(),
        value,
    };
    exporter::Sample {
        name: sample.name.into_owned(),
        kind: kind.into(),
        value: sample.value,
        family: sample.family.into_owned(),
        labels: sample.labels.into_iter().map(label).collect(),
    }
}
