//! Facts, rounds and proposals of the allocator as packed columns.
