//! Downloads by HTTP and HTTPS.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use tepui_fetcher_base::Pace;
use tepui_module_sdk::tokio::sync::mpsc;
use tepui_module_sdk::{Failure, Result, blocking};
use url::Url;

use crate::bounds::Bounds;

/// Bytes of a server's words that an error repeats.
const WORDS: usize = 512;
/// Pieces of a download that wait to be written.
const WAITING: usize = 16;

/// A client. It trusts the certificates that the machine does, follows ten redirects, and uses the proxies of the
/// agent's environment.
pub(crate) struct Http {
    stall: Duration,
    bounds: Bounds,
    client: OnceLock<Client>,
}

/// A download that has begun.
pub(crate) struct Download {
    response: Response,
    stall: Duration,
    bounds: Bounds,
}

impl Http {
    /// A client that waits for this long for the next byte, and takes no longer files than these.
    pub(crate) fn new(stall: Duration, bounds: Bounds) -> Self {
        Self {
            stall,
            bounds,
            client: OnceLock::new(),
        }
    }

    /// The client; made when it is needed first, because it reads the machine's certificates.
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::builder()
            .user_agent(concat!("tepui/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.stall)
            .read_timeout(self.stall)
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Asks for a file. Any answer but a 2xx is a failure.
    pub(crate) async fn get(&self, url: &Url) -> Result<Download> {
        let sent = self.client()?.get(url.clone()).send().await;
        let response = sent.map_err(|error| self.failure(error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, response).await);
        }
        // Before anything of it is read, where the server says its length.
        self.bounds
            .download(response.content_length().unwrap_or_default())?;
        Ok(Download {
            response,
            stall: self.stall,
            bounds: self.bounds,
        })
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        failure(error, self.stall)
    }
}

impl Download {
    /// Bytes that come, if the server says so; never none, which servers say who do not know.
    pub(crate) fn length(&self) -> Option<u64> {
        self.response.content_length().filter(|length| *length > 0)
    }

    /// Writes everything to a new file, which is made on the thread that writes.
    pub(crate) async fn write(
        mut self,
        create: impl FnOnce() -> Result<File> + Send + 'static,
    ) -> Result<()> {
        let (pieces, mut waiting) = mpsc::channel::<Piece>(WAITING);
        let writing = blocking(move || {
            let mut file = create()?;
            while let Some(piece) = waiting.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => file.write_all(&bytes)?,
                    Piece::End => return Ok(()),
                }
            }
            Err(Failure::unavailable("the download was given up"))
        });
        let stall = self.stall;
        let reading = async move {
            let (mut length, mut pace) = (0, Pace::new(stall));
            while let Some(bytes) = self.response.chunk().await.map_err(|e| failure(e, stall))? {
                if !pace.came(bytes.len()) {
                    return Err(stalled(stall));
                }
                length += bytes.len() as u64;
                self.bounds.download(length)?;
                if pieces.send(Piece::Bytes(bytes)).await.is_err() {
                    // The writer has failed and says why.
                    return Ok(());
                }
            }
            let _ = pieces.send(Piece::End).await;
            Ok(())
        };
        let (written, read): (_, Result<()>) = tepui_module_sdk::tokio::join!(writing, reading);
        read.and(written?)
    }
}

/// What goes to the writer; without an end the download was cut.
enum Piece {
    Bytes(bytes::Bytes),
    End,
}

/// What a server said that did not give the file.
async fn refusal(status: StatusCode, mut response: Response) -> Failure {
    let mut said = Vec::new();
    while said.len() < WORDS
        && let Ok(Some(bytes)) = response.chunk().await
    {
        said.extend_from_slice(&bytes);
    }
    said.truncate(WORDS);
    let text = String::from_utf8_lossy(&said);
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut message = format!("the server answered {status}");
    if !words.is_empty() {
        message = format!("{message}: {}", words.join(" "));
    }
    match status.is_server_error() {
        true => Failure::unavailable(message),
        false => Failure::not_found(message),
    }
}

/// A request that failed, without its URL, which may have a password and is named elsewhere.
fn failure(error: reqwest::Error, stall: Duration) -> Failure {
    match error.is_timeout() {
        true => stalled(stall),
        false => Failure::from(error.without_url()),
    }
}

fn stalled(stall: Duration) -> Failure {
    Failure::unavailable(format!(
        "less than a byte a second came for {} seconds, the fetcher's stall timeout",
        stall.as_secs()
    ))
}
