//! Library of the built-in allocators.
