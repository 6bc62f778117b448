//! split-driver.

fn main() {}
