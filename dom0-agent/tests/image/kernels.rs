//! Makes small kernels: an ELF file with the Xen notes of Debian's, packed any way the kernel build knows.

use dom0_agent::image::Format;
use std::io::Write;

/// Virtual address of physical address 0 in the kernels made here, as in Linux.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the first segment goes.
pub const LOAD: u64 = 0x100_0000;
/// `xz -6 --check=crc32 --x86 --lzma2` of `Elf::debian().build()`.
const TINY_XZ: &[u8] = include_bytes!("tiny.xz");

/// A segment: physical address, bytes, size in memory.
pub type Load = (u64, Vec<u8>, u64);

/// An ELF kernel to be.
#[derive(Debug, Clone)]
pub struct Elf {
    /// PT_LOAD segments, in file order.
    pub loads: Vec<Load>,
    /// Xen notes.
    pub notes: Vec<(u32, Vec<u8>)>,
}

impl Elf {
    /// As Debian's kernel, in small: text, data with a zero tail, a per-CPU segment out of order, bss.
    pub fn debian() -> Self {
        let text: Vec<u8> = (0..9000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut data = vec![0xd7; 5000];
        data.resize(5 * 4096, 0);
        Self {
            loads: vec![
                (LOAD, text, 9000),
                (LOAD + 0x20_0000, vec![0xcc; 300], 0x5000),
                (LOAD + 0x10_0000, data, 5 * 4096),
            ],
            notes: vec![
                (1, word(VIRT_BASE + LOAD + 0x40)),
                (3, word(VIRT_BASE)),
                (4, word(0)),
                (5, b"xen-3.0\0".to_vec()),
                (6, b"linux\0".to_vec()),
                (8, b"generic\0".to_vec()),
                (10, b"!writable_page_tables|pae_pgdir_above_4gb\0".to_vec()),
                (14, 1_u32.to_le_bytes().to_vec()),
                (15, word(0x80_0000_0000)),
                (16, 1_u32.to_le_bytes().to_vec()),
                (17, 0x8801_u32.to_le_bytes().to_vec()),
                (18, word(LOAD + 0x20)),
                (
                    19,
                    [0x20_0000_u32, 0x100_0000, 0x3fff_ffff]
                        .map(u32::to_le_bytes)
                        .concat(),
                ),
            ],
        }
    }

    /// Replaces or adds a note.
    pub fn note(mut self, kind: u32, desc: &[u8]) -> Self {
        self.notes.retain(|(other, _)| *other != kind);
        self.notes.push((kind, desc.to_vec()));
        self
    }

    /// Removes a note.
    pub fn without(mut self, kind: u32) -> Self {
        self.notes.retain(|(other, _)| *other != kind);
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let notes = self.note_bytes();
        let headers = 64 + 56 * (self.loads.len() + 1);
        let mut file = vec![0; headers];
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        put(&mut file, 16, &2_u16.to_le_bytes());
        put(&mut file, 18, &62_u16.to_le_bytes());
        put(&mut file, 20, &1_u32.to_le_bytes());
        put(&mut file, 24, &word(LOAD));
        put(&mut file, 32, &word(64));
        put(&mut file, 52, &64_u16.to_le_bytes());
        put(&mut file, 54, &56_u16.to_le_bytes());
        put(&mut file, 56, &(self.loads.len() as u16 + 1).to_le_bytes());
        for (index, (paddr, bytes, memory)) in self.loads.iter().enumerate() {
            let offset = file.len() as u64;
            let header = [
                (1 | 7 << 32),
                offset,
                0,
                *paddr,
                bytes.len() as u64,
                *memory,
                4096,
            ];
            put(
                &mut file,
                64 + 56 * index,
                &header.map(u64::to_le_bytes).concat(),
            );
            file.extend_from_slice(bytes);
        }
        let offset = file.len().next_multiple_of(4);
        file.resize(offset, 0);
        let length = notes.len() as u64;
        let header = [4, offset as u64, 0, 0, length, length, 4];
        put(
            &mut file,
            headers - 56,
            &header.map(u64::to_le_bytes).concat(),
        );
        file.extend_from_slice(&notes);
        file
    }

    fn note_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, desc) in &self.notes {
            bytes.extend([4, desc.len() as u32, *kind].map(u32::to_le_bytes).concat());
            bytes.extend_from_slice(b"Xen\0");
            bytes.extend_from_slice(desc);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn word(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Packs `elf`; xz only for the kernel of [`Elf::debian`].
pub fn pack(format: Format, elf: &[u8]) -> Vec<u8> {
    match format {
        Format::Elf => elf.to_vec(),
        Format::Gzip => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(elf).unwrap();
            packer.finish().unwrap()
        }
        Format::Bzip2 => {
            let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            packer.write_all(elf).unwrap();
            packer.finish().unwrap()
        }
        Format::Xz => {
            assert_eq!(
                elf,
                Elf::debian().build(),
                "the xz fixture is of another kernel"
            );
            TINY_XZ.to_vec()
        }
        Format::Zstd => {
            // Streamed, as the kernel build does: no content size in the header, a checksum at the end.
            let mut packer = zstd::stream::write::Encoder::new(Vec::new(), 19).unwrap();
            packer.include_checksum(true).unwrap();
            packer.write_all(elf).unwrap();
            packer.finish().unwrap()
        }
        Format::Lz4 => {
            let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
            // Two blocks, though one would do.
            for part in elf.chunks(elf.len() / 2 + 1) {
                let block = lz4_flex::block::compress(part);
                packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
                packed.extend_from_slice(&block);
            }
            packed
        }
        Format::Lzo => b"\x89LZO\0\r\n\x1a\n".to_vec(),
        Format::Lzma => b"\x5d\0\0\0\x04".to_vec(),
    }
}

/// What stands in front of the payload in the bzImages made here.
pub const PAYLOAD_START: usize = 3 * 512 + 0x40;

/// A bzImage around a payload.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; PAYLOAD_START];
    file[0x1f1] = 2;
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, &0x020f_u16.to_le_bytes());
    put(&mut file, 0x248, &0x40_u32.to_le_bytes());
    put(&mut file, 0x24c, &(payload.len() as u32).to_le_bytes());
    file.extend_from_slice(payload);
    file
}

/// The payload of a bzImage: packed, and the unpacked size behind it where the kernel build adds it.
pub fn payload(format: Format, elf: &[u8]) -> Vec<u8> {
    let mut payload = pack(format, elf);
    if !matches!(format, Format::Elf | Format::Gzip) {
        payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
    }
    payload
}

/// The formats that are unpacked.
pub const PACKED: [Format; 5] = [
    Format::Gzip,
    Format::Bzip2,
    Format::Xz,
    Format::Zstd,
    Format::Lz4,
];
