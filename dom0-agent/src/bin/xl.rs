//! xl.

fn main() {}
