//! Runs one module library in a child process.

fn main() {}
