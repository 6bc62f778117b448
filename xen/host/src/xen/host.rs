//! The host: release, machine, pools, log (sysctl and `xen_version`).

use super::Xen;
use crate::error::Error;
use crate::seam::{CpuPolicy, HostControl, Result};
use nix::errno::Errno;
use xen_abi::domain::CpuMap;
use xen_abi::domctl::Bitmap;
use xen_abi::host::{CpuPool, CpuTopology, NumaNode, PhysInfo, XenStrings};
use xen_abi::ids::PAGE_SIZE;
use xen_abi::layout::{UserPtr, copy_out};
use xen_abi::sysctl::{self, Call, CpupoolOp};
use xen_abi::version::XenVersion;
use xen_abi::{hypercall, xen_version};

/// Cpupools looked at.
const MAX_CPUPOOLS: usize = 4096;
/// CPUs or nodes of a host.
const MAX_CPUS: u32 = 1 << 16;
/// Bytes of the hypervisor's log read at once.
const LOG_CHUNK_BYTES: u32 = 64 * 1024;
/// Chunks of the log read.
const MAX_LOG_CHUNKS: usize = 1024;

impl Xen {
    /// A sysctl without any address in it: every caller is in this file and uses a verb of `xen-abi` that takes none, or null.
    fn ask(&self, op: &'static str, call: Call) -> Result<Call> {
        // SAFETY: the call carries no address, see above.
        unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))
    }

    /// Entries the host has of something, as a call with null buffers answers.
    fn checked_count(op: &'static str, count: u32) -> Result<usize> {
        if count > MAX_CPUS {
            return Err(Error::Malformed {
                op,
                what: format!("{count} entries"),
            });
        }
        Ok(count as usize)
    }

    /// What `XENVER_*` number `command` leaves in a buffer of `len` bytes, and what it returns.
    fn fact(&self, command: u64, len: usize) -> Result<(Vec<u8>, u64)> {
        let buffer = self.buffer(len.max(PAGE_SIZE))?;
        if command == xen_version::BUILD_ID {
            let room = u32::try_from(len - size_of::<xen_version::VarBufHeader>()).unwrap_or(0);
            buffer.write(0, &room.to_le_bytes());
        }
        let arguments = [command, buffer.address().0, 0, 0, 0];
        // SAFETY: the buffer is at least a page, larger than anything these calls write, and lives through the call.
        let value = unsafe { self.privcmd.hypercall(hypercall::XEN_VERSION, arguments) }
            .map_err(|errno| Error::refused("xen_version", errno))?;
        Ok((buffer.to_vec(len), value))
    }

    fn fact_text(&self, command: u64, len: usize) -> Result<String> {
        self.fact(command, len)
            .map(|(bytes, _)| xen_version::text(&bytes))
    }

    /// The one fact that comes without a buffer; Xen refuses an address here.
    fn page_size(&self) -> Result<u32> {
        let arguments = [xen_version::PAGESIZE, 0, 0, 0, 0];
        // SAFETY: the call carries no address.
        let value = unsafe { self.privcmd.hypercall(hypercall::XEN_VERSION, arguments) }
            .map_err(|errno| Error::refused("xen_version", errno))?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// A hypervisor built without one has no build id.
    fn build_id(&self) -> Result<String> {
        let len = xen_version::BUILD_ID_MAX_BYTES + size_of::<xen_version::VarBufHeader>();
        match self.fact(xen_version::BUILD_ID, len) {
            Ok((bytes, length)) => Ok(xen_version::build_id(
                &bytes,
                usize::try_from(length).unwrap_or(0),
            )),
            Err(error) if matches!(error.errno(), Some(Errno::ENODATA | Errno::ENOSYS)) => {
                Ok(String::new())
            }
            Err(error) => Err(error),
        }
    }
}

impl HostControl for Xen {
    fn version(&self) -> XenVersion {
        self.version
    }

    fn strings(&self) -> Result<XenStrings> {
        let (compile, _) = self.fact(
            xen_version::COMPILE_INFO,
            size_of::<xen_version::CompileInfo>(),
        )?;
        let [compiler, compile_by, compile_domain, compile_date] =
            xen_version::compile_info(&compile).unwrap_or_default();
        let (platform, _) = self.fact(xen_version::PLATFORM_PARAMETERS, 8)?;
        let page_size = self.page_size()?;
        Ok(XenStrings {
            major: self.version.major.into(),
            minor: self.version.minor.into(),
            extra_version: self
                .fact_text(xen_version::EXTRAVERSION, xen_version::EXTRAVERSION_BYTES)?,
            capabilities: self
                .fact_text(xen_version::CAPABILITIES, xen_version::CAPABILITIES_BYTES)?,
            changeset: self.fact_text(xen_version::CHANGESET, xen_version::CHANGESET_BYTES)?,
            command_line: self
                .fact_text(xen_version::COMMANDLINE, xen_version::COMMANDLINE_BYTES)?,
            virt_start: copy_out(&platform).unwrap_or(0),
            page_size,
            compiler,
            compile_by,
            compile_domain,
            compile_date,
            build_id: self.build_id()?,
        })
    }

    fn physinfo(&self) -> Result<PhysInfo> {
        self.ask("physinfo", sysctl::physinfo(self.abi))
            .map(|answer| sysctl::physinfo_answer(&answer))
    }

    fn scheduler_id(&self) -> Result<u32> {
        self.ask("sched_id", sysctl::sched_id(self.abi))
            .map(|answer| sysctl::sched_id_answer(&answer))
    }

    fn cpu_topology(&self) -> Result<Vec<Option<CpuTopology>>> {
        let op = "cputopoinfo";
        let asked = self.ask(op, sysctl::cpu_topology(self.abi, UserPtr::NULL, 0))?;
        let room = Self::checked_count(op, sysctl::cpu_topology_count(&asked))?;
        let entry = size_of::<sysctl::CpuTopo>();
        let buffer = self.buffer(room * entry)?;
        let entries = u32::try_from(room).unwrap_or(0);
        let call = sysctl::cpu_topology(self.abi, buffer.address(), entries);
        // SAFETY: the buffer has room for as many entries as the call says and lives through it.
        let answer = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
        let count = (sysctl::cpu_topology_count(&answer) as usize).min(room);
        Ok(sysctl::decode_cpu_topology(&buffer.to_vec(count * entry)))
    }

    fn numa(&self) -> Result<Vec<NumaNode>> {
        let op = "numainfo";
        let asked = self.ask(
            op,
            sysctl::numa_info(self.abi, UserPtr::NULL, UserPtr::NULL, 0),
        )?;
        let room = Self::checked_count(op, sysctl::numa_info_count(&asked))?;
        let entry = size_of::<sysctl::MemInfo>();
        let memory = self.buffer(room * entry)?;
        let distances = self.buffer(room * room * size_of::<u32>())?;
        let nodes = u32::try_from(room).unwrap_or(0);
        let call = sysctl::numa_info(self.abi, memory.address(), distances.address(), nodes);
        // SAFETY: the buffers have room for as many nodes, and that squared distances, as the call says, and live through it.
        let answer = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
        let count = (sysctl::numa_info_count(&answer) as usize).min(room);
        let memory = memory.to_vec(count * entry);
        Ok(sysctl::decode_numa_info(
            &memory,
            &distances.to_vec(count * count * size_of::<u32>()),
        ))
    }

    fn cpupools(&self) -> Result<Vec<CpuPool>> {
        let op = "cpupool_op";
        let bits = self.physinfo()?.max_cpu_id.saturating_add(1);
        let bytes = Self::checked_count(op, bits)?.div_ceil(8);
        let buffer = self.buffer(bytes)?;
        let mut pools: Vec<CpuPool> = Vec::new();
        let mut next = 0;
        while pools.len() < MAX_CPUPOOLS {
            let map = Bitmap {
                address: buffer.address(),
                bits,
            };
            let call = sysctl::cpupool_op(self.abi, CpupoolOp::Info(next, map));
            // SAFETY: the buffer holds as many bits as the call says and lives through it.
            let answer = match unsafe { self.sysctl(call) } {
                Ok(answer) => sysctl::cpupool_answer(&answer),
                Err(refusal) if refusal.errno() == Some(Errno::ENOENT) => break,
                Err(refusal) => return Err(refusal.about(op, None)),
            };
            // Xen answers with the next pool there is.
            if answer.id < next {
                break;
            }
            pools.push(CpuPool {
                id: answer.id,
                scheduler: answer.scheduler,
                domains: answer.domains,
                cpus: CpuMap(buffer.to_vec(bytes)),
            });
            next = answer.id.saturating_add(1);
        }
        Ok(pools)
    }

    fn console_log(&self, clear: bool) -> Result<Vec<u8>> {
        let op = "readconsole";
        let buffer = self.buffer(LOG_CHUNK_BYTES as usize)?;
        let (mut log, mut index) = (Vec::new(), 0);
        let mut read = |clear: bool| -> Result<u32> {
            let (address, after) = (buffer.address(), Some(index));
            let call = sysctl::read_console(self.abi, address, LOG_CHUNK_BYTES, after, clear);
            // SAFETY: the buffer has the room the call says and lives through it.
            let answer = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
            let answer = sysctl::read_console_answer(&answer);
            log.extend(buffer.to_vec(answer.count.min(LOG_CHUNK_BYTES) as usize));
            index = answer.index;
            Ok(answer.count)
        };
        for _ in 0..MAX_LOG_CHUNKS {
            if read(false)? == 0 {
                break;
            }
        }
        if clear {
            read(true)?;
        }
        Ok(log)
    }

    fn debug_keys(&self, keys: &str) -> Result<()> {
        let buffer = self.buffer_of(keys.as_bytes())?;
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let call = sysctl::debug_keys(self.abi, buffer.address(), count);
        // SAFETY: the buffer holds all keys and lives through the call.
        let answer = unsafe { self.sysctl(call) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("debug_keys", None))
    }

    fn cpu_policy(&self, index: u32) -> Result<CpuPolicy> {
        self.host_policy(index)
    }
}
