//! PV domains: what their kernel finds at start, the page shared with Xen, registers and page tables.

pub mod page_table;
pub mod shared_info;
pub mod start_info;
pub mod vcpu_context;
