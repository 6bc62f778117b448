//! What a PV vcpu has besides its registers: read to save it, set to restore it.
//!
//! Sizes are Xen's to say: asked with a null buffer, bounded, and asked again if the state grew meanwhile, which it cannot
//! while the domain is shut down.

use super::Xen;
use crate::error::Error;
use crate::seam::{Result, VcpuPart};
use nix::errno::Errno;
use xen_abi::domctl::{self, ExtVcpuContext, VcpuExtState, VcpuMsrs};
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::layout::UserPtr;

/// Bytes of one model specific register in a list.
const MSR_BYTES: usize = size_of::<domctl::VcpuMsr>();
/// Longest list of model specific registers, in entries.
const MAX_MSRS: u32 = 4096;
/// Largest XSAVE area, in bytes.
const MAX_XSAVE_BYTES: u64 = 1 << 20;

fn too_large(op: &'static str, found: u64, most: u64) -> Error {
    let what = format!("{found}, at most {most} are read");
    Error::Malformed { op, what }
}

impl Xen {
    pub(super) fn get_part(&self, domid: DomId, vcpu: VcpuId, part: VcpuPart) -> Result<Vec<u8>> {
        match part {
            VcpuPart::Extended => self.get_extended(domid, vcpu),
            VcpuPart::Xsave => self.get_xsave(domid, vcpu),
            VcpuPart::Msrs => self.get_msrs(domid, vcpu),
        }
    }

    pub(super) fn set_part(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        part: VcpuPart,
        state: &[u8],
    ) -> Result<()> {
        match part {
            VcpuPart::Extended => self.set_extended(domid, vcpu, state),
            VcpuPart::Xsave => self.set_xsave(domid, vcpu, state),
            VcpuPart::Msrs => self.set_msrs(domid, vcpu, state),
        }
    }

    fn get_extended(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>> {
        let call = domctl::get_ext_vcpu_context(self.abi, domid, vcpu);
        let answer = self.act("get_ext_vcpucontext", domid, call)?;
        let size = usize::try_from(answer.payload::<ExtVcpuContext>().size).unwrap_or(usize::MAX);
        // What is saved is what Xen filled in; a size of its own is the first thing a newer Xen would change.
        let size = size.clamp(size_of::<ExtVcpuContext>(), answer.payload.len());
        Ok(answer.payload[..size].to_vec())
    }

    fn set_extended(&self, domid: DomId, vcpu: VcpuId, state: &[u8]) -> Result<()> {
        let op = "set_ext_vcpucontext";
        // The state begins with the number of its vcpu, and that is the one Xen obeys.
        let mut state = state.to_vec();
        if let Some(number) = state.first_chunk_mut() {
            *number = vcpu.0.to_le_bytes();
        }
        let call = domctl::set_ext_vcpu_context(self.abi, domid, &state)
            .ok_or_else(|| Error::refused_for(op, domid, Errno::E2BIG))?;
        self.act(op, domid, call).map(drop)
    }

    fn get_xsave(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>> {
        let op = "getvcpuextstate";
        let call = domctl::get_vcpu_ext_state(self.abi, domid, vcpu, 0, UserPtr::NULL, 0);
        let asked = self.act(op, domid, call)?.payload::<VcpuExtState>();
        let (features, size) = (asked.xfeature_mask, asked.size);
        if features == 0 || size == 0 {
            return Ok(Vec::new());
        }
        if size > MAX_XSAVE_BYTES {
            return Err(too_large(op, size, MAX_XSAVE_BYTES));
        }
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let buffer = self.buffer(bytes)?;
        let call =
            domctl::get_vcpu_ext_state(self.abi, domid, vcpu, features, buffer.address(), size);
        // SAFETY: the buffer has as many bytes as the call says and lives through it.
        let answer = unsafe { self.domctl(call) };
        let answer = answer.map_err(|refusal| refusal.about(op, Some(domid)))?;
        let written = answer.payload::<VcpuExtState>().size;
        Ok(buffer.to_vec(usize::try_from(written).unwrap_or(bytes).min(bytes)))
    }

    fn set_xsave(&self, domid: DomId, vcpu: VcpuId, state: &[u8]) -> Result<()> {
        let buffer = self.buffer_of(state)?;
        let size = state.len() as u64;
        let call = domctl::set_vcpu_ext_state(self.abi, domid, vcpu, buffer.address(), size);
        // SAFETY: the buffer holds the whole area and lives through the call.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("setvcpuextstate", Some(domid)))
    }

    fn get_msrs(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>> {
        let op = "get_vcpu_msrs";
        let call = domctl::get_vcpu_msrs(self.abi, domid, vcpu, UserPtr::NULL, 0);
        let count = self.act(op, domid, call)?.payload::<VcpuMsrs>().msr_count;
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > MAX_MSRS {
            return Err(too_large(op, count.into(), MAX_MSRS.into()));
        }
        let buffer = self.buffer(count as usize * MSR_BYTES)?;
        let call = domctl::get_vcpu_msrs(self.abi, domid, vcpu, buffer.address(), count);
        // SAFETY: the buffer has room for as many entries as the call says and lives through it.
        let answer = unsafe { self.domctl(call) };
        let answer = answer.map_err(|refusal| refusal.about(op, Some(domid)))?;
        let written = answer.payload::<VcpuMsrs>().msr_count.min(count);
        Ok(buffer.to_vec(written as usize * MSR_BYTES))
    }

    fn set_msrs(&self, domid: DomId, vcpu: VcpuId, state: &[u8]) -> Result<()> {
        let buffer = self.buffer_of(state)?;
        let count = u32::try_from(state.len() / MSR_BYTES).unwrap_or(0);
        let call = domctl::set_vcpu_msrs(self.abi, domid, vcpu, buffer.address(), count);
        // SAFETY: the buffer holds as many entries as the call says and lives through it.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("set_vcpu_msrs", Some(domid)))
    }
}
