//! What the frontend publishes when the backend offers, and what it reads when the backend is connected.

use super::{BlkFront, BlkState, DiskInfo, Queue};
use crate::frontend::xenbus::overridden;
use xen_abi::io::blkif;
use xen_abi::io::xenbus::XenbusState;

impl BlkFront {
    pub(super) fn offer(&mut self) {
        let number = |key| self.device.backend_number(key);
        let order = number("max-ring-page-order").unwrap_or(0);
        let order = u32::try_from(order)
            .unwrap_or(0)
            .min(self.options.ring_order);
        let queues = number("multi-queue-max-queues").unwrap_or(1).max(1);
        let queues = u32::try_from(queues).unwrap_or(1).min(self.options.queues);
        let domu = self.device.domu().clone();
        self.queues = (0..queues)
            .map(|_| Queue::new(&domu, order, self.options))
            .collect();
        let keys = overridden(self.keys(order), &self.overrides);
        if self.device.publish(&keys).is_ok() {
            self.device.switch(XenbusState::Initialised);
            self.state = BlkState::Offered;
        }
    }

    fn keys(&self, order: u32) -> Vec<(String, String)> {
        let mut keys = Vec::new();
        let mut add = |key: String, value: String| keys.push((key, value));
        if order > 0 {
            add("ring-page-order".into(), order.to_string());
        }
        if self.queues.len() > 1 {
            add(
                "multi-queue-num-queues".into(),
                self.queues.len().to_string(),
            );
        }
        for (n, queue) in self.queues.iter().enumerate() {
            let dir = if self.queues.len() > 1 {
                format!("queue-{n}/")
            } else {
                String::new()
            };
            if order == 0 {
                add(format!("{dir}ring-ref"), queue.ring.grefs()[0].to_string());
            } else {
                for (page, gref) in queue.ring.grefs().iter().enumerate() {
                    add(format!("{dir}ring-ref{page}"), gref.to_string());
                }
            }
            add(format!("{dir}event-channel"), queue.port.to_string());
        }
        add("protocol".into(), self.options.protocol.as_str().into());
        add(
            "feature-persistent".into(),
            u8::from(self.options.persistent).to_string(),
        );
        keys
    }

    pub(super) fn connect(&mut self) {
        let number = |key| self.device.backend_number(key);
        let flag = |key| number(key) == Some(1);
        let (Some(sectors), Some(sector_size)) = (number("sectors"), number("sector-size")) else {
            self.device
                .complain("connected without sectors and sector-size");
            return;
        };
        let offered = number("feature-max-indirect-segments").unwrap_or(0);
        let indirect = usize::try_from(offered.min(u64::from(self.options.indirect)));
        let indirect = indirect.unwrap_or(0);
        self.info = DiskInfo {
            sectors,
            sector_size,
            physical_sector_size: number("physical-sector-size").unwrap_or(sector_size),
            info: number("info").unwrap_or(0),
            flush: flag("feature-flush-cache"),
            barrier: flag("feature-barrier"),
            discard: flag("feature-discard"),
            discard_secure: flag("discard-secure"),
            persistent: self.options.persistent && flag("feature-persistent"),
            segments: if indirect > blkif::MAX_SEGMENTS {
                indirect
            } else {
                blkif::MAX_SEGMENTS
            },
        };
        if sectors * 512 % self.info.physical_sector_size.max(512) != 0 {
            self.device
                .complain("sectors are no multiple of the physical sector size");
        }
        self.device.switch(XenbusState::Connected);
        self.state = BlkState::Connected;
    }
}
