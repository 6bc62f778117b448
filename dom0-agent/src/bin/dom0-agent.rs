//! dom0-agent.

fn main() {}
