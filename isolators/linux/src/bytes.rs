//! Amounts of memory in Mesos' words.

/// The largest unit that loses nothing: `32MB`, `32769KB`, `5B`. Mirrors stout's `operator<<` for `Bytes`.
pub fn show_bytes(bytes: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut amount = bytes;
    while amount != 0 && amount.is_multiple_of(1024) && unit + 1 < units.len() {
        amount /= 1024;
        unit += 1;
    }
    format!("{amount}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_raised_without_loss() {
        let shown = [
            0,
            1023,
            1024,
            32 << 20,
            (32 << 20) + 1024,
            3 << 30,
            5 << 40,
            2048 << 40,
        ]
        .map(show_bytes);
        assert_eq!(
            shown,
            [
                "0B", "1023B", "1KB", "32MB", "32769KB", "3GB", "5TB", "2048TB"
            ]
        );
    }
}
