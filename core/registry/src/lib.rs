//! What a leader must not forget.
