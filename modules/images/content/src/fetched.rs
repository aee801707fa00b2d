//! Archives of `docker save` that another program brings, from where nothing of ours can read.

use std::{fs, path::Path};

use tepui_fetcher_base::Program;
use tepui_module_sdk::{Failure, proto::common::Code};

use crate::error::{Error, Result};
use crate::progress::Progress;

/// An archive that is elsewhere.
#[derive(Debug)]
pub struct Fetched {
    program: Program,
    uris: Vec<String>,
    /// The image's name in it.
    pub(crate) name: String,
}

impl Fetched {
    /// The image of this name in an archive that is at one of these URIs; the first that is there is taken.
    pub fn new(program: Program, uris: Vec<String>, name: String) -> Self {
        Self {
            program,
            uris,
            name,
        }
    }

    /// Brings it to a new file of at most so many bytes.
    pub(crate) async fn bring(&self, to: &Path, most: u64, progress: &Progress) -> Result<()> {
        let grows = |length| {
            progress.fetched(length);
            match length <= most {
                true => Ok(()),
                false => Err(Failure::invalid(format!(
                    "the archive has more than {most} bytes, the setting 'max_image_bytes'"
                ))),
            }
        };
        let mut failures = Vec::new();
        let mut is_missing = true;
        for uri in &self.uris {
            let failure = match self.program.fetch(uri, to, grows).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            // The program may have left a part of it.
            let _ = fs::remove_file(to);
            let message = format!("'{uri}': {failure}");
            match failure.code() {
                Code::InvalidArgument => return Err(Error::Refused(message)),
                Code::NotFound => {}
                _ => is_missing = false,
            }
            failures.push(message);
        }
        let message = failures.join("; ");
        Err(match is_missing {
            true => Error::Missing(message),
            false => Error::Unavailable(message),
        })
    }
}
