//! A link whose other end is two lists; each frame with the tap's header.

use nix::errno::Errno;
use split_drivers::net::link::{Link, Span};
use std::collections::VecDeque;
use xen_host::region::SharedRegion;

#[derive(Debug)]
pub struct Lists {
    buffer: SharedRegion,
    pub sent: Vec<Vec<u8>>,
    pub coming: VecDeque<Vec<u8>>,
}

impl Lists {
    pub fn new(pages: usize) -> Self {
        Self {
            buffer: SharedRegion::anonymous(pages).unwrap(),
            sent: Vec::new(),
            coming: VecDeque::new(),
        }
    }
}

impl Link for Lists {
    fn buffer(&self) -> &SharedRegion {
        &self.buffer
    }

    fn send(&mut self, frames: &[Span]) -> Result<usize, Errno> {
        self.sent.extend(
            frames
                .iter()
                .map(|span| self.buffer.read_vec(span.at, span.len)),
        );
        Ok(frames.len())
    }

    fn receive(&mut self, rooms: &[Span], into: &mut Vec<Span>) -> Result<(), Errno> {
        for room in rooms {
            let Some(frame) = self.coming.pop_front() else {
                break;
            };
            self.buffer.write(room.at, &frame);
            into.push(Span {
                at: room.at,
                len: frame.len(),
            });
        }
        Ok(())
    }
}
