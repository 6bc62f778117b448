//! Network: netif rings to and from a tap, with checksums and segmentation left to whoever can do them best.
//!
//! In the order in which a packet from the guest meets them: [`tx`] (slots to packets), [`offload`] and [`frame`] (headers),
//! [`link`] (the tap); to the guest: [`rx`]. [`queue`] is one pass over both rings, [`worker`] the thread, [`features`] what an order may ask.
//!
//! There is no journal: responses are published at packet boundaries only, and a successor answers what was under way
//! without carrying it out. Ethernet may lose frames; it may not deliver bytes of a page that a half-written response made up.

pub mod features;
pub mod frame;
pub mod link;
pub mod offload;
pub mod queue;
pub mod rx;
pub mod tx;
pub mod worker;
