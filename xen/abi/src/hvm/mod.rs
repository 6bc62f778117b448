//! PVH and HVM domains: parameters, start information and saved state. Source: `xen/hvm/*.h`, `xen/arch-x86/hvm/*.h`.

pub mod params;
pub mod save;
pub mod start_info;
