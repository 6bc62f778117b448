//! parapet.

fn main() {}
