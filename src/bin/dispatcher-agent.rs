//! Guest binary.

fn main() {}
