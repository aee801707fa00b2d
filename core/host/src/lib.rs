//! Finds, verifies, loads and calls modules; reads their configuration.
//!
//! A module is a shared library with a stable ABI. The host finds it by its name without running any
//! code of it, checks it in a child process, loads a private copy, and calls it through lanes with
//! deadlines, so that a panic or a late answer costs that call only. The same library runs in the
//! daemon or in a child process ([`config::RunIn`]). Nothing is ever unloaded.

pub mod config;
pub mod value;
