//! A small honest backend to test the frontends against, and the ways in which it can be made dishonest.
pub mod blk;
pub mod net;

use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::ring::{BackIndexes, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, need_notify};
use xen_host::region::{SharedRegion, full_barrier};
use xen_host::seam::{Events, Grants};
use xen_host::xenstore::store::{StoreExt, TxId};
use xen_sim::SimHost;
use xen_sim::frontend::xenbus::DeviceAddress;

pub struct BackRing {
    pub region: SharedRegion,
    pub index: BackIndexes,
    pub port: Option<Port>,
    entry_bytes: usize,
    published: u32,
}

impl BackRing {
    pub fn map(
        grants: &dyn Grants,
        domid: xen_abi::ids::DomId,
        refs: &[GrantRef],
        entry_bytes: usize,
    ) -> Self {
        let region = grants.map(domid, refs, true).unwrap();
        let size = xen_abi::io::ring::entries(refs.len().ilog2(), entry_bytes).unwrap();
        let index = BackIndexes::new(size).unwrap();
        Self {
            region,
            index,
            port: None,
            entry_bytes,
            published: 0,
        }
    }

    pub fn at(&self, index: u32) -> usize {
        xen_abi::io::ring::entry_offset(index, self.index.size(), self.entry_bytes)
    }

    pub fn next(&mut self) -> Option<Vec<u8>> {
        let req_prod = self.region.load_u32(REQ_PROD);
        if self.index.unconsumed(req_prod).unwrap() == 0 {
            self.region.store_u32(REQ_EVENT, self.index.wake_at());
            full_barrier();
            if self
                .index
                .unconsumed(self.region.load_u32(REQ_PROD))
                .unwrap()
                == 0
            {
                return None;
            }
        }
        let index = self.index.take()?;
        Some(self.region.read_vec(self.at(index), self.entry_bytes))
    }

    pub fn answer(&mut self, bytes: &[u8]) {
        let index = self.index.answer().unwrap();
        self.region.write(self.at(index), bytes);
    }

    pub fn publish(&mut self, events: &dyn Events) {
        let (old, new) = (self.published, self.index.rsp_prod());
        full_barrier();
        self.region.store_u32(RSP_PROD, new);
        full_barrier();
        self.published = new;
        if old != new && need_notify(old, new, self.region.load_u32(RSP_EVENT)) {
            events.notify(self.port.unwrap()).unwrap();
        }
    }
}

pub fn read(host: &SimHost, dir: &str, key: &str) -> Option<String> {
    host.read_text(TxId::NONE, &format!("{dir}/{key}")).unwrap()
}

pub fn number(host: &SimHost, dir: &str, key: &str) -> Option<u32> {
    read(host, dir, key)?.parse().ok()
}

pub fn write(host: &SimHost, at: &DeviceAddress, key: &str, value: &str) {
    host.write_text(TxId::NONE, &format!("{}/{key}", at.backend()), value)
        .unwrap();
}
