//! A layer on its way from where it is to a directory: downloaded, decompressed, unpacked and checked at once.

use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use reqwest::{Response, Version, header};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, time};

use crate::error::{Error, Result};
use crate::manifest::{Digest, Part};
use crate::registry::Registry;
use crate::unpack::{Allowance, unpack};

/// Pieces of a download that wait to be unpacked.
pub(crate) const WAITING: usize = 16;
/// How often a download that breaks off is tried to be taken up without a byte coming of it.
const TRIES: u32 = 3;
/// The wait before the first of them; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(500);

/// Downloads a layer into a directory. One that breaks off goes on where it was.
pub(crate) async fn download(
    registry: &Registry,
    part: &Part,
    diff_id: &Digest,
    into: &Path,
    allowance: Arc<Allowance>,
    count: impl Fn(u64),
) -> Result<()> {
    let (mut response, _) = registry.blob(&part.digest.to_string(), 0).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let pieces = Pieces::new(receiver);
    let unpacking = install(pieces, Some(part.clone()), diff_id.clone(), into, allowance);
    let downloading = async {
        // Bytes that are here, and those to come that are here already.
        let (mut length, mut known, mut tries) = (0, 0, 0);
        let mut pace = registry.pace();
        loop {
            let broken = match response.chunk().await {
                Ok(Some(mut piece)) => {
                    if !pace.came(piece.len()) {
                        // Another connection would be as slow.
                        return Err(registry.stalled());
                    }
                    let skipped = known.min(piece.len() as u64);
                    known -= skipped;
                    piece.advance(usize::try_from(skipped).expect("at most its length"));
                    if piece.is_empty() {
                        continue;
                    }
                    tries = 0;
                    length += piece.len() as u64;
                    count(piece.len() as u64);
                    if length > part.size {
                        return Err(wrong_size(part));
                    }
                    if sender.send(Ok(piece)).await.is_err() {
                        // The other side has its reason.
                        return Ok(());
                    }
                    continue;
                }
                Ok(None) if length < part.size && ends_with_connection(&response) => {
                    Error::Unavailable("the connection ended".to_owned())
                }
                Ok(None) => {
                    drop(sender);
                    return Ok(());
                }
                Err(error) => registry.broken(error),
            };
            match go_on(registry, part, length, &mut tries, broken).await {
                Ok(found) => (response, known) = found,
                Err(error) => {
                    let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                    return Err(error);
                }
            }
        }
    };
    let (downloaded, unpacked) = tokio::join!(downloading, unpacking);
    downloaded?;
    unpacked
}

/// Whether nothing but the end of the connection says that an answer is complete.
fn ends_with_connection(response: &Response) -> bool {
    let says = |name| response.headers().contains_key(name);
    response.version() <= Version::HTTP_11
        && !says(header::CONTENT_LENGTH)
        && !says(header::TRANSFER_ENCODING)
}

/// Asks for the rest of a layer after `length` bytes; answers as [`Registry::blob`] does.
async fn go_on(
    registry: &Registry,
    part: &Part,
    length: u64,
    tries: &mut u32,
    broken: Error,
) -> Result<(Response, u64)> {
    let mut last = broken;
    while *tries < TRIES {
        time::sleep(PAUSE * 2u32.pow(*tries)).await;
        *tries += 1;
        match registry.blob(&part.digest.to_string(), length).await {
            Err(error @ Error::Unavailable(_)) => last = error,
            found => return found,
        }
    }
    Err(Error::Unavailable(format!(
        "the layer {} broke off after {length} of {} bytes, and {TRIES} tries to go on failed: {last}",
        part.digest, part.size
    )))
}

/// Unpacks a layer that can be read, and checks that it is what it says.
pub(crate) async fn install(
    layer: impl Read + Send + 'static,
    part: Option<Part>,
    diff_id: Digest,
    into: &Path,
    allowance: Arc<Allowance>,
) -> Result<()> {
    let into = into.to_owned();
    let work = move || {
        let mut compressed = Hashed::new(layer);
        let decoded = unpack_all(&mut compressed, &into, &allowance)?;
        if let Some(part) = part {
            if compressed.length != part.size {
                return Err(wrong_size(&part));
            }
            let found = Digest::finish(compressed.hasher);
            if found != part.digest {
                return Err(Error::Refused(format!(
                    "the layer {} is not what it says: its digest is {found}",
                    part.digest
                )));
            }
        }
        if decoded != diff_id {
            return Err(Error::Refused(format!(
                "a layer unpacks to {decoded}, but the image's configuration says {diff_id}"
            )));
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Disk(format!("unpacking ended: {error}")))?
}

/// Answers the digest of what was unpacked; the layer is read to its end.
pub(crate) fn unpack_all(
    compressed: &mut impl Read,
    into: &Path,
    allowance: &Allowance,
) -> Result<Digest> {
    let mut compressed = BufReader::with_capacity(64 << 10, compressed);
    let digest = unpack_plain(decoder(&mut compressed)?, into, allowance)?;
    io::copy(&mut compressed, &mut io::sink())
        .map_err(|error| Error::Refused(format!("the layer is broken: {error}")))?;
    Ok(digest)
}

fn unpack_plain(plain: impl Read, into: &Path, allowance: &Allowance) -> Result<Digest> {
    let mut plain = Hashed::new(plain);
    unpack(&mut plain, into, allowance)?;
    // Padding behind the archive counts as well.
    let mut rest = vec![0; 64 << 10];
    loop {
        let broken = |error: io::Error| Error::Refused(format!("the layer is broken: {error}"));
        match plain.read(&mut rest).map_err(broken)? {
            0 => return Ok(Digest::finish(plain.hasher)),
            length => allowance.bytes(length as u64)?,
        }
    }
}

/// What an archive is unpacked by: gzip, zstd or nothing. By the first bytes: media types of manifests are wrong too often.
///
/// # Errors
///
/// When it cannot be read.
pub fn decoder<'a>(compressed: &'a mut BufReader<impl Read>) -> Result<Box<dyn Read + 'a>> {
    use std::io::BufRead;
    let broken = |error: io::Error| Error::Refused(format!("the layer cannot be read: {error}"));
    let start = compressed.fill_buf().map_err(broken)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(compressed)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(broken)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(compressed))
}

fn wrong_size(part: &Part) -> Error {
    Error::Refused(format!(
        "the layer {} has not the {} bytes that the manifest says",
        part.digest, part.size
    ))
}

/// Takes the digest of what is read.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    length: u64,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            length: 0,
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

/// A download, read by a thread.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
