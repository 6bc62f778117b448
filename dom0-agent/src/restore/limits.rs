//! Every bound of restoring, with its unit. Those of the stream itself are `xen_stream::limits`.

/// Pages filled at once (4 MiB: what stock puts into one record).
pub const WINDOW_PAGES: usize = xen_stream::limits::BATCH_PAGES;
/// Pages a PV guest may have beyond its `maxmem`: what xl allows it besides.
pub const PV_SLACK_PAGES: u64 = crate::build::limits::MAXMEM_SLACK_KIB / 4;
/// Pages that are in a buffer on their way from a connection (1 MiB): a PV dom0 pays 20 us for each page of it.
pub const BUFFER_PAGES: usize = 256;
/// So few pages at once are mapped here instead: an order to a mover takes longer.
pub const FEW_PAGES: usize = 16;
/// Pages that a mover maps before the next one takes over, where a guest may wait for its end: 2.2 us for each.
pub const MOVER_PAGES: usize = 8192;

const _: () = assert!(WINDOW_PAGES.is_multiple_of(BUFFER_PAGES) && WINDOW_PAGES < MOVER_PAGES);
