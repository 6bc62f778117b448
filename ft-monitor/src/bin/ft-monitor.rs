//! ft-monitor.

fn main() {}
