//! Whole configurations: what they mean and what is said about them.

use std::collections::BTreeSet;

use dom0_agent::config::cpu::{CpuSet, TscMode};
use dom0_agent::config::cpulist::HostCpus;
use dom0_agent::config::diag::{ConfigError, Severity};
use dom0_agent::config::domain::{CarriedValue, DomainConfig, DomainKind};
use dom0_agent::config::events::ShutdownAction;
use dom0_agent::config::interpret::{Ambient, Loaded, load};
use dom0_agent::config::keys::{KEYS, Shape};
use dom0_agent::config::protect::{Probe, ProtectClass};
use dom0_agent::config::read_source;
use dom0_agent::config::xlconf::XlConf;
use dom0_agent::format::json;
use proptest::prelude::*;
use uuid::Uuid;

const FRESH: Uuid = Uuid::from_u128(0x1234);

fn ambient() -> Ambient {
    let mut ambient = Ambient::new("x.cfg", FRESH, 4);
    let node = |range: std::ops::Range<u32>| CpuSet(range.collect());
    ambient.host = HostCpus {
        count: 4,
        nodes: vec![node(0..2), node(2..4)],
    };
    ambient
}

/// Reads a whole text on a host of four CPUs in two nodes.
pub(crate) fn try_load(text: &str) -> Result<Loaded, ConfigError> {
    load(text.as_bytes(), &[], &ambient())
}

/// A PV guest with a kernel and some more lines.
fn loaded(more: &str) -> Loaded {
    let text = format!("name='g'\nkernel='/k'\n{more}");
    try_load(&text).unwrap_or_else(|e| panic!("{more:?}: {e}"))
}

fn config(more: &str) -> DomainConfig {
    loaded(more).config
}

fn said(more: &str) -> String {
    loaded(more).report.printed()
}

#[test]
fn a_name_and_a_kernel_are_enough() {
    let config = config("");
    assert_eq!(
        (config.name.as_str(), config.kind, config.uuid),
        ("g", DomainKind::Pv, FRESH)
    );
    assert_eq!(
        (config.memory.target_kib, config.memory.max_kib),
        (32 * 1024, 32 * 1024)
    );
    assert_eq!((config.cpu.online, config.cpu.max), (1, 1));
    assert_eq!(config.boot.kernel.as_deref(), Some("/k"));
    assert_eq!(config.boot.cmdline, None);
    assert_eq!(config.events.on_poweroff, ShutdownAction::Destroy);
    assert_eq!(config.events.on_reboot, ShutdownAction::Restart);
    assert_eq!(config.events.on_crash, ShutdownAction::Destroy);
    assert_eq!(config.events.on_watchdog, ShutdownAction::Destroy);
    assert_eq!(config.events.on_soft_reset, ShutdownAction::SoftReset);
    assert!(config.disks.is_empty() && config.vifs.is_empty() && config.carried.is_empty());
    assert_eq!(config.protect.class, ProtectClass::None);
    assert_eq!(said(""), "");
}

#[test]
fn the_kind_is_found_by_prefix() {
    let cases = [
        ("type='pv'", DomainKind::Pv),
        ("type='p'", DomainKind::Pv),
        ("type='pvh'", DomainKind::Pvh),
        ("type='h'", DomainKind::Hvm),
        ("type='hvm'", DomainKind::Hvm),
        ("type=''", DomainKind::Hvm),
        ("builder='hvm'", DomainKind::Hvm),
        ("builder='generic'", DomainKind::Pv),
        ("builder='h'\ntype='hvm'", DomainKind::Hvm),
    ];
    for (text, want) in cases {
        assert_eq!(config(text).kind, want, "{text}");
    }
}

#[test]
fn memory_and_cpus_have_their_defaults_from_each_other() {
    let sizes = |text| {
        let config = config(text);
        (
            config.memory.target_kib >> 10,
            config.memory.max_kib >> 10,
            config.cpu.online,
            config.cpu.max,
        )
    };
    assert_eq!(
        sizes("memory=128\nmaxmem=256\nvcpus=2\nmaxvcpus=4"),
        (128, 256, 2, 4)
    );
    assert_eq!(sizes("memory='128'\nvcpus='2'"), (128, 128, 2, 2));
    assert_eq!(sizes("maxmem=0x40\nmaxvcpus=010"), (64, 64, 1, 8));
}

#[test]
fn affinities_are_for_all_or_for_each() {
    let set = |cpus: &[u32]| CpuSet(cpus.iter().copied().collect::<BTreeSet<u32>>());
    let all = config("vcpus=2\ncpus='0-1,^0'").cpu;
    assert_eq!(all.hard_affinity, [set(&[1]), set(&[1])]);
    assert_eq!(all.numa_placement, None);
    let each = config("vcpus=2\ncpus=['0', 'node:1', '3']\ncpus_soft='node:0'").cpu;
    assert_eq!(each.hard_affinity, [set(&[0]), set(&[2, 3])]);
    assert_eq!(each.soft_affinity, [set(&[0, 1]), set(&[0, 1])]);
    assert_eq!(each.numa_placement, Some(false));
    assert_eq!(config("vcpus=2\ncpus=['0']").cpu.hard_affinity, [set(&[0])]);
}

#[test]
fn the_command_line_is_joined_or_taken_whole() {
    let line = |text| config(text).boot.cmdline;
    assert_eq!(
        line("root='/dev/xvda'\nextra='ro quiet'").as_deref(),
        Some("root=/dev/xvda ro quiet")
    );
    assert_eq!(line("root='/dev/xvda'").as_deref(), Some("root=/dev/xvda"));
    assert_eq!(line("extra='ro'").as_deref(), Some("ro"));
    assert_eq!(line("cmdline='a'\nroot='/dev/xvda'").as_deref(), Some("a"));
    assert_eq!(
        said("cmdline='a'\nextra='x'"),
        "Warning: ignoring root= and extra= in favour of cmdline=\n"
    );
}

#[test]
fn firmware_names_a_kernel() {
    let config = try_load("name='g'\ntype='pvh'\nfirmware='pvgrub64'")
        .unwrap()
        .config;
    assert_eq!(
        config.boot.kernel.as_deref(),
        Some("/usr/lib/xen-4.20/boot/pvgrub64.bin")
    );
}

#[test]
fn modes_of_the_time_stamp_counter_have_names_and_old_numbers() {
    assert_eq!(config("tsc_mode='Native'").cpu.tsc_mode, TscMode::Native);
    assert_eq!(config("tsc_mode=1").cpu.tsc_mode, TscMode::AlwaysEmulate);
    assert!(said("tsc_mode=1").contains("e.g. tsc_mode=\"always_emulate\""));
}

#[test]
fn protection_is_read() {
    let protect = config(
        "protect='failover'\nprotect_heartbeat_timeout=5\nprotect_x=['a']\n\
         protect_probe=['tcp:10.0.0.1:80', 'ping:web']",
    )
    .protect;
    assert_eq!(protect.class, ProtectClass::Failover);
    assert_eq!(
        protect.settings["heartbeat_timeout"],
        CarriedValue::Atom("5".into())
    );
    assert_eq!(
        protect.settings["x"],
        CarriedValue::List(vec![CarriedValue::Atom("a".into())])
    );
    assert_eq!(protect.settings.len(), 2);
    assert_eq!(
        protect.probes,
        [
            Probe::Tcp {
                host: "10.0.0.1".into(),
                port: 80
            },
            Probe::Ping { host: "web".into() },
        ]
    );
    let one = config("protect_probe='http://web/'").protect;
    assert_eq!(
        one.probes,
        [Probe::Http {
            url: "http://web/".into()
        }]
    );
}

#[test]
fn values_of_the_wrong_shape_are_told_and_absent() {
    let cases = [
        ("vcpus='x'", "parameter `vcpus' is not a valid number"),
        (
            "vcpus=12345678901234567890",
            "parameter `vcpus' could not be parsed as a number: Numerical result out of range",
        ),
        (
            "vcpus='1'\nvcpus+='2'",
            "can't use += with numbers for parameter `vcpus'",
        ),
        (
            "extra=['x']",
            "parameter `extra' is a list but should be a single value",
        ),
        (
            "vif='bridge=x'",
            "parameter `vif' is a single value but should be a list",
        ),
        (
            "localtime='True'",
            "parameter `localtime' is not a valid number",
        ),
    ];
    for (text, want) in cases {
        let line = 2 + text.lines().count();
        assert_eq!(
            said(text),
            format!("x.cfg:{line}: warning: {want}\n"),
            "{text}"
        );
        let config = config(text);
        assert_eq!(
            (config.cpu.online, config.boot.cmdline, config.vifs.len()),
            (1, None, 0)
        );
        assert!(config.carried.is_empty());
    }
}

#[test]
fn one_warning_names_all_that_is_kept_but_not_acted_on() {
    let text =
        "localtime=1\nacpi=0\nvnc=1\nboot='cd'\npool='x'\nnomigrate=1\nbootloader='pygrub'\n";
    let said = said(text);
    assert_eq!(
        said,
        "x.cfg: warning: kept but not acted on yet: pool, nomigrate, localtime, acpi, bootloader, vnc\n"
    );
    assert_eq!(
        config(text).carried_text("boot"),
        Some("cd"),
        "kept although PV ignores it"
    );
}

#[test]
fn parts_without_effect_are_named_once_in_the_same_warning() {
    let text = "localtime=1\non_crash='soft-reset'\nprotect_mood='good'\n\
        disk=['/a,raw,xvda,rw,backendtype=phy','/b,raw,xvdb,rw,backendtype=qdisk,untrusted']\n\
        vif=['script=vif-route,ip=10.0.0.2,rate=1MB/s','gatewaydev=eth0']\n";
    assert_eq!(
        said(text),
        "x.cfg: warning: kept but not acted on yet: localtime, on_crash=soft-reset, \
         protect_mood, disk backendtype, vif script, vif ip, vif rate, vif gatewaydev\n"
    );
}

#[test]
fn a_soft_reset_is_named_where_it_was_asked_for() {
    let named = |text: &str| said(text).contains("on_soft_reset=");
    assert!(!named("vcpus=1\n"), "the default");
    assert!(named("on_soft_reset='soft-reset'\n"));
    assert!(!named("on_soft_reset='rename-restart'\n"));
}

#[test]
fn what_newer_releases_brought_is_named_unless_it_asks_for_nothing() {
    let text = "xenstore_feature_mask=5\nxenstore_quota=['nodes=10']\naltp2m_count=3\n\
        trap_unmapped_accesses=1\narm_sci='type=scmi_smc'\nxen_platform_pci_bar_uc=0\n";
    let warning = "x.cfg: warning: kept but not acted on yet: xenstore_feature_mask, \
        xenstore_quota, altp2m_count, trap_unmapped_accesses\n";
    assert_eq!(said(text), warning);
    let idle = "xenstore_feature_mask=0xffffffff\nxenstore_quota=[]\naltp2m_count=10\ntrap_unmapped_accesses=0\n";
    assert_eq!(said(idle), "");
}

#[test]
fn parts_that_ask_for_what_happens_anyway_are_not_named() {
    let text = "on_crash='preserve'\non_soft_reset='restart'\nprotect_heartbeat_timeout=5\n\
        disk=['/a,raw,xvda,rw,direct-io-safe,untrusted,specification=xen']\n\
        vif=['script=/etc/xen/scripts/vif-bridge,bridge=br0,model=e1000,untrusted']\n";
    assert_eq!(said(text), "");
}

#[test]
fn what_is_obeyed_or_asks_for_nothing_is_not_named() {
    let text =
        "max_grant_frames=64\nmax_event_channels=100\nacpi=1\nhap=1\nnomigrate=0\nvnc=0\npci=[]\n";
    assert_eq!(said(text), "");
    assert_eq!(config(text).carried_number("max_grant_frames"), Some(64));
    assert_eq!(config(text).carried_flag("nomigrate"), Some(false));
}

#[test]
fn unknown_keys_are_accepted_in_silence() {
    let loaded = loaded("dhcp=1\nspoof_xen=1\n");
    assert_eq!(loaded.report.printed(), "");
    let notes: Vec<&str> = loaded
        .report
        .items
        .iter()
        .map(|d| d.text.as_str())
        .collect();
    assert_eq!(
        notes,
        [
            "x.cfg:3: unknown key `dhcp' ignored",
            "x.cfg:4: unknown key `spoof_xen' ignored"
        ]
    );
    assert!(
        loaded
            .report
            .items
            .iter()
            .all(|d| d.severity == Severity::Debug)
    );
}

#[test]
fn obsolete_keys_are_told() {
    let said = said("vncviewer=1\nvif2=[]\ndevice_model='stubdom-dm'\n");
    assert!(said.contains("ignoring \"vncviewer\" option"), "{said}");
    assert!(said.contains("netchannel2"), "{said}");
    assert!(said.contains("ignoring device_model directive"), "{said}");
    assert!(!said.contains("not acted on"), "{said}");
}

#[test]
fn a_wrong_interface_parameter_is_told_and_creation_goes_on() {
    let loaded = loaded("vif=['wombat=1, bridge=br0', '']");
    assert_eq!(
        loaded.report.printed(),
        "unrecognized argument `wombat=1'\n"
    );
    assert_eq!(loaded.config.vifs.len(), 2);
    assert_eq!(loaded.config.vifs[0].bridge.as_deref(), Some("br0"));
}

#[test]
fn defaults_of_the_host_are_used() {
    let mut ambient = ambient();
    let (conf, _) = XlConf::read("xl.conf", b"vif.default.bridge='br9'\nclaim_mode=0\n").unwrap();
    ambient.conf = conf;
    let text = b"name='g'\nkernel='k'\nvif=['','bridge=br1']\n";
    let config = load(text, &[], &ambient).unwrap().config;
    let bridges: Vec<_> = config.vifs.iter().map(|v| v.bridge.as_deref()).collect();
    assert_eq!(bridges, [Some("br9"), Some("br1")]);
    assert!(json::dry_run(&config, &ambient.conf).contains("\"claim_mode\": \"False\""));
}

#[test]
fn overrides_of_the_command_line_win() {
    let overrides = ["memory=\"64\"".to_owned(), "name=\"h\"".to_owned()];
    let config = load(b"name='g'\nkernel='k'\nmemory=32", &overrides, &ambient())
        .unwrap()
        .config;
    assert_eq!(
        (config.name.as_str(), config.memory.target_kib),
        ("h", 64 * 1024)
    );
    let shell_ate_the_quotes = ["name=h".to_owned()];
    let error = load(b"kernel='k'", &shell_ate_the_quotes, &ambient()).unwrap_err();
    assert!(
        error.to_string().contains("text stands in quotes"),
        "{error}"
    );
}

#[test]
fn every_known_key_is_taken_in_its_shape() {
    for key in KEYS
        .iter()
        .filter(|key| !["type", "builder", "name", "kernel"].contains(&key.name))
    {
        let value = match key.shape {
            Shape::Number => "1",
            Shape::Text | Shape::TextOrList => "''",
            Shape::List => "[]",
        };
        // Keys with their own words or addresses refuse the empty text; that is tested elsewhere.
        if let Ok(loaded) = try_load(&format!("name='g'\nkernel='k'\n{}={value}\n", key.name)) {
            let said = loaded.report.printed();
            assert!(!said.contains("should be"), "{}: {said}", key.name);
        }
    }
}

#[test]
fn files_are_read_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.cfg");
    std::fs::write(&path, "name='g'").unwrap();
    assert_eq!(read_source(&path).unwrap(), b"name='g'");
    std::fs::write(&path, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    assert!(
        read_source(&path)
            .unwrap_err()
            .to_string()
            .contains("limit")
    );
    assert!(read_source(&dir.path().join("none")).is_err());
}

/// A value of any shape, as text.
fn any_value() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        "'[a-z0-9=:,./@^-]{0,20}'",
        "[0-9]{1,20}",
        "'-?[0-9]{1,20}'",
        Just("'all'".to_owned()),
        Just("'pvh'".to_owned()),
        Just("'/d,,xvda'".to_owned()),
    ];
    let list = prop::collection::vec(atom.clone(), 0..4)
        .prop_map(|items| format!("[{}]", items.join(",")));
    prop_oneof![3 => atom, 1 => list, 1 => Just("[['a'],[]]".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_values_of_known_keys_are_answered(
        settings in prop::collection::vec((prop::sample::select(KEYS), any_value()), 0..30),
        kind in prop::sample::select(vec!["pv", "pvh", "hvm"]),
    ) {
        let lines: String = settings.iter().map(|(key, value)| format!("{}={value}\n", key.name)).collect();
        let text = format!("{lines}name='g'\nkernel='k'\ntype='{kind}'\nbuilder=[]\nfirmware=[]\n");
        if let Ok(loaded) = try_load(&text) {
            let conf = XlConf::default();
            let config = loaded.config;
            let packed = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(&serde_json::from_str::<DomainConfig>(&packed).unwrap(), &config);
            let stored = json::parse_userdata(&json::userdata(&config, &conf)).unwrap();
            let back = json::read(&stored).unwrap();
            prop_assert_eq!(back.disks, config.disks);
            prop_assert_eq!(back.events, config.events);
            prop_assert_eq!(back.boot, config.boot);
            prop_assert_eq!(back.memory.target_kib, config.memory.target_kib);
        }
    }
}
