//! Supervisor and first process of a container.

fn main() {}
