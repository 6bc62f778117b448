//! Grant tables and mappings: who has which frame of whom in hand.
//!
//! ```text
//!   guest's table (real memory)            here
//!   [permit|ro|reading|writing] domid frame  ◀── pin ──  Map { frames, refs }  ◀── region dropped, process killed
//! ```
//!
//! As on Xen, a mapping sets the reading/writing flags in the guest's own entry and the last unmapping clears them, so a frontend sees
//! whether its page is still in use exactly as a Linux one does. Only version 1 tables are spoken.

use crate::limits::GRANTS_PER_FRAME;
use crate::machine::byte_of;
use crate::state::{ProcessId, State};
use std::collections::BTreeMap;
use xen_abi::grant_table::{FLAG_PERMIT_ACCESS, FLAG_READING, FLAG_READONLY, FLAG_WRITING};
use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, GrantCopy};

/// Entry allows access (`GTF_permit_access`).
pub const GTF_PERMIT_ACCESS: u16 = FLAG_PERMIT_ACCESS;
/// Entry allows reading only.
pub const GTF_READONLY: u16 = FLAG_READONLY;
/// Xen: somebody maps it for reading.
pub const GTF_READING: u16 = FLAG_READING;
/// Xen: somebody maps it for writing.
pub const GTF_WRITING: u16 = FLAG_WRITING;
const GTF_TYPE: u16 = 3;

/// `GNTST_general_error`
pub const GNTST_GENERAL_ERROR: i16 = -1;
/// `GNTST_bad_domain`
pub const GNTST_BAD_DOMAIN: i16 = -2;
/// `GNTST_bad_gntref`
pub const GNTST_BAD_GNTREF: i16 = -3;
/// `GNTST_bad_page`
pub const GNTST_BAD_PAGE: i16 = -9;

/// What a mapping maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapKind {
    Foreign,
    GrantTable,
    Grants(Vec<GrantRef>),
}

/// One live mapping.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) process: ProcessId,
    pub(crate) domid: DomId,
    pub(crate) kind: MapKind,
    pub(crate) mfns: Vec<u64>,
    pub(crate) writable: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Uses {
    all: u32,
    writable: u32,
}

/// All mappings of a world.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    live: BTreeMap<u64, Map>,
    next: u64,
    /// Frames that somebody other than the owner has mapped.
    uses: BTreeMap<u64, Uses>,
    pins: BTreeMap<(DomId, GrantRef), Uses>,
    /// Grant unmaps wait for [`State::settle_unmaps`], as when the kernel holds a page longer than `munmap` says.
    pub(crate) defer: bool,
    deferred: Vec<u64>,
}

impl Maps {
    pub(crate) fn live(&self) -> impl Iterator<Item = &Map> {
        self.live.values()
    }

    /// Frames of a run that somebody else maps, ascending.
    pub(crate) fn held_within(&self, mfn: u64, count: u64) -> Vec<u64> {
        self.uses
            .range(mfn..mfn + count)
            .map(|(frame, _)| *frame)
            .collect()
    }

    pub(crate) fn writable_uses(&self, mfn: u64) -> u32 {
        self.uses.get(&mfn).map_or(0, |uses| uses.writable)
    }

    /// Whether anything of a domain is mapped.
    pub(crate) fn any_of(&self, domid: DomId) -> bool {
        self.live.values().any(|map| map.domid == domid)
    }
}

fn count(uses: &mut Uses, writable: bool) {
    uses.all += 1;
    uses.writable += u32::from(writable);
}

fn uncount(uses: &mut Uses, writable: bool) -> bool {
    uses.all -= 1;
    uses.writable -= u32::from(writable);
    uses.all == 0
}

/// A grant entry as it stands in the guest's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) flags: u16,
    pub(crate) domid: DomId,
    pub(crate) frame: u32,
}

impl State {
    /// Where an entry lies in the machine's memory.
    pub(crate) fn entry_at(&self, domid: DomId, gref: GrantRef) -> Option<usize> {
        let domain = self.domains.get(&domid)?;
        let frame = domain
            .grant_frames
            .get((gref.0 / GRANTS_PER_FRAME) as usize)?;
        Some(byte_of(*frame, (gref.0 % GRANTS_PER_FRAME) as usize * 8))
    }

    pub(crate) fn entry(&self, domid: DomId, gref: GrantRef) -> Option<Entry> {
        let at = self.entry_at(domid, gref)?;
        let mut raw = [0; 8];
        self.memory.whole().read(at, &mut raw);
        Some(Entry {
            flags: u16::from_le_bytes([raw[0], raw[1]]),
            domid: DomId(u16::from_le_bytes([raw[2], raw[3]])),
            frame: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
    }

    fn set_entry_flags(&self, domid: DomId, gref: GrantRef, change: impl FnOnce(u16) -> u16) {
        if let (Some(at), Some(entry)) = (self.entry_at(domid, gref), self.entry(domid, gref)) {
            self.memory
                .whole()
                .write(at, &change(entry.flags).to_le_bytes());
        }
    }

    /// The frame dom0 may access through `gref`, or `GNTST_*`.
    fn granted(&self, domid: DomId, gref: GrantRef, writable: bool) -> Result<u64, i16> {
        let domain = self.domains.get(&domid).ok_or(GNTST_BAD_DOMAIN)?;
        if domain.dying {
            return Err(GNTST_GENERAL_ERROR);
        }
        let entry = self.entry(domid, gref).ok_or(GNTST_BAD_GNTREF)?;
        let refused = entry.flags & GTF_TYPE != GTF_PERMIT_ACCESS
            || entry.domid != DomId::DOM0
            || (writable && entry.flags & GTF_READONLY != 0);
        if refused {
            return Err(GNTST_GENERAL_ERROR);
        }
        domain.frame(u64::from(entry.frame)).ok_or(GNTST_BAD_PAGE)
    }

    /// All refs or none, as gntdev does it; the first failing status otherwise.
    pub(crate) fn map_grants(
        &mut self,
        process: ProcessId,
        domid: DomId,
        refs: &[GrantRef],
        writable: bool,
    ) -> Result<(u64, Vec<u64>), i16> {
        let mfns = refs
            .iter()
            .map(|gref| self.granted(domid, *gref, writable))
            .collect::<Result<Vec<_>, _>>()?;
        let kind = MapKind::Grants(refs.to_vec());
        let map = Map {
            process,
            domid,
            kind,
            mfns: mfns.clone(),
            writable,
        };
        Ok((self.add_map(map), mfns))
    }

    pub(crate) fn add_map(&mut self, map: Map) -> u64 {
        for mfn in &map.mfns {
            count(self.maps.uses.entry(*mfn).or_default(), map.writable);
        }
        if let MapKind::Grants(refs) = &map.kind {
            for gref in refs {
                count(
                    self.maps.pins.entry((map.domid, *gref)).or_default(),
                    map.writable,
                );
                let writing = if map.writable { GTF_WRITING } else { 0 };
                self.set_entry_flags(map.domid, *gref, |flags| flags | GTF_READING | writing);
            }
        }
        let id = self.maps.next;
        self.maps.next += 1;
        self.maps.live.insert(id, map);
        id
    }

    /// The holder let go of a mapping. One that is gone already (its process was killed) is no error.
    pub(crate) fn let_go(&mut self, id: u64) {
        let deferrable = self.maps.defer
            && self.maps.live.get(&id).is_some_and(|map| {
                matches!(map.kind, MapKind::Grants(_)) && map.process != ProcessId::XENSTORED
            });
        if deferrable {
            self.maps.deferred.push(id);
        } else {
            self.drop_map(id);
        }
    }

    /// Ends all deferred unmaps.
    pub(crate) fn settle_unmaps(&mut self) {
        for id in std::mem::take(&mut self.maps.deferred) {
            self.drop_map(id);
        }
    }

    fn drop_map(&mut self, id: u64) {
        let Some(map) = self.maps.live.remove(&id) else {
            return;
        };
        for mfn in &map.mfns {
            if self
                .maps
                .uses
                .get_mut(mfn)
                .is_some_and(|uses| uncount(uses, map.writable))
            {
                self.maps.uses.remove(mfn);
            }
        }
        if let MapKind::Grants(refs) = &map.kind {
            refs.iter()
                .for_each(|gref| self.unpin(map.domid, *gref, map.writable));
        }
        self.reap(map.domid);
    }

    fn unpin(&mut self, domid: DomId, gref: GrantRef, writable: bool) {
        let Some(pin) = self.maps.pins.get_mut(&(domid, gref)) else {
            return;
        };
        let last = uncount(pin, writable);
        let mut clear = if pin.writable == 0 { GTF_WRITING } else { 0 };
        if last {
            self.maps.pins.remove(&(domid, gref));
            clear |= GTF_READING;
        }
        self.set_entry_flags(domid, gref, |flags| flags & !clear);
    }

    /// Drops every mapping of a process.
    pub(crate) fn drop_maps_of(&mut self, process: ProcessId) {
        let ids: Vec<u64> = self
            .maps
            .live
            .iter()
            .filter(|(_, map)| map.process == process)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.let_go(id));
    }

    /// One segment; answers its `GNTST_*`.
    pub(crate) fn copy_segment(&self, local: &SharedRegion, segment: &GrantCopy) -> i16 {
        let writable = segment.direction == Direction::ToGuest;
        let mfn = match self.granted(segment.domid, segment.gref, writable) {
            Ok(mfn) => mfn,
            Err(status) => return status,
        };
        let at = byte_of(mfn, usize::from(segment.offset));
        let len = usize::from(segment.len);
        let whole = self.memory.whole();
        match segment.direction {
            Direction::FromGuest => whole.copy_to(at, local, segment.local_offset, len),
            Direction::ToGuest => local.copy_to(segment.local_offset, whole, at, len),
        }
        0
    }
}

/// Whether a segment stays within its page and the local buffer; if not, the whole call fails.
pub(crate) fn segment_fits(local: &SharedRegion, segment: &GrantCopy) -> bool {
    let len = usize::from(segment.len);
    usize::from(segment.offset) + len <= PAGE_SIZE
        && segment
            .local_offset
            .checked_add(len)
            .is_some_and(|end| end <= local.len())
}
