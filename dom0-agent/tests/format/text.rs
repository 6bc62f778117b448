//! The tables of xl, held against what stock xl 4.20 printed on a real host (`golden/text`).

use std::fs;
use std::path::Path;

use dom0_agent::format::bitmap::ranges;
use dom0_agent::format::devices::{BlockRow, NetworkRow, block_list, network_list};
use dom0_agent::format::info::{
    Capabilities, CpuPlace, HostInfo, Hypervisor, Kernel, Machine, NodeMemory, PciPlace, Topology,
    info, info_key,
};
use dom0_agent::format::list::{Columns, ListRow, RunState, ShutdownCode, list};
use dom0_agent::format::names;
use dom0_agent::format::uptime::{UptimeRow, short, table};
use dom0_agent::format::vcpus::{VcpuRow, VcpuState, header, rows};
use dom0_agent::format::vms::{VmRow, vm_list};
use uuid::Uuid;

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/text")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn uuid(last: &str) -> Uuid {
    let text = format!("11111111-2222-3333-4444-{last}");
    Uuid::try_parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

const BLOCKED: RunState = RunState {
    running: false,
    blocked: true,
    paused: false,
    shutdown: None,
    dying: false,
};
const PAUSED: RunState = RunState {
    blocked: false,
    paused: true,
    ..BLOCKED
};
const RUNNING: RunState = RunState {
    blocked: false,
    running: true,
    ..BLOCKED
};

/// The host of the golden files; dom0's clock had gone on between two of them.
fn guests(dom0_ns: u64) -> Vec<ListRow> {
    let row = |name: &str, domid, mib: u64, state, cpu_time_ns, uuid| ListRow {
        name: Some(name.into()),
        domid,
        current_kib: mib << 10,
        outstanding_kib: 0,
        vcpus_online: 1,
        state,
        cpu_time_ns,
        uuid,
        security_label: None,
        pool: Some("Pool-0".into()),
        nodes: ranges([0], 1),
    };
    vec![
        row("Domain-0", 0, 1024, RUNNING, dom0_ns, Uuid::nil()),
        row("pv1", 1, 128, BLOCKED, 14_400_000_000, uuid("555555555555")),
        row("pvh1", 2, 96, PAUSED, 0, uuid("666666666666")),
    ]
}

#[test]
fn every_variant_of_list_is_stocks() {
    let plain = Columns::default();
    let everything = Columns {
        verbose: true,
        label: true,
        pool: true,
        nodes: true,
        ..Columns::default()
    };
    let cases = [
        ("list.txt", 67_900_000_000, plain),
        (
            "list_-v.txt",
            68_200_000_000,
            Columns {
                verbose: true,
                ..plain
            },
        ),
        (
            "list_-Z.txt",
            68_400_000_000,
            Columns {
                label: true,
                ..plain
            },
        ),
        (
            "list_-c.txt",
            68_700_000_000,
            Columns {
                pool: true,
                ..plain
            },
        ),
        (
            "list_-n.txt",
            68_900_000_000,
            Columns {
                nodes: true,
                ..plain
            },
        ),
        ("list_-v_-Z_-c_-n.txt", 69_200_000_000, everything),
    ];
    for (name, dom0_ns, columns) in cases {
        assert_eq!(list(&guests(dom0_ns), columns), golden(name), "{name}");
    }
}

#[test]
fn claims_are_stocks() {
    let mut rows = guests(77_700_000_000);
    rows[1].cpu_time_ns = 14_500_000_000;
    let columns = Columns {
        claims: true,
        ..Columns::default()
    };
    assert_eq!(list(&rows, columns), golden("claims.txt"));
}

#[test]
fn a_row_always_splits_into_six_fields() {
    let mut rows = guests(1);
    rows[1].name = None;
    rows[2].state.shutdown = Some(ShutdownCode(3));
    rows[2].cpu_time_ns = u64::MAX;
    rows[2].current_kib = u64::MAX;
    rows[2].name = Some("x".repeat(60));
    for line in list(&rows, Columns::default()).lines().skip(1) {
        assert_eq!(line.split_whitespace().count(), 6, "{line}");
    }
    assert!(list(&rows, Columns::default()).contains("\n(null)    "));
}

#[test]
fn the_reason_of_a_shutdown_is_hexadecimal() {
    let mut rows = guests(0);
    rows[2].state.shutdown = Some(ShutdownCode(0xff));
    rows[2].security_label = Some("system_u:system_r:domU_t".into());
    let text = list(
        &rows[2..],
        Columns {
            verbose: true,
            ..Columns::default()
        },
    );
    assert!(
        text.ends_with("-666666666666       ff system_u:system_r:domU_t\n"),
        "{text}"
    );
}

#[test]
fn vcpu_list_is_stocks() {
    let row = |name: &str, domid, vcpu, state, cpu_time_ns| VcpuRow {
        name: Some(name.into()),
        domid,
        vcpu,
        state,
        cpu_time_ns,
        hard: "all".into(),
        soft: "all".into(),
    };
    let online = |running, blocked| VcpuState::Online {
        cpu: 0,
        running,
        blocked,
    };
    let all = [
        row("Domain-0", 0, 0, online(true, false), 70_800_000_000),
        row("pv1", 1, 0, online(false, true), 14_400_000_000),
        row("pvh1", 2, 0, online(false, false), 0),
        row("pvh1", 2, 1, VcpuState::Offline, 0),
    ];
    assert_eq!(header() + &rows(&all), golden("vcpu-list.txt"));
}

#[test]
fn uptimes_are_stocks() {
    let row = |name: &str, domid, seconds| UptimeRow {
        name: Some(name.into()),
        domid,
        seconds,
    };
    let all = [
        row("Domain-0", 0, 152),
        row("pv1", 1, 53),
        row("pvh1", 2, 41),
    ];
    assert_eq!(table(&all), golden("uptime.txt"));
    assert_eq!(short(&all, "15:32:36"), golden("uptime_-s.txt"));
}

#[test]
fn vm_list_is_stocks() {
    let row = |uuid, domid, name: &str| VmRow {
        uuid,
        domid,
        name: Some(name.into()),
    };
    let all = [
        row(Uuid::nil(), 0, "Domain-0"),
        row(uuid("555555555555"), 1, "pv1"),
        row(uuid("666666666666"), 2, "pvh1"),
    ];
    assert_eq!(vm_list(&all), golden("vm-list.txt"));
}

#[test]
fn device_lists_are_stocks() {
    let disk = |vdev| BlockRow {
        vdev,
        backend_domid: 0,
        handle: 2,
        state: 1,
        event_channel: -1,
        ring_ref: -1,
        backend_path: format!("/local/domain/0/backend/vbd/2/{vdev}"),
    };
    let disks = [disk(51712), disk(51728), disk(51744)];
    assert_eq!(block_list(&disks), golden("block-list_pvh1.txt"));
    let interface = NetworkRow {
        index: 0,
        backend_domid: 0,
        mac: "00:16:3e:00:00:02".into(),
        handle: 0,
        state: 1,
        event_channel: -1,
        tx_ring_ref: -1,
        rx_ring_ref: -1,
        backend_path: "/local/domain/0/backend/vif/2/0".into(),
    };
    assert_eq!(network_list(&[interface]), golden("network-list_pvh1.txt"));
}

fn host() -> HostInfo {
    let kernel = Kernel {
        host: "lab".into(),
        release: "6.12.107+deb13-amd64".into(),
        version: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)".into(),
        machine: "x86_64".into(),
    };
    let capabilities = Capabilities {
        pv: true,
        hvm: true,
        hap: true,
        gnttab_v1: true,
        gnttab_v2: true,
        ..Capabilities::default()
    };
    let machine = Machine {
        nr_cpus: 1,
        max_cpu_id: 0,
        nr_nodes: 1,
        cores_per_socket: 1,
        threads_per_core: 1,
        cpu_khz: 2_499_999,
        hw_caps: [
            0x0fcb_f3fd,
            0xf6f8_320b,
            0xe450_0800,
            0x177,
            5,
            0x219c_43a9,
            0x8041_020c,
            0,
        ],
        capabilities,
        total_mib: 2047,
        free_mib: 773,
        ..Machine::default()
    };
    let hypervisor = Hypervisor {
        major: 4,
        minor: 20,
        extra: ".4-pre".into(),
        capabilities: "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ".into(),
        scheduler: "credit2".into(),
        page_size: 4096,
        virt_start: 0xffff_8000_0000_0000,
        changeset: String::new(),
        command_line: "console=com1 com1=115200,8n1 dom0_mem=1024M dom0_max_vcpus=1 \
            spec-ctrl=eager-fpu loglvl=all guest_loglvl=all"
            .into(),
        compiler: "x86_64-linux-gnu-gcc (Debian 14.2.0-19) 14.2.0".into(),
        compile_by: "pkg-xen-devel".into(),
        compile_domain: "lists.alioth.debian.org".into(),
        compile_date: "Fri Jul 31 21:59:26 UTC 2026".into(),
        build_id: "ea92b67a6c7ec0dc9541bc73daef97756b70e672".into(),
    };
    HostInfo {
        kernel: Some(kernel),
        machine: Some(machine),
        hypervisor: Some(hypervisor),
    }
}

#[test]
fn info_is_stocks() {
    assert_eq!(info(&host(), None), golden("info.txt"));
    let topology = Topology {
        cpus: vec![],
        devices: vec![],
        nodes: vec![NodeMemory {
            node: 0,
            size: 2047 << 20,
            free: 773 << 20,
            distances: vec![10],
        }],
    };
    assert_eq!(info(&host(), Some(&topology)), golden("info_-n.txt"));
}

#[test]
fn a_key_of_info_stands_for_every_line_that_starts_with_it() {
    assert_eq!(info_key(&host(), "xen"), golden("info_xen.txt"));
    assert_eq!(info_key(&host(), "nr_cpus"), "1\n");
    assert_eq!(
        info_key(&host(), "virt_caps"),
        "pv hvm hap gnttab-v1 gnttab-v2\n"
    );
    assert_eq!(info_key(&host(), "nothing"), "");
}

#[test]
fn cpus_and_devices_have_a_place_in_the_topology() {
    let cpus = vec![CpuPlace {
        cpu: 11,
        core: 5,
        socket: 1,
        node: 2,
    }];
    let devices = vec![PciPlace {
        segment: 0,
        bus: 0x1f,
        devfn: 0xfb,
        node: 1,
    }];
    let text = info(
        &HostInfo::default(),
        Some(&Topology {
            cpus,
            devices,
            nodes: vec![],
        }),
    );
    assert!(
        text.contains("\n 11:       5        1        2\n"),
        "{text}"
    );
    assert!(text.contains("\n0000:1f:1f.3      1\n"), "{text}");
    assert!(!text.contains("No device"), "{text}");
}

#[test]
fn what_is_said_of_missing_domains_is_stocks() {
    assert_eq!(
        names::invalid_domain("x"),
        "x is an invalid domain identifier (rc=-6)\n"
    );
    assert_eq!(
        names::invalid_domain_of_block_list("x"),
        "x is an invalid domain identifier\n"
    );
    assert_eq!(
        names::no_such_domain("77"),
        "Error: Domain '77' does not exist.\n"
    );
    assert_eq!(
        names::no_domid("x"),
        "Can't get domid of domain name 'x', maybe this domain does not exist.\n"
    );
    assert_eq!(
        names::no_name(77),
        "Can't get domain name of domain id '77', maybe this domain does not exist.\n"
    );
    assert_eq!(names::no_number(), "Invalid domain id.\n\n");
}
