//! End-to-end tests on the real binaries.
