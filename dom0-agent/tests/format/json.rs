//! Configurations and their JSON form, held against what stock xl 4.20 printed for the same files on a real host with
//! one CPU (`golden/create-n`, `golden/userdata`).

use std::fs;
use std::path::{Path, PathBuf};

use dom0_agent::config::domain::DomainConfig;
use dom0_agent::config::interpret::{Ambient, load};
use dom0_agent::config::xlconf::XlConf;
use dom0_agent::format::json::{self, Live, Moment, ReadError, Scheduler};
use uuid::Uuid;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

fn text(path: &str) -> String {
    let path = golden(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn config(path: &str) -> DomainConfig {
    let ambient = Ambient::new(path, Uuid::nil(), 1);
    load(text(path).as_bytes(), &[], &ambient)
        .unwrap_or_else(|e| panic!("{e}"))
        .config
}

fn assert_same(name: &str, got: &str, want: &str) {
    for (number, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "{name}, line {}", number + 1);
    }
    assert_eq!(got, want, "{name}");
}

#[test]
fn dry_runs_print_what_stock_prints() {
    let names = [
        "pv",
        "pvh",
        "minimal",
        "everything",
        "hvm",
        "hvm-everything",
        "quirks",
        "shim",
    ];
    for name in names {
        let config = config(&format!("create-n/{name}.cfg"));
        let want = text(&format!("create-n/{name}.json"));
        assert_same(name, &json::dry_run(&config, &XlConf::default()), &want);
    }
}

#[test]
fn userdata_is_what_stock_stores() {
    for number in [1, 2] {
        let config = config(&format!("userdata/{number}.cfg"));
        let bytes = json::userdata(&config, &XlConf::default());
        let (zero, written) = bytes.split_last().unwrap();
        assert_eq!(*zero, 0);
        let written = std::str::from_utf8(written).unwrap();
        assert_same(
            "userdata",
            written,
            &text(&format!("userdata/{number}.json")),
        );
    }
}

fn live(domid: u32, name: Option<&str>, max_kib: u64, target_kib: u64, share: (u32, u32)) -> Live {
    let scheduler = Scheduler {
        name: "credit2".into(),
        share: Some(share),
    };
    Live {
        name: name.map(Into::into),
        max_kib: Some(max_kib),
        target_kib: Some(target_kib),
        scheduler: Some(scheduler),
        uuid: Some(Uuid::nil()),
        online_vcpus: Some([0].into()),
        ..Live::numbered(domid)
    }
}

#[test]
fn long_lists_are_stored_forms_brought_up_to_date() {
    let lives = [
        live(0, Some("Domain-0"), 17_179_869_180, 1_048_576, (256, 0)),
        live(1, None, 131_072, 131_072, (256, 0)),
        live(2, Some("pvh1"), 131_072, 98_304, (512, 50)),
    ];
    let guests = lives.into_iter().map(|live| {
        let stored = text(&format!("userdata/{}.json", live.domid));
        (json::parse_userdata(stored.as_bytes()).unwrap(), live)
    });
    assert_same(
        "list -l",
        &json::long_list(guests),
        &text("userdata/list-l.txt"),
    );
}

#[test]
fn what_stock_stored_reads_as_what_was_configured() {
    for number in [1, 2] {
        let want = config(&format!("userdata/{number}.cfg"));
        let stored = text(&format!("userdata/{number}.json"));
        let got = json::read(&json::parse_userdata(stored.as_bytes()).unwrap()).unwrap();
        let parts = |c: &DomainConfig| (c.name.clone(), c.uuid, c.kind, c.events, c.boot.clone());
        assert_eq!(parts(&got), parts(&want));
        assert_eq!(got.disks, want.disks);
        assert_eq!(
            (got.memory.target_kib, got.memory.max_kib),
            (want.memory.target_kib, want.memory.max_kib)
        );
        assert_eq!(got.vifs.len(), want.vifs.len());
        for (got, want) in got.vifs.iter().zip(&want.vifs) {
            assert_eq!(
                (got.mac, &got.bridge, &got.ifname),
                (want.mac, &want.bridge, &want.ifname)
            );
            assert_eq!((got.rate, got.mtu), (want.rate, want.mtu));
        }
        assert_eq!(
            (got.cpu.online, got.cpu.max),
            (want.cpu.online, want.cpu.max)
        );
        assert_eq!(got.cpu.hard_affinity, want.cpu.hard_affinity);
        assert_eq!(
            (got.cpu.weight, got.cpu.cap),
            (want.cpu.weight, want.cpu.cap)
        );
        assert_eq!(got.cpu.tsc_mode, want.cpu.tsc_mode);
    }
}

#[test]
fn the_stub_that_stock_keeps_of_dom0_is_readable() {
    let stub = json::parse_userdata(text("userdata/0.json").as_bytes()).unwrap();
    let dom0 = json::read(&stub).unwrap();
    assert_eq!((dom0.name.as_str(), dom0.uuid), ("", Uuid::nil()));
}

#[test]
fn reading_and_writing_a_created_form_changes_nothing() {
    for name in ["pv", "pvh", "minimal", "hvm"] {
        let conf = XlConf::default();
        let config = config(&format!("create-n/{name}.cfg"));
        let written = json::domain_config(&config, &conf, Moment::Created);
        let read = json::read(&written).unwrap();
        let again = json::domain_config(&read, &conf, Moment::Created);
        assert_same(name, &again.to_string(), &written.to_string());
        assert_eq!(json::read(&again).unwrap(), read, "{name}");
    }
}

#[test]
fn malformed_forms_are_refused_by_the_name_of_the_member() {
    let cases = [
        ("", "not JSON"),
        ("[]", "`(whole)'"),
        ("{}", "`c_info'"),
        (r#"{"c_info":{},"b_info":{}}"#, "`c_info.type'"),
        (r#"{"c_info":{"type":"pw"},"b_info":{}}"#, "`c_info.type'"),
        (
            r#"{"c_info":{"type":"pv","uuid":"x"},"b_info":{}}"#,
            "`c_info.uuid'",
        ),
        (
            r#"{"c_info":{"type":"pv"},"b_info":{"max_memkb":-1}}"#,
            "`b_info.max_memkb'",
        ),
        (
            r#"{"c_info":{"type":"pv"},"b_info":{},"disks":[{}]}"#,
            "`disks[0].vdev'",
        ),
        (
            r#"{"c_info":{"type":"pv"},"b_info":{},"nics":[{},{"mac":"x"}]}"#,
            "`nics[1].mac'",
        ),
        (r#"{"c_info":{"type":"pv"},"b_info":{},"nics":3}"#, "`nics'"),
        (
            r#"{"c_info":{"type":"pv"},"b_info":{},"on_crash":"explode"}"#,
            "`on_crash'",
        ),
        (r#"{"a":1.5}"#, "not JSON"),
    ];
    for (text, want) in cases {
        let read = json::parse_userdata(text.as_bytes()).and_then(|form| json::read(&form));
        let error: ReadError = read.unwrap_err();
        assert!(error.to_string().contains(want), "{text}: {error}");
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let deep = "[".repeat(100_000);
    assert!(matches!(
        json::parse_userdata(deep.as_bytes()),
        Err(ReadError::NotJson(_))
    ));
}

#[test]
fn what_is_live_wins_over_what_is_stored() {
    let config = config("create-n/everything.cfg");
    let stored = json::domain_config(&config, &XlConf::default(), Moment::Created);
    let live = Live {
        uuid: Some(Uuid::from_u128(7)),
        name: Some("now".into()),
        online_vcpus: Some([0, 2].into()),
        vifs: Some([5].into()),
        disks: Some([].into()),
        ..live(9, None, 262_144, 98_304, (512, 50))
    };
    let text = json::long_list([(stored, live)]);
    let squeezed: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for want in [
        "\"domid\": 9, \"config\": {",
        "\"name\": \"now\", \"domid\": 4294967295, \"uuid\": \"00000000-0000-0000-0000-000000000007\"",
        "\"max_vcpus\": 3, \"avail_vcpus\": [ 0, 2 ], \"vcpu_hard_affinity\"",
        "\"max_memkb\": 262144, \"target_memkb\": 102400, \"video_memkb\": 4096",
        "\"sched_params\": { \"sched\": \"credit2\", \"weight\": 512, \"cap\": 50 }",
        "\"nics\": [ { \"backend_domname\": \"dom0\", \"devid\": 5,",
    ] {
        assert!(squeezed.contains(want), "{want}\n{text}");
    }
    assert!(!squeezed.contains("\"disks\""), "{text}");
}
