//! The tables as text, for `abi.lock`.

/// Every type that [`crate::RootV1Ref`] reaches, one line each.
pub fn layout_text() -> String {
    String::new()
}
