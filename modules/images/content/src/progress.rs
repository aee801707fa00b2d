//! How far a pull is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far a pull is, counted while it goes on. What is here already counts as done.
#[derive(Debug, Default)]
pub struct Progress {
    layers: AtomicU64,
    layers_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
}

impl Progress {
    /// So much is here of an archive that has the layers.
    pub(crate) fn fetched(&self, bytes: u64) {
        self.bytes_done.store(bytes, Relaxed);
    }

    /// So many layers are wanted, with so many bytes as they are sent; 0 where that is not known.
    pub(crate) fn expect(&self, layers: usize, bytes: u64) {
        self.bytes_done.store(0, Relaxed);
        self.layers.store(layers as u64, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    pub(crate) fn layer_done(&self) {
        self.layers_done.fetch_add(1, Relaxed);
    }

    pub(crate) fn bytes_done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }
}

/// `12.5 of 80.0 MiB, 1 of 3 layers`.
impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.load(Relaxed);
        let mebibytes = |bytes: &AtomicU64| bytes.load(Relaxed) as f64 / f64::from(1 << 20);
        if layers == 0 {
            return match mebibytes(&self.bytes_done) {
                0.0 => formatter.write_str("looking for the image"),
                done => write!(formatter, "{done:.1} MiB of the archive"),
            };
        }
        let (done, all) = (mebibytes(&self.bytes_done), mebibytes(&self.bytes));
        if all > 0.0 {
            write!(formatter, "{done:.1} of {all:.1} MiB, ")?;
        }
        write!(
            formatter,
            "{} of {layers} layers",
            self.layers_done.load(Relaxed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_few_words() {
        let progress = Progress::default();
        assert_eq!(progress.to_string(), "looking for the image");
        progress.fetched(3 << 19);
        assert_eq!(progress.to_string(), "1.5 MiB of the archive");
        progress.expect(3, 5 << 20);
        progress.layer_done();
        progress.bytes_done(1 << 19);
        assert_eq!(progress.to_string(), "0.5 of 5.0 MiB, 1 of 3 layers");
        progress.expect(2, 0);
        assert_eq!(progress.to_string(), "1 of 2 layers");
    }
}
