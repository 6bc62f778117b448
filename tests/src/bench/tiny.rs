//! A PVH kernel that enables interrupts and waits for one: a guest of a few MiB that is there and does nothing.
//!
//! ```text
//!   0x100000   sti; hlt; jmp hlt        entered in 32-bit mode, without paging; nothing ever interrupts it
//! ```
//!
//! `hlt` with interrupts off would be taken for a wish to shut down. Source: `elf(5)`; `XEN_ELFNOTE_PHYS32_ENTRY` in `xen/elfnote.h`.

/// Where it is loaded and entered.
const ENTRY: u32 = 0x10_0000;
/// `sti; hlt; jmp -1`: back to the `hlt`.
const CODE: [u8; 4] = [0xfb, 0xf4, 0xeb, 0xfd];
/// Number of the note that names the entry.
const PHYS32_ENTRY: u32 = 18;
/// File header, then two program headers.
const HEADERS: usize = 64 + 2 * 56;
/// The note: three words, "Xen" with its end mark, the address.
const NOTE_BYTES: usize = 12 + 4 + 4;

/// The kernel file.
#[must_use]
pub fn kernel() -> Vec<u8> {
    let note_at = HEADERS;
    let code_at = note_at + NOTE_BYTES;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    half(&mut file, 2); // ET_EXEC
    half(&mut file, 62); // EM_X86_64
    word(&mut file, 1);
    long(&mut file, u64::from(ENTRY));
    long(&mut file, 64); // program headers
    long(&mut file, 0); // no sections
    word(&mut file, 0);
    for size in [64, 56, 2, 64, 0, 0] {
        half(&mut file, size);
    }
    segment(&mut file, 1, code_at, CODE.len());
    segment(&mut file, 4, note_at, NOTE_BYTES);
    for value in [4, 4, PHYS32_ENTRY] {
        word(&mut file, value);
    }
    file.extend_from_slice(b"Xen\0");
    word(&mut file, ENTRY);
    file.extend_from_slice(&CODE);
    file
}

/// A program header: 1 is `PT_LOAD`, 4 is `PT_NOTE`.
fn segment(file: &mut Vec<u8>, kind: u32, offset: usize, size: usize) {
    let (offset, size) = (offset as u64, size as u64);
    word(file, kind);
    word(file, 5); // read and execute
    long(file, offset);
    long(file, u64::from(ENTRY));
    long(file, u64::from(ENTRY));
    long(file, size);
    long(file, size);
    long(file, 1);
}

fn half(file: &mut Vec<u8>, value: u16) {
    file.extend_from_slice(&value.to_le_bytes());
}

fn word(file: &mut Vec<u8>, value: u32) {
    file.extend_from_slice(&value.to_le_bytes());
}

fn long(file: &mut Vec<u8>, value: u64) {
    file.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::ElfFile64;
    use object::{LittleEndian, Object as _, ObjectSegment as _};

    #[test]
    fn it_is_an_elf_file_with_its_code_where_it_is_entered() {
        let file = kernel();
        let elf = ElfFile64::<LittleEndian>::parse(file.as_slice()).expect("an ELF file");
        assert_eq!(elf.entry(), u64::from(ENTRY));
        let segment = elf.segments().next().expect("a segment");
        assert_eq!(segment.address(), u64::from(ENTRY));
        assert_eq!(segment.data().ok(), Some(CODE.as_slice()));
    }
}
