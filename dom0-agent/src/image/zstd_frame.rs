//! Finds the end of a zstd frame without unpacking it.
//!
//! ```text
//!   magic 4 │ descriptor 1 │ window 0-1 │ dictionary 0-4 │ content size 0-8 │ block header 3, body ... │ checksum 0|4
//! ```
//!
//! One-call decoding says only that something is wrong; this walk over the block headers tells truncation from damage,
//! gives its position, and strips whatever follows the frame. Pure. Source: RFC 8878, section 3.1.

const MAGIC: usize = 4;
/// Bytes of a block's header.
pub const BLOCK_HEADER: usize = 3;
/// Most bytes of a frame's header: magic, descriptor, window, dictionary, content size.
pub const LONGEST_HEADER: usize = MAGIC + 1 + 1 + 4 + 8;
const CHECKSUM: usize = 4;

/// The extent of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the frame.
    pub length: usize,
    /// Unpacked size, where the frame says it.
    pub content_size: Option<u64>,
}

/// Why there is no whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The input ends inside of the frame.
    Truncated,
    /// A header contradicts the format.
    Damaged {
        /// Offset in the input.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// What stands in front of a frame's blocks, or behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes before the first block.
    pub length: usize,
    /// Bytes behind the last block.
    pub checksum: usize,
    /// Unpacked size, where the frame says it.
    pub content_size: Option<u64>,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Bytes behind its header.
    pub body: usize,
    /// None follows.
    pub is_last: bool,
}

/// Reads the header of the frame that `data` starts with.
///
/// # Errors
/// The header is incomplete or malformed.
pub fn header(data: &[u8]) -> Result<Header, Broken> {
    let descriptor = *data.get(MAGIC).ok_or(Broken::Truncated)?;
    if descriptor & 0x08 != 0 {
        return Err(Broken::Damaged {
            at: MAGIC,
            what: "a reserved bit of the frame header is set",
        });
    }
    let single_segment = descriptor & 0x20 != 0;
    let mut at = MAGIC + 1 + usize::from(!single_segment);
    at += [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let content_size = content_size(data.get(at..at + size_bytes).ok_or(Broken::Truncated)?);
    Ok(Header {
        length: at + size_bytes,
        checksum: if descriptor & 0x04 != 0 { CHECKSUM } else { 0 },
        content_size,
    })
}

/// Reads the header of the block that `data` starts with; a fault is at offset 0.
///
/// # Errors
/// The header is incomplete or malformed.
pub fn block(data: &[u8]) -> Result<Block, Broken> {
    let header = data.get(..BLOCK_HEADER).ok_or(Broken::Truncated)?;
    let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let size = (header >> 3) as usize;
    let body = match (header >> 1) & 3 {
        0 | 2 => size,
        1 => 1,
        _ => {
            return Err(Broken::Damaged {
                at: 0,
                what: "a block of the reserved type",
            });
        }
    };
    Ok(Block {
        body,
        is_last: header & 1 != 0,
    })
}

/// Walks the block headers of the frame that `data` starts with.
///
/// # Errors
/// The frame is incomplete or malformed.
pub fn walk(data: &[u8]) -> Result<Frame, Broken> {
    let header = header(data)?;
    let mut at = header.length;
    // Each pass moves on by at least a block header, so the input bounds the loop.
    loop {
        let rest = data.get(at..).ok_or(Broken::Truncated)?;
        let block = block(rest).map_err(|broken| match broken {
            Broken::Damaged { what, .. } => Broken::Damaged { at, what },
            Broken::Truncated => Broken::Truncated,
        })?;
        at += BLOCK_HEADER + block.body;
        if at > data.len() {
            return Err(Broken::Truncated);
        }
        if block.is_last {
            break;
        }
    }
    let length = at + header.checksum;
    if length > data.len() {
        return Err(Broken::Truncated);
    }
    Ok(Frame {
        length,
        content_size: header.content_size,
    })
}

fn content_size(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let value = u64::from_le_bytes(wide);
    match bytes.len() {
        0 => None,
        2 => Some(value + 256),
        _ => Some(value),
    }
}
