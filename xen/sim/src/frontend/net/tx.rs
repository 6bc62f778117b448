//! Packets from the guest: cut into slots, and their answers.

use super::{Buffer, Frame, NetFront};
use xen_abi::ids::PAGE_SIZE;
use xen_abi::io::netif::{
    ExtraInfo, RSP_DROPPED, RSP_ERROR, RSP_NULL, RSP_OKAY, TXF_CSUM_BLANK, TXF_DATA_VALIDATED,
    TXF_EXTRA_INFO, TXF_MORE_DATA, TxRequest, TxResponse,
};
use xen_abi::layout::copy_out;
use zerocopy::IntoBytes;

impl NetFront {
    /// Slots free for packets and extras on a queue.
    #[must_use]
    pub fn tx_room(&self, queue: usize) -> usize {
        self.queues.get(queue).map_or(0, |queue| {
            queue.free_ids.len().saturating_sub(queue.extras as usize)
        })
    }

    /// Sends a packet on the first queue, in pieces of at most a page. False when the ring has no room.
    pub fn send(&mut self, frame: &Frame) -> bool {
        let pieces: Vec<usize> = frame.data.chunks(PAGE_SIZE).map(<[u8]>::len).collect();
        self.send_in(0, frame, &pieces)
    }

    /// Sends a packet on a queue, cut into pieces of these lengths (each at most a page). False when the ring has no room.
    ///
    /// # Panics
    /// When the pieces do not make up the packet.
    pub fn send_in(&mut self, queue: usize, frame: &Frame, pieces: &[usize]) -> bool {
        assert_eq!(
            pieces.iter().sum::<usize>(),
            frame.data.len(),
            "pieces of the packet"
        );
        if self.tx_room(queue) < pieces.len() + usize::from(frame.gso.is_some()) {
            return false;
        }
        let domu = self.device.domu().clone();
        let mut done = 0;
        for (n, len) in pieces.iter().enumerate() {
            let page = domu.page();
            // Pieces never start at a page border, as skb data does not.
            let offset = if *len <= PAGE_SIZE - 64 { 64 } else { 0 };
            page.write(offset, &frame.data[done..done + len]);
            done += len;
            let gref = domu.grant(&page, true);
            let Some(id) = self.queues[queue].free_ids.pop() else {
                return false;
            };
            let mut flags = if n + 1 < pieces.len() {
                TXF_MORE_DATA
            } else {
                0
            };
            if n == 0 {
                flags |= if frame.csum_blank {
                    TXF_CSUM_BLANK | TXF_DATA_VALIDATED
                } else {
                    0
                };
                flags |= if frame.data_validated {
                    TXF_DATA_VALIDATED
                } else {
                    0
                };
                flags |= if frame.gso.is_some() {
                    TXF_EXTRA_INFO
                } else {
                    0
                };
            }
            let size = if n == 0 { frame.data.len() } else { *len };
            let request = TxRequest {
                gref: gref.0,
                offset: u16::try_from(offset).unwrap_or(0),
                flags,
                id,
                size: u16::try_from(size).unwrap_or(u16::MAX),
            };
            self.queues[queue].sending.insert(id, Buffer { page, gref });
            let _ = self.queues[queue].tx.put(request.as_bytes());
            if let Some((kind, size)) = frame.gso.filter(|_| n == 0) {
                self.queues[queue].extras += 1;
                let mut slot = [0; 12];
                slot[..8].copy_from_slice(ExtraInfo::gso(kind, size, false).as_bytes());
                let _ = self.queues[queue].tx.put(&slot);
            }
        }
        self.push_tx(queue);
        true
    }

    /// Makes transmit requests visible and sends an event if the backend wants one.
    pub fn push_tx(&mut self, queue: usize) {
        if self.queues[queue].tx.push() {
            self.device.domu().send(self.queues[queue].tx_port);
        }
    }

    /// Takes the answers to transmit requests of all queues; answers how many slots came back.
    pub fn reap(&mut self) -> usize {
        let mut count = 0;
        for n in 0..self.queues.len() {
            let hit =
                self.options.split_ports && self.device.domu().take_pending(self.queues[n].tx_port);
            match self.reap_queue(n) {
                Ok(taken) => {
                    self.spurious += u64::from(hit && taken == 0);
                    count += taken;
                }
                Err(why) => self.disable(&why),
            }
        }
        count
    }

    fn reap_queue(&mut self, n: usize) -> Result<usize, String> {
        let mut count = 0;
        while self.disabled.is_none() {
            let taken = self.queues[n]
                .tx
                .take()
                .map_err(|error| error.to_string())?;
            if let Some(index) = taken {
                count += 1;
                self.tx_answer(n, index)?;
            } else if !self.queues[n]
                .tx
                .final_check()
                .map_err(|error| error.to_string())?
            {
                break;
            }
        }
        Ok(count)
    }

    fn tx_answer(&mut self, n: usize, index: u32) -> Result<(), String> {
        let domu = self.device.domu().clone();
        let queue = &mut self.queues[n];
        let raw = queue.tx.entry(index);
        let Some(answer) = copy_out::<TxResponse>(&raw) else {
            return Err("short slot".into());
        };
        match answer.status {
            RSP_NULL if queue.extras > 0 => {
                queue.extras -= 1;
                return Ok(());
            }
            RSP_NULL => return Err("answer NULL for a slot that was no extra".into()),
            RSP_OKAY => self.answered.0 += 1,
            RSP_ERROR => self.answered.1 += 1,
            RSP_DROPPED => self.answered.2 += 1,
            other => return Err(format!("transmit answer with status {other}")),
        }
        let queue = &mut self.queues[n];
        let Some(buffer) = queue.sending.remove(&answer.id) else {
            return Err(format!(
                "transmit answer for id {}, which waits for none",
                answer.id
            ));
        };
        domu.end_access(buffer.gref)
            .map_err(|still| format!("answered too early: {still}"))?;
        domu.free(buffer.page);
        queue.free_ids.push(answer.id);
        Ok(())
    }
}
