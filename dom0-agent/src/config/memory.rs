//! Memory sizes of a guest, all in KiB.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::diag::Fatal;
use super::limits::MAX_MEMORY_MIB;
use super::view::View;

/// The memory section of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// KiB given to the guest at start (`memory=`, written in MiB).
    pub target_kib: u64,
    /// KiB the guest may ever have (`maxmem=`, written in MiB), `target_kib` or more.
    pub max_kib: u64,
    /// KiB for shadow or HAP page tables (`shadow_memory=`, written in MiB); `None` leaves the usual formula.
    pub shadow_kib: Option<u64>,
    /// Whether `memory=` was written. Stock's JSON leaves out what was not.
    pub target_stated: bool,
    /// Whether `memory=` or `maxmem=` was written.
    pub max_stated: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let size = defaults::MEMORY_KIB;
        Self {
            target_kib: size,
            max_kib: size,
            shadow_kib: None,
            target_stated: false,
            max_stated: false,
        }
    }
}

impl MemoryConfig {
    /// Reads `memory=`, `maxmem=` and `shadow_memory=`.
    pub(super) fn read(view: &View<'_>) -> Result<Self, Fatal> {
        let target = mebibytes(view, "memory", 1)?;
        let max = mebibytes(view, "maxmem", 1)?;
        let size = target.or(max).unwrap_or(defaults::MEMORY_KIB);
        let memory = Self {
            target_kib: size,
            max_kib: max.unwrap_or(size),
            shadow_kib: mebibytes(view, "shadow_memory", 0)?,
            target_stated: target.is_some(),
            max_stated: target.is_some() || max.is_some(),
        };
        if memory.max_kib < memory.target_kib {
            let (memory, maxmem) = (memory.target_kib >> 10, memory.max_kib >> 10);
            let text = format!("xl: maxmem={maxmem} is less than memory={memory} (both in MiB)");
            return Err(Fatal::new(view.pos("maxmem"), text));
        }
        Ok(memory)
    }
}

/// The KiB of a key that is written in MiB.
fn mebibytes(view: &View<'_>, key: &str, least: u64) -> Result<Option<u64>, Fatal> {
    let Some(number) = view.number(key) else {
        return Ok(None);
    };
    match u64::try_from(number) {
        Ok(mib) if (least..=MAX_MEMORY_MIB).contains(&mib) => Ok(Some(mib << 10)),
        _ => Err(Fatal::new(
            view.pos(key),
            format!("xl: {key}={number} is not between {least} and {MAX_MEMORY_MIB} MiB"),
        )),
    }
}
