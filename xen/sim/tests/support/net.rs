//! The network half of the test backend.
