//! The tepui command.

fn main() {}
