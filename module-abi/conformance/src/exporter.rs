//! Suite of kind `exporter`.

use anyhow::{Result, ensure};
use tepui_host::kinds::exporter::ExporterClient;
use tepui_module_proto::exporter::{Label, Method, Sample, SampleKind};
use tepui_module_proto::kind;

use crate::Subject;
use crate::common::{block_on, common};

fn sample(name: &str, kind: SampleKind, value: f64) -> Sample {
    Sample {
        name: name.to_owned(),
        kind: kind.into(),
        value,
        family: name.to_owned(),
        labels: Vec::new(),
    }
}

/// Checks that an exporter names a path, writes what it is given, and does not fail on values and labels that no
/// metric should have.
pub fn exporter(subject: &Subject) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::EXPORTER)?;
        common(
            &instance,
            &[Method::Export as u32],
            &[Method::Serves as u32],
        )
        .await?;
        let client = ExporterClient::new(instance);
        let path = client.path()?;
        ensure!(
            path.len() > 1 && path.starts_with('/') && !path.contains(['?', '#', ' ']),
            "{path:?} is no path"
        );
        ensure!(client.path()? == path, "another path than before");

        let empty = client.export(Vec::new(), "").await?;
        ensure!(!empty.content_type.is_empty(), "no content type");
        let samples = vec![
            sample("a/counter", SampleKind::Counter, 3.0),
            sample("b/nothing", SampleKind::Gauge, f64::NAN),
            sample("c/much", SampleKind::Gauge, f64::INFINITY),
            Sample {
                labels: vec![Label {
                    name: "role".to_owned(),
                    value: "a \"b\" \\ \n é".to_owned(),
                }],
                ..sample("d/e", SampleKind::Gauge, 1.5)
            },
        ];
        let first = client.export(samples.clone(), "text/plain").await?;
        ensure!(first.body != empty.body, "samples change nothing");
        let again = client.export(samples, "text/plain").await?;
        ensure!(
            first.content_type == again.content_type,
            "another content type for the same request"
        );
        Ok(())
    })
}
