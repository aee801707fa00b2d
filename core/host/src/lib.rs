//! Finds, verifies, loads and calls modules; reads the configuration.
