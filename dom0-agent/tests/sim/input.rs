//! Bad input: one message that names the object and the cause, and nothing left behind.

use crate::kernels::{bzimage, payload};
use crate::support::{Host, small_kernel};
use dom0_agent::agent::error::AgentError;
use dom0_agent::config::domain::DomainConfig;
use dom0_agent::image::Format;
use parapet_wire::agent::FailureKind;
use std::path::Path;
use xen_abi::ids::DomId;

/// What is wrong with a configuration, the kind of failure, and words the message must hold.
struct Case {
    what: &'static str,
    spoil: fn(&Host, &mut DomainConfig),
    kind: FailureKind,
    words: &'static [&'static str],
}

fn kernel(config: &mut DomainConfig, path: &Path) {
    config.boot.kernel = Some(path.display().to_string());
}

fn write(host: &Host, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = host.file(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

const CASES: &[Case] = &[
    Case {
        what: "missing kernel",
        spoil: |_, config| kernel(config, Path::new("/no/vmlinuz")),
        kind: FailureKind::Failed,
        words: &["/no/vmlinuz", "does not exist", "kernel="],
    },
    Case {
        what: "no kernel named",
        spoil: |_, config| config.boot.kernel = None,
        kind: FailureKind::Invalid,
        words: &["no kernel="],
    },
    Case {
        what: "a kernel that is no kernel",
        spoil: |host, config| kernel(config, &write(host, "junk", &[0xa5; 9000])),
        kind: FailureKind::Failed,
        words: &["junk"],
    },
    Case {
        what: "an empty kernel",
        spoil: |host, config| kernel(config, &write(host, "nothing", b"")),
        kind: FailureKind::Failed,
        words: &["nothing", "empty"],
    },
    Case {
        what: "a directory as kernel",
        spoil: |_, config| kernel(config, Path::new("/tmp")),
        kind: FailureKind::Failed,
        words: &["/tmp", "not a regular file"],
    },
    Case {
        what: "truncated zstd",
        spoil: |host, config| {
            let mut packed = payload(Format::Zstd, &small_kernel().build());
            let half = packed.len() / 2;
            packed.drain(half..half + 8);
            kernel(config, &write(host, "short", &bzimage(&packed)));
        },
        kind: FailureKind::Failed,
        words: &["short", "zstd"],
    },
    Case {
        what: "a kernel without PVH",
        spoil: |host, config| {
            kernel(
                config,
                &write(host, "pvonly", &small_kernel().without(18).build()),
            )
        },
        kind: FailureKind::Failed,
        words: &["pvonly", "CONFIG_PVH"],
    },
    Case {
        what: "missing initrd",
        spoil: |_, config| config.boot.ramdisk = Some("/no/initrd".into()),
        kind: FailureKind::Failed,
        words: &["/no/initrd", "does not exist", "ramdisk="],
    },
    Case {
        what: "an empty initrd",
        spoil: |host, config| {
            let path = write(host, "empty.rd", b"");
            config.boot.ramdisk = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["empty.rd", "empty"],
    },
    Case {
        what: "an initrd of nonsense",
        spoil: |host, config| {
            let path = write(host, "nonsense.rd", b"this was a ramdisk once");
            config.boot.ramdisk = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["nonsense.rd", "is not a ramdisk", "byte 0"],
    },
    Case {
        what: "an initrd that is cut short",
        spoil: |host, config| {
            let path = write(host, "short.rd", b"\x28\xb5\x2f\xfd\x04\x58\x01\x00");
            config.boot.ramdisk = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["short.rd", "cut short", "zstd"],
    },
    Case {
        what: "an initrd that does not fit",
        spoil: |host, config| {
            // As lzo begins.
            let mut bytes = b"\x89LZO".to_vec();
            bytes.resize(20 << 20, 1);
            let path = write(host, "big.rd", &bytes);
            config.boot.ramdisk = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["memory=16", "too small", "MiB"],
    },
    Case {
        what: "not enough memory",
        spoil: |_, config| {
            config.memory.target_kib = 4 << 20;
            config.memory.max_kib = 4 << 20;
        },
        kind: FailureKind::NoMemory,
        words: &["not enough memory", "needs 41", "256 MiB free"],
    },
    Case {
        what: "missing image",
        spoil: |_, config| config.disks[0].target = Some("/no/such.img".into()),
        kind: FailureKind::Failed,
        words: &["xvda", "/no/such.img", "does not exist"],
    },
    Case {
        what: "an image by relative path",
        spoil: |_, config| config.disks[0].target = Some("disk.img".into()),
        kind: FailureKind::Invalid,
        words: &["xvda", "disk.img", "absolute"],
    },
    Case {
        what: "a read-only image to be written",
        spoil: |host, config| {
            let path = host.image("ro.img", 64);
            let mut permissions = path.metadata().unwrap().permissions();
            permissions.set_readonly(true);
            std::fs::set_permissions(&path, permissions).unwrap();
            config.disks[0].target = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["xvda", "ro.img", "read-only"],
    },
    Case {
        what: "an image of a few bytes",
        spoil: |host, config| {
            let path = write(host, "tiny.img", b"x");
            config.disks[0].target = Some(path.display().to_string());
        },
        kind: FailureKind::Failed,
        words: &["xvda", "tiny.img", "512"],
    },
    Case {
        what: "an image format that is not there yet",
        spoil: |_, config| config.disks[0].format = dom0_agent::config::disk::DiskFormat::Qcow2,
        kind: FailureKind::NotImplemented,
        words: &["xvda", "qcow2", "qemu-img convert"],
    },
    Case {
        what: "an impossible virtual device",
        spoil: |_, config| config.disks[0].vdev = "floppy".into(),
        kind: FailureKind::Invalid,
        words: &["floppy"],
    },
    Case {
        what: "two disks of one name",
        spoil: |_, config| config.disks.push(config.disks[0].clone()),
        kind: FailureKind::Failed,
        words: &["xvda", "another disk"],
    },
    Case {
        what: "two interfaces of one number",
        spoil: |_, config| {
            config.vifs[0].devid = Some(3);
            config.vifs.push(config.vifs[0].clone());
        },
        kind: FailureKind::Failed,
        words: &["3", "twice"],
    },
    Case {
        what: "missing bridge",
        spoil: |_, config| config.vifs[0].bridge = Some("nobr".into()),
        kind: FailureKind::Failed,
        words: &["vif1.0", "nobr", "does not exist"],
    },
    Case {
        what: "an emulated card for a guest that has none",
        spoil: |_, config| config.vifs[0].kind = dom0_agent::config::vif::VifKind::Ioemu,
        kind: FailureKind::Failed,
        words: &["type=ioemu", "HVM"],
    },
    Case {
        what: "name in use",
        spoil: |_, config| config.name = "Domain-0".into(),
        kind: FailureKind::Exists,
        words: &["Domain-0", "domain 0", "choose another"],
    },
    Case {
        what: "a name that looks like a number",
        spoil: |_, config| config.name = "17".into(),
        kind: FailureKind::Invalid,
        words: &["17", "domain id"],
    },
    Case {
        what: "an HVM guest",
        spoil: |_, config| config.kind = dom0_agent::config::domain::DomainKind::Hvm,
        kind: FailureKind::NotImplemented,
        words: &["hvm", "pvh"],
    },
    Case {
        what: "a boot loader",
        spoil: |_, config| {
            config.boot.kernel = None;
            config.boot.bootloader = Some("pygrub".into());
        },
        kind: FailureKind::NotImplemented,
        words: &["bootloader=", "kernel="],
    },
    Case {
        what: "too long a command line",
        spoil: |_, config| config.boot.cmdline = Some("x".repeat(5000)),
        kind: FailureKind::Invalid,
        words: &["cmdline", "5000 bytes"],
    },
];

#[test]
fn each_fault_has_its_message_and_leaves_nothing() {
    let mut wrong = Vec::new();
    for case in CASES {
        let host = Host::new();
        let mut config = host.equipped("pvh", "web1", "");
        (case.spoil)(&host, &mut config);
        let failure = host.create(config).expect_err(case.what).failure();
        let complete = case.words.iter().all(|word| failure.text.contains(word));
        if !complete || failure.text.contains('\n') || failure.kind != case.kind {
            wrong.push(format!(
                "{}: {:?}: {}",
                case.what, failure.kind, failure.text
            ));
        }
        host.assert_clean();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_or_uuid_of_ours_is_in_use_as_well() {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", "");
    host.start(config.clone());
    let mut other = config.clone();
    other.uuid = uuid::Uuid::from_u128(9);
    assert!(matches!(
        host.create(other),
        Err(AgentError::NameInUse {
            domid: DomId(1),
            ..
        })
    ));
    let mut other = config;
    other.name = "web2".into();
    assert!(matches!(
        host.create(other),
        Err(AgentError::UuidInUse { .. })
    ));
    host.settle();
    assert!(host.machine(DomId(1)).is_connected());
    host.agent.destroy(DomId(1)).unwrap();
    host.assert_clean();
}

#[test]
fn bad_devices_for_a_running_guest_leave_it_alone() {
    let mut host = Host::new();
    let config = host.equipped("pv", "web1", "");
    let domid = host.start(config.clone());
    let before = host.world.ledger();
    let mut disk = config.disks[0].clone();
    disk.vdev = "xvdb".into();
    disk.target = Some("/no/such.img".into());
    let text = host
        .agent
        .attach_disk(domid, &disk)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("xvdb") && text.contains("/no/such.img"),
        "{text}"
    );
    // Served to this very guest already: its lock is held.
    disk.target = config.disks[0].target.clone();
    let text = host
        .agent
        .attach_disk(domid, &disk)
        .unwrap_err()
        .to_string();
    assert!(text.contains("locked"), "{text}");
    let vif = dom0_agent::config::vif::VifSpec {
        bridge: Some("nobr".into()),
        ..Default::default()
    };
    let text = host.agent.attach_net(domid, &vif).unwrap_err().to_string();
    assert!(text.contains("vif1.1") && text.contains("nobr"), "{text}");
    for domid in [DomId(9), DomId::DOM0] {
        assert!(host.agent.attach_disk(domid, &disk).is_err());
        assert!(host.agent.destroy(domid).is_err());
    }
    host.settle();
    host.world.ledger().assert_same_as(&before);
    assert!(host.machine(domid).is_connected());
    // What was refused is not in the record either: the next start has the devices of this one.
    host.next_agent();
    let shared = host.guests().remove(0);
    let record = dom0_agent::agent::lock(&shared).record.config.clone();
    assert_eq!((record.disks.len(), record.vifs.len()), (1, 1));
    host.agent.destroy(domid).unwrap();
    host.assert_clean();
}

#[test]
fn a_stopped_xenstored_is_named() {
    let host = Host::new();
    host.world.set_xenstored_down(true);
    let config = host.equipped("pvh", "web1", "");
    let text = host.create(config.clone()).unwrap_err().to_string();
    assert!(text.contains("xenstored"), "{text}");
    host.world.set_xenstored_down(false);
    host.assert_clean();
    // And one that stops in the middle.
    let host = Host::new();
    host.world.set_xenstored_down(false);
    host.create(config).unwrap();
    host.world.set_xenstored_down(true);
    let text = host.agent.destroy(DomId(1)).unwrap_err().to_string();
    assert!(text.contains("xenstored"), "{text}");
    host.world.set_xenstored_down(false);
    host.agent.destroy(DomId(1)).unwrap();
    host.assert_clean();
}

#[test]
fn a_stock_guest_can_be_destroyed_but_not_changed() {
    let host = Host::new();
    let stranger = host.world.spawn(&xen_sim::GuestSpec::pv("stock1"));
    let image = host.image("x.img", 64);
    let disk =
        dom0_agent::config::disk::parse_disk("t", &[&format!("{},raw,xvdb,rw", image.display())]);
    let text = host
        .agent
        .attach_disk(stranger.domid(), &disk.unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("not made by Parapet") && text.contains("block-attach"),
        "{text}"
    );
    host.agent.destroy(stranger.domid()).unwrap();
    host.assert_clean();
}
