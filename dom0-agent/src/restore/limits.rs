//! Every bound of restoring, with its unit. Those of the stream itself are `xen_stream::limits`.

/// Pages filled at once (4 MiB: what stock puts into one record).
pub const WINDOW_PAGES: usize = xen_stream::limits::BATCH_PAGES;
/// Pages a PV guest may have beyond its `maxmem`: what xl allows it besides.
pub const PV_SLACK_PAGES: u64 = crate::build::limits::MAXMEM_SLACK_KIB / 4;
