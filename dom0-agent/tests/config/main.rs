//! The configuration language from outside: text in, guests and complaints out.

mod devices;
mod domain;
mod parse;
mod refusals;
mod stock;
