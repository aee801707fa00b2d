//! Suite of kind `fetcher`.

use anyhow::{Context as _, Result, bail, ensure};
use tepui_host::kinds::fetcher::FetcherClient;
use tepui_module_proto::fetcher::{FetchRequest, Method, Uri};
use tepui_module_proto::kind;

use crate::Subject;
use crate::common::{block_on, common};

/// Checks that a fetcher brings nothing when nothing is asked for, says what it cannot fetch, and keeps no more than
/// it may. Where `known` is a URI that it can fetch, also that the file arrives under the name that is asked for.
pub fn fetcher(subject: &Subject, known: Option<&str>) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::FETCHER)?;
        let (started, called) = ([Method::Fetch as u32], [Method::Cache as u32]);
        common(&instance, &started, &called).await?;
        let client = FetcherClient::new(instance);
        let sandbox = tempfile::tempdir()?;
        let request = |uris| FetchRequest {
            container: "conformance".to_owned(),
            sandbox: sandbox.path().display().to_string(),
            uris,
            user: None,
        };
        client.fetch(&request(Vec::new())).await?;
        let entries = sandbox.path().read_dir()?.count();
        ensure!(
            entries == 0,
            "something was fetched though nothing was asked for"
        );

        let strange = "conformance-no-such-scheme://nowhere/file";
        let uri = |value: &str, name: &str| Uri {
            value: value.to_owned(),
            output_file: name.to_owned(),
            cache: true,
            ..Uri::default()
        };
        match client.fetch(&request(vec![uri(strange, "")])).await {
            Ok(()) => bail!("{strange} was fetched"),
            Err(error) => ensure!(
                error.to_string().contains(strange),
                "a failure that does not name the URI: {error}"
            ),
        }
        if let Some(known) = known {
            for name in ["first", "below/second"] {
                client.fetch(&request(vec![uri(known, name)])).await?;
                let found = sandbox.path().join(name).metadata();
                let found = found.with_context(|| format!("{known} is not at {name}"))?;
                ensure!(found.is_file(), "{name} is no file");
            }
            let out = request(vec![uri(known, "../out")]);
            ensure!(
                client.fetch(&out).await.is_err(),
                "a file was fetched to a place outside of the sandbox"
            );
        }
        let cache = client.cache()?;
        ensure!(
            cache.used_bytes <= cache.total_bytes,
            "more is kept than may be: {} of {} bytes",
            cache.used_bytes,
            cache.total_bytes
        );
        Ok(())
    })
}
