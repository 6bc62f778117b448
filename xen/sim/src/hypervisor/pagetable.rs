//! Validation of PV page tables, as Xen does when a table is pinned or loaded into cr3.
//!
//! A table page may be mapped writable by nobody: neither by another table nor by the control domain. Every refusal says why in
//! Xen's log and answers `EINVAL`.

use super::Outcome;
use crate::machine::byte_of;
use crate::state::State;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet};
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_abi::pv::page_table::{LEVELS, PRESENT, PSE, RW, XEN_L4_SLOTS, frame};

/// A validation under way: nothing of it counts before the whole tree was found good.
struct Validation<'a> {
    state: &'a State,
    domid: DomId,
    tables: BTreeMap<u64, u8>,
    writable: BTreeSet<u64>,
}

impl Validation<'_> {
    fn table(&mut self, mfn: u64, level: u8) -> Result<(), String> {
        match self.tables.get(&mfn) {
            Some(known) if *known == level => return Ok(()),
            Some(known) => return Err(format!("mfn {mfn:#x} is already an L{known} table")),
            None => {}
        }
        let domain = self
            .state
            .domains
            .get(&self.domid)
            .ok_or("no such domain")?;
        if domain.gfn_of(mfn).is_none() {
            return Err(format!(
                "L{level} table mfn {mfn:#x} does not belong to the domain"
            ));
        }
        if self.writable.contains(&mfn) {
            return Err(format!(
                "L{level} table mfn {mfn:#x} has a writable mapping in the guest"
            ));
        }
        if self.state.maps.writable_uses(mfn) > 0 {
            return Err(format!(
                "L{level} table mfn {mfn:#x} has a writable foreign mapping"
            ));
        }
        self.tables.insert(mfn, level);
        let bytes = self
            .state
            .memory
            .whole()
            .read_vec(byte_of(mfn, 0), PAGE_SIZE);
        for (slot, entry) in bytes.chunks_exact(8).enumerate() {
            let mut raw = [0; 8];
            raw.copy_from_slice(entry);
            let entry = u64::from_le_bytes(raw);
            if entry & PRESENT == 0 || (level == LEVELS && XEN_L4_SLOTS.contains(&slot)) {
                continue;
            }
            self.entry(entry, level, slot)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: u64, level: u8, slot: usize) -> Result<(), String> {
        let target = frame(entry);
        if level > 1 {
            if entry & PSE != 0 {
                return Err(format!(
                    "L{level} slot {slot}: superpages are not for PV guests"
                ));
            }
            return self.table(target, level - 1);
        }
        let domain = self
            .state
            .domains
            .get(&self.domid)
            .ok_or("no such domain")?;
        if domain.frame(target).is_none() {
            return Err(format!(
                "L1 slot {slot}: mfn {target:#x} does not belong to the domain"
            ));
        }
        if entry & RW != 0 {
            if self.tables.contains_key(&target) {
                return Err(format!(
                    "L1 slot {slot}: writable mapping of table mfn {target:#x}"
                ));
            }
            self.writable.insert(target);
        }
        Ok(())
    }
}

impl State {
    /// Finds the table good, or refuses; a good one and all below it are typed from then on.
    pub(crate) fn validate_table(&mut self, domid: DomId, mfn: u64, level: u8) -> Outcome<()> {
        let domain = self.guest(domid)?;
        let (tables, writable) = (domain.tables.clone(), domain.writable_leaves.clone());
        let mut validation = Validation {
            state: self,
            domid,
            tables,
            writable,
        };
        let verdict = validation.table(mfn, level);
        let (tables, writable) = (validation.tables, validation.writable);
        match verdict {
            Ok(()) => {
                let domain = self.guest(domid)?;
                domain.tables = tables;
                domain.writable_leaves = writable;
                Ok(())
            }
            Err(why) => {
                self.log_xen(&format!("d{domid}: {why}"));
                Err(Errno::EINVAL)
            }
        }
    }

    pub(crate) fn pin_table(&mut self, domid: DomId, level: u8, mfn: u64) -> Outcome<()> {
        if !self.guest(domid)?.is_pv() || !(1..=LEVELS).contains(&level) {
            return Err(Errno::EINVAL);
        }
        self.validate_table(domid, mfn, level)?;
        self.guest(domid)?.pinned.insert(mfn);
        Ok(())
    }
}
