//! Domains: life cycle, vcpus, limits (domctl, and the few calls that are not).

use super::{Refusal, Xen};
use crate::error::Error;
use crate::seam::{CpuPolicy, Dirty, DomainControl, HostControl, Result, VcpuPart};
use nix::errno::Errno;
use xen_abi::domain::{
    CpuMap, CreateDomain, DomainInfo, ShutdownReason, Trigger, TscMode, VcpuInfo,
};
use xen_abi::domctl::{
    self, Bitmap, Call, CreditParameters, DOMAIN_INFO_STRIDE, Scheduling, TscInfo,
};
use xen_abi::hvm::params;
use xen_abi::ids::{DomId, Gfn, Handle, PAGE_SIZE, Port, VcpuId};
use xen_abi::pv::vcpu_context::VcpuGuestContext;
use xen_abi::{event, hypercall, sched, sysctl};

/// Entries asked for first when listing domains: one page.
const LIST_FIRST: usize = PAGE_SIZE / DOMAIN_INFO_STRIDE;
/// Entries asked for after that. Every page of a buffer costs a PV dom0 more than a call does.
const LIST_MORE: usize = 4 * PAGE_SIZE / DOMAIN_INFO_STRIDE;
/// Largest save blob of a domain, in bytes.
const MAX_CONTEXT_BYTES: u32 = 16 << 20;
/// Times a call is repeated that Xen could not finish for lack of a moment's peace.
const MAX_AGAIN: u32 = 10_000;

impl Xen {
    /// A domctl without any address in it: every caller uses a verb of `xen-abi` that takes none, or gives it a null one.
    pub(super) fn act(&self, op: &'static str, domid: DomId, call: Call) -> Result<Call> {
        // SAFETY: the call carries no address, see above.
        unsafe { self.domctl(call) }.map_err(|refusal| refusal.about(op, Some(domid)))
    }

    /// As [`Xen::act`], repeated while Xen asks for it.
    fn act_until_done(&self, op: &'static str, domid: DomId, call: Call) -> Result<Call> {
        for _ in 0..MAX_AGAIN {
            match self.act(op, domid, call) {
                Err(error) if error.errno() == Some(Errno::EAGAIN) => std::thread::yield_now(),
                result => return result,
            }
        }
        Err(Error::refused_for(op, domid, Errno::EAGAIN))
    }

    /// Bits of a CPU map.
    fn cpu_bits(&self) -> Result<u32> {
        Ok(self.physinfo()?.max_cpu_id.saturating_add(1))
    }

    /// The scheduler a domain runs under.
    fn scheduler_of(&self, domid: DomId) -> Result<u32> {
        let missing = || Error::refused_for("scheduler", domid, Errno::ESRCH);
        let pool = self.domain_info(domid)?.ok_or_else(missing)?.cpupool;
        let pool = self.cpupools()?.into_iter().find(|each| each.id == pool);
        pool.map_or_else(|| self.scheduler_id(), |pool| Ok(pool.scheduler))
    }

    /// A domain's share under credit or credit2.
    fn share(&self, domid: DomId, scheduler: u32) -> Result<CreditParameters> {
        let call = domctl::get_scheduling(self.abi, domid, scheduler);
        let answer = self.act("scheduler_op", domid, call)?;
        Ok(domctl::scheduling_answer(&answer))
    }

    /// Part of the list of domains, at most `room` entries from `first` on.
    fn list_part(&self, first: DomId, room: usize) -> Result<Vec<DomainInfo>> {
        let op = "getdomaininfolist";
        let buffer = self.buffer(room * DOMAIN_INFO_STRIDE)?;
        let entries = u32::try_from(room).unwrap_or(u32::MAX);
        let call = sysctl::domain_list(self.abi, first, entries, buffer.address());
        // SAFETY: the buffer has room for as many entries as the call says and lives through it.
        let answer = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
        let count = usize::try_from(sysctl::domain_list_count(&answer))
            .unwrap_or(0)
            .min(room);
        let bytes = buffer.to_vec(count * DOMAIN_INFO_STRIDE);
        Ok(domctl::decode_domain_list(self.abi, &bytes, count))
    }

    fn hvm_op(&self, op: &'static str, command: u64, param: params::Param) -> Result<u64> {
        // SAFETY: the structure carries no address.
        let answer = unsafe { self.command(hypercall::HVM_OP, command, param) };
        let (param, _) = answer.map_err(|refusal| refusal.about(op, Some(DomId(param.domid))))?;
        Ok(param.value)
    }

    /// Size of a domain's save blob.
    fn context_size(&self, domid: DomId) -> Result<u32> {
        let call = domctl::get_hvm_context(self.abi, domid, xen_abi::layout::UserPtr::NULL, 0);
        let size = domctl::hvm_context_size(&self.act("gethvmcontext", domid, call)?);
        if size == 0 || size > MAX_CONTEXT_BYTES {
            let what = format!("a state of {size} bytes, at most {MAX_CONTEXT_BYTES} are read");
            return Err(Error::Malformed {
                op: "gethvmcontext",
                what,
            });
        }
        Ok(size)
    }
}

impl DomainControl for Xen {
    fn domain_info(&self, domid: DomId) -> Result<Option<DomainInfo>> {
        let call = domctl::domain_info(self.abi, domid);
        match self.act("getdomaininfo", domid, call) {
            Ok(answer) => Ok(domctl::domain_info_answer(&answer, domid)),
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn domain_list(&self, first: DomId) -> Result<Vec<DomainInfo>> {
        let mut domains = self.list_part(first, LIST_FIRST)?;
        let mut full = domains.len() == LIST_FIRST;
        // Ids ascend, so this ends at the last possible one.
        while let (true, Some(last)) = (full, domains.last().map(|info| info.domid)) {
            if last >= DomId::FIRST_RESERVED {
                break;
            }
            let part = self.list_part(DomId(last.0 + 1), LIST_MORE)?;
            full = part.len() == LIST_MORE;
            if part.first().is_some_and(|next| next.domid <= last) {
                let what = format!("domain {last} was followed by an earlier one");
                return Err(Error::Malformed {
                    op: "getdomaininfolist",
                    what,
                });
            }
            domains.extend(part);
        }
        Ok(domains)
    }

    fn create_domain(&self, create: &CreateDomain) -> Result<DomId> {
        let call = domctl::create(self.abi, create);
        // SAFETY: the call carries no address.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(|answer| DomId(answer.domain))
            .map_err(|refusal| refusal.about("createdomain", None))
    }

    fn destroy_domain(&self, domid: DomId) -> Result<()> {
        self.act_until_done("destroydomain", domid, domctl::destroy(self.abi, domid))
            .map(drop)
    }

    fn pause(&self, domid: DomId) -> Result<()> {
        self.act("pausedomain", domid, domctl::pause(self.abi, domid))
            .map(drop)
    }

    fn unpause(&self, domid: DomId) -> Result<()> {
        self.act("unpausedomain", domid, domctl::unpause(self.abi, domid))
            .map(drop)
    }

    fn set_handle(&self, domid: DomId, handle: Handle) -> Result<()> {
        let call = domctl::set_handle(self.abi, domid, handle);
        self.act("setdomainhandle", domid, call).map(drop)
    }

    fn remote_shutdown(&self, domid: DomId, reason: ShutdownReason) -> Result<()> {
        let argument = sched::RemoteShutdown::new(domid, reason);
        // SAFETY: the structure carries no address.
        let answer =
            unsafe { self.command(hypercall::SCHED_OP, sched::OP_REMOTE_SHUTDOWN, argument) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("remote_shutdown", Some(domid)))
    }

    fn send_trigger(&self, domid: DomId, trigger: Trigger, vcpu: VcpuId) -> Result<()> {
        let call = domctl::send_trigger(self.abi, domid, trigger, vcpu);
        self.act("sendtrigger", domid, call).map(drop)
    }

    fn max_vcpus(&self, domid: DomId, count: u32) -> Result<()> {
        self.act(
            "max_vcpus",
            domid,
            domctl::set_max_vcpus(self.abi, domid, count),
        )
        .map(drop)
    }

    fn vcpu_info(&self, domid: DomId, vcpu: VcpuId) -> Result<VcpuInfo> {
        let call = domctl::vcpu_info(self.abi, domid, vcpu);
        self.act("getvcpuinfo", domid, call)
            .map(|answer| domctl::vcpu_info_answer(&answer))
    }

    fn vcpu_affinity(&self, domid: DomId, vcpu: VcpuId) -> Result<(CpuMap, CpuMap)> {
        let bits = self.cpu_bits()?;
        let bytes = bits.div_ceil(8) as usize;
        let (hard, soft) = (self.buffer(bytes)?, self.buffer(bytes)?);
        let [hard_map, soft_map] = [&hard, &soft].map(|map| Bitmap {
            address: map.address(),
            bits,
        });
        let call = domctl::get_vcpu_affinity(self.abi, domid, vcpu, Some(hard_map), Some(soft_map));
        // SAFETY: both buffers hold as many bits as the call says and live through it.
        unsafe { self.domctl(call) }
            .map_err(|refusal| refusal.about("getvcpuaffinity", Some(domid)))?;
        Ok((CpuMap(hard.to_vec(bytes)), CpuMap(soft.to_vec(bytes))))
    }

    fn set_vcpu_affinity(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Result<()> {
        // One buffer of its own for each map; Xen writes the effective map back, so both are as long as the map says.
        let hard = hard.map(|map| self.buffer_of(&map.0).map(|buffer| (buffer, map.0.len())));
        let soft = soft.map(|map| self.buffer_of(&map.0).map(|buffer| (buffer, map.0.len())));
        let (hard, soft) = (hard.transpose()?, soft.transpose()?);
        let [hard_map, soft_map] = [&hard, &soft].map(|map| {
            map.as_ref().map(|(buffer, bytes)| Bitmap {
                address: buffer.address(),
                bits: u32::try_from(bytes * 8).unwrap_or(0),
            })
        });
        let call = domctl::set_vcpu_affinity(self.abi, domid, vcpu, hard_map, soft_map);
        // SAFETY: each buffer holds the bits the call says and lives through it.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("setvcpuaffinity", Some(domid)))
    }

    fn scheduling(&self, domid: DomId) -> Result<Scheduling> {
        let scheduler = self.scheduler_of(domid)?;
        let share = domctl::shares_by_weight(scheduler).then(|| self.share(domid, scheduler));
        Ok(Scheduling {
            scheduler,
            share: share.transpose()?,
        })
    }

    fn set_sched_credit(&self, domid: DomId, weight: Option<u16>, cap: Option<u16>) -> Result<()> {
        let Scheduling { scheduler, share } = self.scheduling(domid)?;
        let missing = || Error::refused_for("scheduler_op", domid, Errno::EOPNOTSUPP);
        let now = share.ok_or_else(missing)?;
        let share = CreditParameters {
            weight: weight.unwrap_or(now.weight),
            cap: cap.unwrap_or(now.cap),
        };
        let call = domctl::set_scheduling(self.abi, domid, scheduler, share);
        self.act("scheduler_op", domid, call).map(drop)
    }

    fn set_max_mem(&self, domid: DomId, kib: u64) -> Result<()> {
        self.act("max_mem", domid, domctl::set_max_mem(self.abi, domid, kib))
            .map(drop)
    }

    fn set_tsc_mode(&self, domid: DomId, mode: TscMode) -> Result<()> {
        self.act(
            "settscinfo",
            domid,
            domctl::set_tsc_mode(self.abi, domid, mode),
        )
        .map(drop)
    }

    fn set_address_size(&self, domid: DomId, bits: u32) -> Result<()> {
        let call = domctl::set_address_size(self.abi, domid, bits);
        self.act("set_address_size", domid, call).map(drop)
    }

    fn set_paging_pool(&self, domid: DomId, bytes: u64) -> Result<()> {
        let call = domctl::set_paging_pool(self.abi, domid, bytes);
        self.act_until_done("set_paging_mempool_size", domid, call)
            .map(drop)
    }

    fn set_vcpu_context(&self, domid: DomId, vcpu: VcpuId, context: &[u8]) -> Result<()> {
        let op = "setvcpucontext";
        if context.len() != size_of::<VcpuGuestContext>() {
            return Err(Error::refused_for(op, domid, Errno::EINVAL));
        }
        let buffer = self.buffer_of(context)?;
        let call = domctl::set_vcpu_context(self.abi, domid, vcpu, buffer.address());
        // SAFETY: the buffer holds a whole register state and lives through the call.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about(op, Some(domid)))
    }

    fn init_hypercall_page(&self, domid: DomId, gmfn: u64) -> Result<()> {
        let call = domctl::hypercall_init(self.abi, domid, Gfn(gmfn));
        self.act("hypercall_init", domid, call).map(drop)
    }

    fn resume(&self, domid: DomId) -> Result<()> {
        self.act("resumedomain", domid, domctl::resume(self.abi, domid))
            .map(drop)
    }

    fn tsc_info(&self, domid: DomId) -> Result<TscInfo> {
        self.act("gettscinfo", domid, domctl::get_tsc_info(self.abi, domid))
            .map(|answer| answer.payload())
    }

    fn set_tsc_info(&self, domid: DomId, info: &TscInfo) -> Result<()> {
        let call = domctl::set_tsc_info(self.abi, domid, info);
        self.act("settscinfo", domid, call).map(drop)
    }

    fn vcpu_context(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>> {
        let bytes = size_of::<VcpuGuestContext>();
        let buffer = self.buffer(bytes)?;
        let call = domctl::get_vcpu_context(self.abi, domid, vcpu, buffer.address());
        // SAFETY: the buffer has room for a whole register state and lives through the call.
        let answer = unsafe { self.domctl(call) };
        answer.map_err(|refusal| refusal.about("getvcpucontext", Some(domid)))?;
        Ok(buffer.to_vec(bytes))
    }

    fn vcpu_part(&self, domid: DomId, vcpu: VcpuId, part: VcpuPart) -> Result<Vec<u8>> {
        self.get_part(domid, vcpu, part)
    }

    fn set_vcpu_part(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        part: VcpuPart,
        state: &[u8],
    ) -> Result<()> {
        self.set_part(domid, vcpu, part, state)
    }

    fn hvm_context(&self, domid: DomId) -> Result<Vec<u8>> {
        let size = self.context_size(domid)?;
        let buffer = self.buffer(size as usize)?;
        let call = domctl::get_hvm_context(self.abi, domid, buffer.address(), size);
        // SAFETY: the buffer holds `size` bytes and lives through the call.
        let answer = unsafe { self.domctl(call) };
        let answer = answer.map_err(|refusal| refusal.about("gethvmcontext", Some(domid)))?;
        Ok(buffer.to_vec(domctl::hvm_context_size(&answer).min(size) as usize))
    }

    fn set_hvm_context(&self, domid: DomId, blob: &[u8]) -> Result<()> {
        let op = "sethvmcontext";
        let size = u32::try_from(blob.len())
            .ok()
            .filter(|size| *size <= MAX_CONTEXT_BYTES);
        let size = size.ok_or_else(|| Error::refused_for(op, domid, Errno::E2BIG))?;
        let buffer = self.buffer_of(blob)?;
        let call = domctl::set_hvm_context(self.abi, domid, buffer.address(), size);
        // SAFETY: the buffer holds the whole blob and lives through the call.
        let answer = unsafe { self.domctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about(op, Some(domid)))
    }

    fn set_hvm_param(&self, domid: DomId, index: u32, value: u64) -> Result<()> {
        let param = params::Param::new(domid, index, value);
        self.hvm_op("set_hvm_param", params::OP_SET_PARAM, param)
            .map(drop)
    }

    fn hvm_param(&self, domid: DomId, index: u32) -> Result<u64> {
        let param = params::Param::new(domid, index, 0);
        self.hvm_op("get_hvm_param", params::OP_GET_PARAM, param)
    }

    fn domain_cpu_policy(&self, domid: DomId) -> Result<CpuPolicy> {
        self.policy_of(domid)
    }

    fn set_cpu_policy(&self, domid: DomId, policy: &CpuPolicy) -> Result<()> {
        self.replace_policy(domid, policy)
    }

    fn log_dirty_on(&self, domid: DomId) -> Result<()> {
        self.start_log(domid)
    }

    fn log_dirty_off(&self, domid: DomId) -> Result<()> {
        self.end_log(domid)
    }

    fn dirty_pages(&self, domid: DomId, end: u64, how: Dirty) -> Result<Vec<u64>> {
        self.read_log(domid, end, how)
    }

    fn alloc_unbound(&self, domid: DomId, remote: DomId) -> Result<Port> {
        let argument = event::AllocUnbound {
            dom: domid.0,
            remote_dom: remote.0,
            port: 0,
        };
        // SAFETY: the structure carries no address.
        let answer = unsafe {
            self.command(
                hypercall::EVENT_CHANNEL_OP,
                event::OP_ALLOC_UNBOUND,
                argument,
            )
        };
        answer
            .map(|(argument, _)| Port(argument.port))
            .map_err(|refusal: Refusal<_>| refusal.about("alloc_unbound", Some(domid)))
    }
}
