//! Archives by HTTP that are no layers of a registry: brought to a file of the store first.

use std::{fs::File, io, path::PathBuf, time::Duration};

use reqwest::Client;
use tepui_fetcher_base::Pace;
use tokio::sync::mpsc;

use crate::error::{Error, Result, on_disk};
use crate::layer::{Pieces, WAITING};
use crate::progress::Progress;
use crate::registry::{Access, with_causes};
use crate::store::{Staged, Store};

/// Brings archives of at most some bytes.
#[derive(Debug)]
pub struct Download {
    client: Client,
    stall: Duration,
    most: u64,
}

/// An archive that is here; it goes with this.
#[derive(Debug)]
pub struct Brought(Staged);

impl Brought {
    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("archive")
    }
}

impl Download {
    /// By this way, at most so many bytes each.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be read.
    pub fn new(access: &Access, most: u64) -> Result<Self> {
        Ok(Self {
            client: access.client()?,
            stall: access.stall,
            most,
        })
    }

    /// Brings what is at a URL into a store's directory.
    ///
    /// # Errors
    ///
    /// When it cannot be had or is too long, or the disk fails.
    pub async fn bring(&self, url: &str, store: &Store, progress: &Progress) -> Result<Brought> {
        let broken = |error: reqwest::Error| Error::Unavailable(with_causes(&error.without_url()));
        let response = self.client.get(url).send().await;
        let mut response = response.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let message = format!("the server answers {status}");
            return Err(match status.is_server_error() {
                true => Error::Unavailable(message),
                false => Error::Missing(message),
            });
        }
        let brought = Brought(store.stage()?);
        let path = brought.path();
        let (sender, receiver) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || {
            let write = || io::copy(&mut Pieces::new(receiver), &mut File::create(&path)?);
            write().map_err(on_disk("write", &path)).map(drop)
        });
        let reading = async move {
            let (mut length, mut pace) = (0, Pace::new(self.stall));
            while let Some(piece) = response.chunk().await.map_err(broken)? {
                if !pace.came(piece.len()) {
                    return Err(Error::Unavailable(format!(
                        "the server sends less than a byte a second for {} seconds, the stall timeout",
                        self.stall.as_secs()
                    )));
                }
                length += piece.len() as u64;
                progress.fetched(length);
                if length > self.most {
                    return Err(Error::Refused(format!(
                        "it has more than {} bytes, the setting 'max_image_bytes'",
                        self.most
                    )));
                }
                if sender.send(Ok(piece)).await.is_err() {
                    // The writer has failed and says why.
                    break;
                }
            }
            Ok(())
        };
        let (read, written) = tokio::join!(reading, writing);
        read?;
        written.map_err(|error| Error::Disk(error.to_string()))??;
        Ok(brought)
    }
}
