//! `xl info`: what the host is. Each line is a key in 23 columns, a colon, a blank and a value.

use std::fmt::Arguments;

use super::list::put;

/// What `uname` says of dom0's kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Host name.
    pub host: String,
    /// Release.
    pub release: String,
    /// Version.
    pub version: String,
    /// Machine.
    pub machine: String,
}

/// What the hypervisor can virtualise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// PV guests.
    pub pv: bool,
    /// PVH and HVM guests.
    pub hvm: bool,
    /// An IOMMU is there.
    pub directio: bool,
    /// Hardware-assisted paging.
    pub hap: bool,
    /// Shadow paging.
    pub shadow: bool,
    /// IOMMU and HAP share page tables.
    pub iommu_hap_pt_share: bool,
    /// Processor tracing.
    pub vmtrace: bool,
    /// Virtual performance counters.
    pub vpmu: bool,
    /// Grant table version 1.
    pub gnttab_v1: bool,
    /// Grant table version 2.
    pub gnttab_v2: bool,
}

impl Capabilities {
    /// The words, in stock's order.
    fn words(self) -> impl Iterator<Item = &'static str> {
        let words = [
            (self.pv, "pv"),
            (self.hvm, "hvm"),
            (self.hvm && self.directio, "hvm_directio"),
            (self.pv && self.directio, "pv_directio"),
            (self.hap, "hap"),
            (self.shadow, "shadow"),
            (self.iommu_hap_pt_share, "iommu_hap_pt_share"),
            (self.vmtrace, "vmtrace"),
            (self.vpmu, "vpmu"),
            (self.gnttab_v1, "gnttab-v1"),
            (self.gnttab_v2, "gnttab-v2"),
        ];
        words
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, word)| word)
    }
}

/// CPUs and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs online.
    pub nr_cpus: u32,
    /// Highest CPU number there can be.
    pub max_cpu_id: u32,
    /// NUMA nodes.
    pub nr_nodes: u32,
    /// Cores in a socket.
    pub cores_per_socket: u32,
    /// Threads in a core.
    pub threads_per_core: u32,
    /// Clock of a CPU in kHz.
    pub cpu_khz: u32,
    /// CPUID words that Xen reports.
    pub hw_caps: [u32; 8],
    /// What can be virtualised.
    pub capabilities: Capabilities,
    /// MiB in all.
    pub total_mib: u64,
    /// MiB that are free and not claimed.
    pub free_mib: u64,
    /// MiB saved by sharing.
    pub sharing_freed_mib: u64,
    /// MiB shared.
    pub sharing_used_mib: u64,
    /// MiB claimed.
    pub outstanding_mib: u64,
    /// CPUs in no pool.
    pub free_cpus: u32,
}

/// The hypervisor itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hypervisor {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// The rest of the version: `.4-pre`.
    pub extra: String,
    /// Guest interfaces, with the blank that Xen puts behind the last.
    pub capabilities: String,
    /// Default scheduler.
    pub scheduler: String,
    /// Bytes in a page.
    pub page_size: u32,
    /// Where the hypervisor lies in a PV guest's address space.
    pub virt_start: u64,
    /// Change set it was built from.
    pub changeset: String,
    /// Its command line.
    pub command_line: String,
    /// Compiler.
    pub compiler: String,
    /// Who compiled it.
    pub compile_by: String,
    /// Where.
    pub compile_domain: String,
    /// When.
    pub compile_date: String,
    /// Build id, in hexadecimal.
    pub build_id: String,
}

/// Where one CPU sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuPlace {
    /// CPU.
    pub cpu: u32,
    /// Core.
    pub core: u32,
    /// Socket.
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
}

/// Where one PCI device sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciPlace {
    /// Segment.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
    /// NUMA node.
    pub node: u32,
}

/// One NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMemory {
    /// Node.
    pub node: u32,
    /// Bytes in all.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Distance to each node.
    pub distances: Vec<u32>,
}

/// What `-n` adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// CPUs that exist.
    pub cpus: Vec<CpuPlace>,
    /// PCI devices whose node is known.
    pub devices: Vec<PciPlace>,
    /// Nodes that exist.
    pub nodes: Vec<NodeMemory>,
}

/// Everything that `xl info` shows. A part that could not be found out is `None`, and its lines are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// dom0's kernel.
    pub kernel: Option<Kernel>,
    /// CPUs and memory.
    pub machine: Option<Machine>,
    /// The hypervisor.
    pub hypervisor: Option<Hypervisor>,
}

/// `xl info`, or `xl info -n` if there is a topology.
#[must_use]
pub fn info(host: &HostInfo, topology: Option<&Topology>) -> String {
    let (before, after) = lines(host);
    let between = topology.map(topology_text).unwrap_or_default();
    before.0 + &between + &after.0
}

/// `xl info KEY`: the values of the lines that start with `key`.
#[must_use]
pub fn info_key(host: &HostInfo, key: &str) -> String {
    let (before, after) = lines(host);
    let all = before.0 + &after.0;
    let values = all.lines().filter(|line| line.starts_with(key));
    values
        .filter_map(|line| line.split_once(": "))
        .fold(String::new(), |mut out, (_, value)| {
            put(&mut out, format_args!("{value}\n"));
            out
        })
}

/// Lines of `key: value`.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, key: &str, value: Arguments<'_>) {
        put(&mut self.0, format_args!("{key:<23}: {value}\n"));
    }
}

/// The lines in front of the topology, and those behind it.
fn lines(host: &HostInfo) -> (Lines, Lines) {
    let (mut before, mut after) = (Lines::default(), Lines::default());
    if let Some(kernel) = &host.kernel {
        before.put("host", format_args!("{}", kernel.host));
        before.put("release", format_args!("{}", kernel.release));
        before.put("version", format_args!("{}", kernel.version));
        before.put("machine", format_args!("{}", kernel.machine));
    }
    if let Some(machine) = &host.machine {
        put_machine(&mut before, machine);
    }
    if let Some(hypervisor) = &host.hypervisor {
        put_hypervisor(&mut after, hypervisor);
    }
    after.put("xend_config_format", format_args!("4"));
    (before, after)
}

fn put_machine(lines: &mut Lines, machine: &Machine) {
    lines.put("nr_cpus", format_args!("{}", machine.nr_cpus));
    lines.put("max_cpu_id", format_args!("{}", machine.max_cpu_id));
    lines.put("nr_nodes", format_args!("{}", machine.nr_nodes));
    lines.put(
        "cores_per_socket",
        format_args!("{}", machine.cores_per_socket),
    );
    lines.put(
        "threads_per_core",
        format_args!("{}", machine.threads_per_core),
    );
    let (mhz, khz) = (machine.cpu_khz / 1000, machine.cpu_khz % 1000);
    lines.put("cpu_mhz", format_args!("{mhz}.{khz:03}"));
    let words: Vec<String> = machine
        .hw_caps
        .iter()
        .map(|word| format!("{word:08x}"))
        .collect();
    lines.put("hw_caps", format_args!("{}", words.join(":")));
    // Each word brings its own blank, so without any the line ends with the colon.
    put(&mut lines.0, format_args!("{:<23}:", "virt_caps"));
    for word in machine.capabilities.words() {
        put(&mut lines.0, format_args!(" {word}"));
    }
    lines.0.push('\n');
    lines.put("total_memory", format_args!("{}", machine.total_mib));
    lines.put("free_memory", format_args!("{}", machine.free_mib));
    lines.put(
        "sharing_freed_memory",
        format_args!("{}", machine.sharing_freed_mib),
    );
    lines.put(
        "sharing_used_memory",
        format_args!("{}", machine.sharing_used_mib),
    );
    lines.put(
        "outstanding_claims",
        format_args!("{}", machine.outstanding_mib),
    );
    lines.put("free_cpus", format_args!("{}", machine.free_cpus));
}

fn put_hypervisor(lines: &mut Lines, xen: &Hypervisor) {
    lines.put("xen_major", format_args!("{}", xen.major));
    lines.put("xen_minor", format_args!("{}", xen.minor));
    lines.put("xen_extra", format_args!("{}", xen.extra));
    lines.put(
        "xen_version",
        format_args!("{}.{}{}", xen.major, xen.minor, xen.extra),
    );
    lines.put("xen_caps", format_args!("{}", xen.capabilities));
    lines.put("xen_scheduler", format_args!("{}", xen.scheduler));
    lines.put("xen_pagesize", format_args!("{}", xen.page_size));
    lines.put(
        "platform_params",
        format_args!("virt_start=0x{:x}", xen.virt_start),
    );
    lines.put("xen_changeset", format_args!("{}", xen.changeset));
    lines.put("xen_commandline", format_args!("{}", xen.command_line));
    lines.put("cc_compiler", format_args!("{}", xen.compiler));
    lines.put("cc_compile_by", format_args!("{}", xen.compile_by));
    lines.put("cc_compile_domain", format_args!("{}", xen.compile_domain));
    lines.put("cc_compile_date", format_args!("{}", xen.compile_date));
    lines.put("build_id", format_args!("{}", xen.build_id));
}

fn topology_text(topology: &Topology) -> String {
    let mut out = String::from("cpu_topology           :\ncpu:    core    socket     node\n");
    for CpuPlace {
        cpu,
        core,
        socket,
        node,
    } in &topology.cpus
    {
        put(
            &mut out,
            format_args!("{cpu:>3}:    {core:>4}     {socket:>4}     {node:>4}\n"),
        );
    }
    out.push_str("device topology        :\ndevice           node\n");
    for PciPlace {
        segment,
        bus,
        devfn,
        node,
    } in &topology.devices
    {
        let (device, function) = (devfn >> 3, devfn & 7);
        let place = format_args!("{segment:04x}:{bus:02x}:{device:02x}.{function:x}      {node}\n");
        put(&mut out, place);
    }
    if topology.devices.is_empty() {
        out.push_str("No device topology data available\n");
    }
    out.push_str("numa_info              :\nnode:    memsize    memfree    distances\n");
    for node in &topology.nodes {
        let (number, size, free) = (node.node, node.size >> 20, node.free >> 20);
        let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
        let distances = distances.join(",");
        put(
            &mut out,
            format_args!("{number:>4}:    {size:>6}     {free:>6}      {distances}\n"),
        );
    }
    out
}
