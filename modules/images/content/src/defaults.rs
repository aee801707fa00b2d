//! What settings of image stores are by default.

/// Most bytes that one image may unpack to.
pub fn max_image_bytes() -> u64 {
    64 << 30
}

/// Most files that one image may have.
pub fn max_image_files() -> u64 {
    4_000_000
}

/// Seconds that a registry may be silent.
pub fn stall_secs() -> u64 {
    60
}
