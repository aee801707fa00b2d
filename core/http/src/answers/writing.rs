//! One answer being written, on a thread, for all its readers.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::slow::Entered;
use super::{Asker, Begun, Encode, Encoding, Part, SLOW, WRITERS};

/// An answer of at least this many bytes is sent in chunks, a shorter one with its length.
pub(super) const LONG: usize = 256 * 1024;

/// Bytes that are handed to readers at once: handing on wakes another thread, which costs more than many pieces.
const BATCH: usize = 256 * 1024;

/// Compressed bytes are sent in pieces of at least this many.
const COMPRESSED_PIECE: usize = 16 * 1024;

/// How long a writer waits for its readers in all, if they are quicker than [`PACE`].
const GRACE: Duration = Duration::from_millis(250);

/// Bytes a second that a reader takes who is not slow.
const PACE: f64 = 8.0 * 1024.0 * 1024.0;

/// An answer, from its first byte on.
pub(super) struct Writing<E> {
    /// Who has not been told how it begins.
    askers: Vec<Asker<E>>,
    begun: Vec<Bytes>,
    length: usize,
    progress: Progress,
}

impl<E> Writing<E> {
    pub(super) fn new(askers: Vec<Asker<E>>, progress: Progress) -> Self {
        Self {
            askers,
            begun: Vec::new(),
            length: 0,
            progress,
        }
    }

    pub(super) fn run(mut self, encode: &Encode) {
        encode(&mut |piece| self.piece(piece));
        if self.length >= LONG {
            return self.progress.end();
        }
        for asker in self.askers {
            // Who has gone needs no answer.
            let _ = asker.begun.send(Ok(Begun::Whole(self.begun.clone())));
        }
    }

    fn piece(&mut self, piece: Bytes) -> ControlFlow<()> {
        if self.length >= LONG {
            return self.progress.write(&piece);
        }
        self.length += piece.len();
        self.begun.push(piece);
        if self.length >= LONG {
            for asker in self.askers.drain(..) {
                if asker.begun.send(Ok(Begun::Long)).is_ok() {
                    self.progress.readers.push(asker.pieces);
                }
            }
            let mut begun = std::mem::take(&mut self.begun).into_iter();
            return begun.try_for_each(|piece| self.progress.write(&piece));
        }
        match self.askers.iter().any(|asker| !asker.begun.is_closed()) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

/// How far the readers of a long answer have got.
pub(super) struct Progress {
    /// That of the server, which knows the time.
    runtime: Handle,
    encode: Encode,
    encoding: Encoding,
    gzip: Option<GzEncoder<Vec<u8>>>,
    readers: Vec<mpsc::Sender<Part>>,
    /// Held by all but slow answers.
    place: Option<OwnedSemaphorePermit>,
    /// Held by slow ones whose reader has been waited for.
    entered: Option<Entered>,
    /// Pieces that are made and not sent yet, and their length.
    batch: Vec<Bytes>,
    batched: usize,
    /// Bytes that are made, as they are sent, those of the batch included.
    made: usize,
    /// Of these the readers had so many from another writer.
    had: usize,
    pace: Pace,
}

impl Progress {
    pub(super) fn new(
        runtime: Handle,
        encode: Encode,
        encoding: Encoding,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let compressed = encoding == Encoding::Gzip;
        Self {
            runtime,
            encode,
            encoding,
            gzip: compressed.then(|| GzEncoder::new(Vec::new(), Compression::new(6))),
            readers: Vec::new(),
            place,
            entered: None,
            batch: Vec::new(),
            batched: 0,
            made: 0,
            had: 0,
            pace: Pace::default(),
        }
    }

    fn write(&mut self, piece: &Bytes) -> ControlFlow<()> {
        let Some(gzip) = &mut self.gzip else {
            return self.add(piece.clone());
        };
        gzip.write_all(piece)
            .expect("writing to memory cannot fail");
        if gzip.get_ref().len() < COMPRESSED_PIECE {
            return ControlFlow::Continue(());
        }
        let compressed = std::mem::take(gzip.get_mut());
        self.add(compressed.into())
    }

    fn end(mut self) {
        if let Some(gzip) = self.gzip.take() {
            let last = gzip.finish().expect("writing to memory cannot fail");
            let _ = self.add(last.into());
        }
        let _ = self.send();
        self.place = None;
        for reader in std::mem::take(&mut self.readers) {
            if let Err(mpsc::error::TrySendError::Full(part)) = reader.try_send(Part::End) {
                self.wait_slowly(&reader, part);
            }
        }
    }

    /// Adds what of a piece the readers do not have from another writer to what is sent next.
    fn add(&mut self, mut piece: Bytes) -> ControlFlow<()> {
        let had = self.had.saturating_sub(self.made).min(piece.len());
        self.made += piece.len();
        let piece = piece.split_off(had);
        if !piece.is_empty() {
            self.batched += piece.len();
            self.batch.push(piece);
        }
        // The first bytes are waited for.
        let is_first = self.batched == self.made;
        match is_first || self.batched >= BATCH {
            true => self.send(),
            false => ControlFlow::Continue(()),
        }
    }

    /// Hands the batch to all readers, and waits for those who have enough.
    fn send(&mut self) -> ControlFlow<()> {
        if self.batch.is_empty() {
            return ControlFlow::Continue(());
        }
        let batch: Arc<[Bytes]> = std::mem::take(&mut self.batch).into();
        let position = self.made - self.batched;
        self.pace.sent += std::mem::take(&mut self.batched);
        let mut index = 0;
        while index < self.readers.len() {
            let part = Part::Pieces(Arc::clone(&batch));
            let stays = match self.readers[index].try_send(part) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(part)) => self.wait(index, part, position),
            };
            if stays {
                index += 1;
            } else {
                self.readers.swap_remove(index);
            }
        }
        match self.readers.is_empty() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// Waits until a reader has room for the part that begins at `position`. False when this writer has
    /// done with the reader.
    fn wait(&mut self, index: usize, part: Part, position: usize) -> bool {
        let reader = self.readers[index].clone();
        if self.place.is_some() {
            let patience = self.pace.patience();
            let begun = Instant::now();
            let room = async { timeout(patience, reader.reserve()).await };
            match self.runtime.block_on(room) {
                Ok(Ok(room)) => {
                    room.send(part);
                    self.pace.waited += begun.elapsed();
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) => self.pace = Pace::default(),
            }
            if self.readers.len() > 1 {
                self.write_alone(reader, position);
                return false;
            }
            self.place = None;
        }
        self.wait_slowly(&reader, part)
    }

    /// Waits for a reader as long as it takes, or until another's answer needs the thread.
    fn wait_slowly(&mut self, reader: &mpsc::Sender<Part>, part: Part) -> bool {
        let entered = self.entered.get_or_insert_with(|| SLOW.enter());
        let bytes = match &part {
            Part::Pieces(pieces) => pieces.iter().map(Bytes::len).sum(),
            Part::End => 0,
        };
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = reader.send(part) => sent.is_ok(),
                () = entered.ended() => false,
            }
        });
        entered.taken(bytes);
        sent
    }

    /// Starts to write for one reader, who has read until `position`.
    fn write_alone(&self, reader: mpsc::Sender<Part>, position: usize) {
        let encode = Arc::clone(&self.encode);
        let mut alone = Progress::new(self.runtime.clone(), encode, self.encoding, None);
        alone.readers.push(reader);
        alone.had = position;
        alone.start();
    }

    /// Writes on a thread, for a reader who may be slow.
    fn start(mut self) {
        WRITERS.spawn_blocking(move || {
            let encode = Arc::clone(&self.encode);
            encode(&mut |piece| self.write(&piece));
            self.end();
        });
    }

    /// The same from the beginning.
    #[cfg(test)]
    pub(super) fn start_for(mut self, reader: mpsc::Sender<Part>) {
        self.readers.push(reader);
        self.start();
    }
}

/// How long the readers let their writer wait.
#[derive(Debug, Default)]
struct Pace {
    sent: usize,
    waited: Duration,
}

impl Pace {
    /// For how long they may go on so.
    fn patience(&self) -> Duration {
        let allowed = GRACE + Duration::from_secs_f64(self.sent as f64 / PACE);
        allowed.saturating_sub(self.waited)
    }
}
