//! Library of the kernel isolators.
