//! The master daemon.

fn main() {}
