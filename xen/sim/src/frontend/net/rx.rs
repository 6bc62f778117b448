//! Packets to the guest: empty pages offered, pieces taken out and put together.

use super::{Buffer, Frame, NetFront};
use std::time::Duration;
use xen_abi::ids::PAGE_SIZE;
use xen_abi::io::netif::{
    Extra, ExtraInfo, RXF_CSUM_BLANK, RXF_DATA_VALIDATED, RXF_EXTRA_INFO, RXF_MORE_DATA, RxRequest,
    RxResponse,
};
use xen_abi::layout::copy_out;
use zerocopy::IntoBytes;

/// A packet that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Partial {
    frame: Option<Frame>,
    /// The next slot is an extra.
    extra_next: bool,
    more_data: bool,
}

impl NetFront {
    /// Offers pages until as many are offered as [`super::NetOptions::rx_buffers`] says.
    pub fn refill(&mut self, queue: usize) {
        let offered = self
            .queues
            .get(queue)
            .map_or(0, |queue| queue.buffers.len());
        let wanted = self.options.rx_buffers;
        self.offer_buffers(
            queue,
            wanted.saturating_sub(u32::try_from(offered).unwrap_or(0)),
        );
    }

    /// Offers at most this many pages on the receive ring.
    pub fn offer_buffers(&mut self, queue: usize, most: u32) {
        let domu = self.device.domu().clone();
        for _ in 0..most {
            let slot = self.queues[queue].rx.req_prod();
            let id = u16::try_from(slot % self.queues[queue].rx.size()).unwrap_or(0);
            let known = &self.queues[queue].buffers;
            if known.len() >= self.queues[queue].rx.size() as usize {
                break;
            }
            let page = domu.page();
            let gref = domu.grant(&page, false);
            let request = RxRequest {
                id,
                pad: 0,
                gref: gref.0,
            };
            let Some(index) = self.queues[queue].rx.put(request.as_bytes()) else {
                let _ = domu.end_access(gref);
                domu.free(page);
                break;
            };
            self.queues[queue]
                .buffers
                .insert(index, (id, Buffer { page, gref }));
        }
        if self.queues[queue].rx.push() && self.state == super::NetState::Connected {
            domu.send(self.queues[queue].rx_port);
        }
    }

    /// Takes the packets that arrived, on all queues, and offers the pages again.
    pub fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for n in 0..self.queues.len() {
            let hit = self.device.domu().take_pending(self.queues[n].rx_port);
            match self.receive_queue(n, &mut frames) {
                Ok(0) if hit && self.options.split_ports => self.spurious += 1,
                Ok(0) => {}
                Ok(_) => self.refill(n),
                Err(why) => self.disable(&why),
            }
        }
        frames
    }

    /// Takes packets until `count` have come, while something else runs the backend. Fewer when `most` was not enough.
    pub fn wait_frames(&mut self, count: usize, most: Duration) -> Vec<Frame> {
        let world = self.device.domu().world().clone();
        let mut frames = Vec::new();
        let _ = world.wait_until(most, || {
            frames.extend(self.receive());
            frames.len() >= count || self.disabled.is_some()
        });
        frames
    }

    fn receive_queue(&mut self, n: usize, frames: &mut Vec<Frame>) -> Result<usize, String> {
        let mut count = 0;
        while self.disabled.is_none() {
            let taken = self.queues[n]
                .rx
                .take()
                .map_err(|error| error.to_string())?;
            if let Some(index) = taken {
                count += 1;
                frames.extend(self.rx_slot(n, index)?);
            } else if !self.queues[n]
                .rx
                .final_check()
                .map_err(|error| error.to_string())?
            {
                break;
            }
        }
        Ok(count)
    }

    fn rx_slot(&mut self, n: usize, index: u32) -> Result<Option<Frame>, String> {
        let domu = self.device.domu().clone();
        let queue = &mut self.queues[n];
        let raw = queue.rx.entry(index);
        let Some((id, buffer)) = queue.buffers.remove(&index) else {
            return Err(format!(
                "receive slot {index} was answered before it was offered"
            ));
        };
        if queue.partial.extra_next {
            domu.end_access(buffer.gref)
                .map_err(|still| format!("answered too early: {still}"))?;
            domu.free(buffer.page);
            return self.rx_extra(n, &raw);
        }
        let Some(answer) = copy_out::<RxResponse>(&raw) else {
            return Err("short slot".into());
        };
        if answer.id != id {
            return Err(format!(
                "receive slot {index} holds the answer to id {}, not {id}",
                answer.id
            ));
        }
        let data = usize::try_from(answer.status).map(|len| (usize::from(answer.offset), len));
        let result = match data {
            Ok((offset, len)) if offset + len <= PAGE_SIZE => Ok(buffer.page.read_vec(offset, len)),
            Ok((offset, len)) => Err(format!("receive answer of {offset}+{len} leaves its page")),
            Err(_) => Ok(Vec::new()),
        };
        domu.end_access(buffer.gref)
            .map_err(|still| format!("answered too early: {still}"))?;
        domu.free(buffer.page);
        let bytes = result?;
        let partial = &mut queue.partial;
        let first = partial.frame.is_none();
        let frame = partial.frame.get_or_insert_with(Frame::default);
        if first {
            frame.csum_blank = answer.flags & RXF_CSUM_BLANK != 0;
            frame.data_validated = answer.flags & RXF_DATA_VALIDATED != 0;
            partial.extra_next = answer.flags & RXF_EXTRA_INFO != 0;
        }
        frame.data.extend(bytes);
        partial.more_data = answer.flags & RXF_MORE_DATA != 0;
        if partial.more_data && !self.options.sg {
            return Err("a packet in several pieces for a frontend without feature-sg".into());
        }
        Ok(self.finish(n))
    }

    fn rx_extra(&mut self, n: usize, raw: &[u8]) -> Result<Option<Frame>, String> {
        let partial = &mut self.queues[n].partial;
        let Some(extra) = ExtraInfo::decode(raw) else {
            return Err("short slot".into());
        };
        partial.extra_next = extra.more();
        match (extra.meaning(), &mut partial.frame) {
            (Extra::Gso { size, kind }, Some(frame)) if frame.gso.is_none() && size > 0 => {
                frame.gso = Some((kind, size));
                if !self.options.gso {
                    return Err("segmentation for a frontend that did not ask for it".into());
                }
            }
            (other, _) => return Err(format!("unexpected extra {other:?}")),
        }
        Ok(self.finish(n))
    }

    fn finish(&mut self, n: usize) -> Option<Frame> {
        let partial = &mut self.queues[n].partial;
        if partial.extra_next || partial.more_data {
            None
        } else {
            partial.frame.take()
        }
    }
}
