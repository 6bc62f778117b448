//! HVM containers: parameters, the hypercall page, and the save blob.
//!
//! As on Xen, a vcpu that was never started has no CPU record in the blob, and a load takes all vcpus down but those it brings.

use super::Outcome;
use super::domain::Domain;
use crate::limits::HVM_PARAMS;
use crate::machine::byte_of;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::hvm::save::{
    CPU, END, FILE_MAGIC, FILE_VERSION, HEADER, HwCpu, HwMtrr, LAPIC, LAPIC_REGS, MTRR, SaveHeader,
};
use xen_abi::ids::{DomId, PAGE_SIZE};

/// `struct hvm_hw_lapic`.
const LAPIC_BYTES: usize = 24;
/// `struct hvm_hw_lapic_regs`.
const LAPIC_REGS_BYTES: usize = 1024;

fn record(blob: &mut Vec<u8>, code: u16, instance: usize, body: &[u8]) {
    let instance = u16::try_from(instance).unwrap_or(u16::MAX);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    blob.extend_from_slice(&code.to_le_bytes());
    blob.extend_from_slice(&instance.to_le_bytes());
    blob.extend_from_slice(&len.to_le_bytes());
    blob.extend_from_slice(body);
}

fn save(domain: &Domain) -> Vec<u8> {
    let mut header = vec![0; size_of::<SaveHeader>()];
    header[..4].copy_from_slice(&FILE_MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&FILE_VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&0xFACE_u64.to_le_bytes());
    header[16..20].copy_from_slice(&0x0080_0F12_u32.to_le_bytes());
    let mut blob = Vec::new();
    record(&mut blob, HEADER, 0, &header);
    for (id, vcpu) in domain.vcpus.iter().enumerate() {
        if let Some(context) = vcpu.context.as_ref().filter(|_| vcpu.online) {
            record(&mut blob, CPU, id, context);
        }
    }
    for id in 0..domain.vcpus.len() {
        let mut lapic = [0; LAPIC_BYTES];
        lapic[..8].copy_from_slice(&0xFEE0_0800_u64.to_le_bytes());
        record(&mut blob, LAPIC, id, &lapic);
        record(&mut blob, LAPIC_REGS, id, &[0; LAPIC_REGS_BYTES]);
        record(&mut blob, MTRR, id, &[0; size_of::<HwMtrr>()]);
    }
    record(&mut blob, END, 0, &[]);
    blob
}

/// (code, instance, body) of each record up to and with END.
fn parse(blob: &[u8]) -> Outcome<Vec<(u16, usize, &[u8])>> {
    let (mut rest, mut records) = (blob, Vec::new());
    loop {
        let (head, tail) = rest.split_at_checked(8).ok_or(Errno::ENODATA)?;
        let code = u16::from_le_bytes([head[0], head[1]]);
        let instance = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (body, next) = tail.split_at_checked(len).ok_or(Errno::ENODATA)?;
        records.push((code, instance, body));
        if code == END {
            return Ok(records);
        }
        rest = next;
    }
}

impl State {
    fn container(&mut self, domid: DomId) -> Outcome<&mut Domain> {
        let domain = self.guest(domid)?;
        if domain.is_pv() {
            Err(Errno::EINVAL)
        } else {
            Ok(domain)
        }
    }

    pub(crate) fn hvm_context(&mut self, domid: DomId) -> Outcome<Vec<u8>> {
        Ok(save(self.container(domid)?))
    }

    pub(crate) fn set_hvm_context(&mut self, domid: DomId, blob: &[u8]) -> Outcome<()> {
        let domain = self.container(domid)?;
        let records = parse(blob)?;
        let Some((HEADER, _, header)) = records.first().copied() else {
            return Err(Errno::EINVAL);
        };
        if header.len() != size_of::<SaveHeader>() || header[..4] != FILE_MAGIC.to_le_bytes() {
            return Err(Errno::EINVAL);
        }
        let mut vcpus = domain.vcpus.clone();
        vcpus.iter_mut().for_each(|vcpu| vcpu.online = false);
        for (code, instance, body) in &records[1..] {
            let most = match *code {
                END => continue,
                CPU => size_of::<HwCpu>(),
                MTRR => size_of::<HwMtrr>(),
                LAPIC => LAPIC_BYTES,
                LAPIC_REGS => LAPIC_REGS_BYTES,
                _ => return Err(Errno::EINVAL),
            };
            let vcpu = vcpus.get_mut(*instance).ok_or(Errno::EINVAL)?;
            let fits = if *code == CPU {
                body.len() <= most
            } else {
                body.len() == most
            };
            if !fits {
                return Err(Errno::EINVAL);
            }
            if *code == CPU {
                let mut context = body.to_vec();
                context.resize(size_of::<HwCpu>(), 0);
                vcpu.context = Some(context);
                vcpu.online = true;
            }
        }
        self.container(domid)?.vcpus = vcpus;
        Ok(())
    }

    pub(crate) fn set_hvm_param(&mut self, domid: DomId, index: u32, value: u64) -> Outcome<()> {
        let domain = self.container(domid)?;
        if index >= HVM_PARAMS {
            return Err(Errno::EINVAL);
        }
        domain.hvm_params.insert(index, value);
        Ok(())
    }

    pub(crate) fn hvm_param(&mut self, domid: DomId, index: u32) -> Outcome<u64> {
        let domain = self.container(domid)?;
        if index >= HVM_PARAMS {
            return Err(Errno::EINVAL);
        }
        Ok(domain.hvm_params.get(&index).copied().unwrap_or(0))
    }

    /// Fills the page with one stub per hypercall.
    pub(crate) fn init_hypercall_page(&mut self, domid: DomId, frame: u64) -> Outcome<()> {
        let domain = self.guest(domid)?;
        let mfn = domain.frame(frame).ok_or(Errno::EACCES)?;
        if domain.tables.contains_key(&mfn) {
            return Err(Errno::EACCES);
        }
        let mut page = vec![0xCC; PAGE_SIZE];
        for (number, stub) in page.chunks_exact_mut(32).enumerate() {
            let number = u32::try_from(number).unwrap_or(0);
            stub[0] = 0xB8;
            stub[1..5].copy_from_slice(&number.to_le_bytes());
            stub[5..8].copy_from_slice(&[0x0F, 0x05, 0xC3]);
        }
        self.memory.whole().write(byte_of(mfn, 0), &page);
        Ok(())
    }
}
