//! How fast a download is.

use std::time::Duration;

use tepui_module_sdk::tokio::time::Instant;

/// Watches that a download does not only drip: a server that sends a byte now and then would hold it for ever. As with
/// `curl --speed-limit 1` it has stalled when it brings less than a byte a second for as long as is let.
#[derive(Debug)]
pub struct Pace {
    stall: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// A download that begins now and may stall for so long.
    pub fn new(stall: Duration) -> Self {
        Self {
            stall,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Takes note of bytes that came; false when the download has stalled.
    pub fn came(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u64;
        if self.bytes >= self.stall.as_secs().max(1) {
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        self.since.elapsed() < self.stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::tokio::{self, time::advance};

    #[tokio::test(start_paused = true)]
    async fn a_drip_is_a_stall_and_a_pause_is_none() {
        let mut pace = Pace::new(Duration::from_secs(10));
        for _ in 0..9 {
            advance(Duration::from_millis(1100)).await;
            assert!(pace.came(1));
        }
        advance(Duration::from_millis(1100)).await;
        // The tenth byte is one a second still, as nearly as is looked.
        assert!(pace.came(1));
        for second in 1..10 {
            advance(Duration::from_millis(1200)).await;
            assert_eq!(pace.came(1), second < 9, "{second}");
        }
        // What waited for the disk comes in large pieces.
        let mut pace = Pace::new(Duration::from_secs(10));
        advance(Duration::from_secs(100)).await;
        assert!(pace.came(16 << 10));
    }
}
