//! Whole drivers against simulated guests: correct frontends that notice every broken rule, and hostile ones that break them all.

mod block;
mod block_hostile;
mod console;
mod network;
mod support;
