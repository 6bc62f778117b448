//! Disk and interface specifications: the forms that xl's manual pages describe and that real clients write.

use dom0_agent::config::disk::{DiskBackend, DiskFormat, DiskSpec, parse_disk};
use dom0_agent::config::vif::{Mac, VifDefaults, VifError, VifKind, VifSpec, apply, parameters};
use dom0_agent::format::json;
use proptest::prelude::*;

/// The members of a disk's JSON form, in one line.
fn disk(specs: &[&str]) -> Result<String, String> {
    let disk = parse_disk("S", specs).map_err(|e| e.to_string())?;
    Ok(one_line(&json::disk_dry_run(&disk), "disk: "))
}

fn one_line(text: &str, prefix: &str) -> String {
    let body = text
        .strip_prefix(prefix)
        .unwrap_or_else(|| panic!("{text}"));
    assert!(
        body.ends_with("}\n\n"),
        "stock ends with an empty line: {text:?}"
    );
    let words: Vec<&str> = body.split_whitespace().collect();
    let joined = words.join(" ");
    joined
        .trim_start_matches("{ ")
        .trim_end_matches(" }")
        .replace('"', "")
}

/// Specifications, all meaning the same, and what they mean.
const DISKS: &[(&[&[&str]], &str)] = &[
    (
        &[
            &["/dev/vg/guest-volume,,hda"],
            &["/dev/vg/guest-volume,raw,hda,rw"],
            &["format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume"],
            &[
                "format=raw",
                "vdev=hda",
                "access=rw",
                "target=/dev/vg/guest-volume",
            ],
            &["raw:/dev/vg/guest-volume,hda,w"],
            &["phy:/dev/vg/guest-volume,hda,w"],
            &["/dev/vg/guest-volume,raw,hda"],
            &["vdev=hda,/dev/vg/guest-volume"],
            &["file:/dev/vg/guest-volume,hda,"],
            &["tap:aio:/dev/vg/guest-volume,hda,rw"],
            &["tap2:tapdisk:aio:/dev/vg/guest-volume,hda,rw"],
            &["/dev/vg/guest-volume,,hda,,devtype=disk"],
            &["phy:/dev/vg/guest-volume,hda:disk,w"],
        ],
        "pdev_path: /dev/vg/guest-volume, vdev: hda, format: raw, readwrite: 1",
    ),
    (
        &[
            &["/root/image.iso,,hdc,cdrom"],
            &["/root/image.iso,,hdc,,cdrom"],
            &["/root/image.iso,raw,hdc,devtype=cdrom"],
            &["format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso"],
            &["raw:/root/image.iso,hdc:cdrom,ro"],
            &["cdrom,vdev=hdc,target=/root/image.iso"],
        ],
        "pdev_path: /root/image.iso, vdev: hdc, format: raw, removable: 1, is_cdrom: 1",
    ),
    (
        &[&["backendtype=phy,vdev=xvdb,access=w,target=/dev/vg/guest-volume"]],
        "pdev_path: /dev/vg/guest-volume, vdev: xvdb, backend: phy, format: raw, readwrite: 1",
    ),
    (
        &[
            &["devtype=cdrom,,,hdc"],
            &[",,hdc:cdrom,r"],
            &[",hdc:cdrom,r"],
            &["vdev=hdc,access=r,devtype=cdrom,target="],
            &[",empty,hdc:cdrom,r"],
        ],
        "pdev_path: , vdev: hdc, format: empty, removable: 1, is_cdrom: 1",
    ),
    (
        &[
            &["vdev=hdc,access=r,devtype=cdrom,format=empty"],
            &["vdev=hdc,access=r,devtype=cdrom"],
        ],
        "vdev: hdc, format: empty, removable: 1, is_cdrom: 1",
    ),
    (
        &[
            &["iscsi:iqn.2001-05.com.equallogic:0-8a,xvda,w"],
            &["vdev=xvda,access=w,script=block-iscsi,target=iqn.2001-05.com.equallogic:0-8a"],
        ],
        "pdev_path: iqn.2001-05.com.equallogic:0-8a, vdev: xvda, format: raw, \
         script: block-iscsi, readwrite: 1",
    ),
    (
        &[&["drbd:app01,hda,w"]],
        "pdev_path: app01, vdev: hda, format: raw, script: block-drbd, readwrite: 1",
    ),
    (
        &[
            &["qcow2:/c,xvda,w"],
            &["/c,qcow2,xvda"],
            &["/c, qcow2,\txvda, w"],
        ],
        "pdev_path: /c, vdev: xvda, format: qcow2, readwrite: 1",
    ),
    (
        &[&["vhd:/v,xvda"]],
        "pdev_path: /v, vdev: xvda, format: vhd, readwrite: 1",
    ),
    (
        &[&["/q,qed,xvda,r"]],
        "pdev_path: /q, vdev: xvda, format: qed",
    ),
    (
        &[&["discard", "vdev=hda", "target=/some/disk/image.raw"]],
        "pdev_path: /some/disk/image.raw, vdev: hda, format: raw, readwrite: 1, \
         discard_enable: True",
    ),
    (
        &[&[
            "cdrom",
            "no-discard",
            "vdev=hda",
            "target=/some/disk/image.iso",
        ]],
        "pdev_path: /some/disk/image.iso, vdev: hda, format: raw, removable: 1, is_cdrom: 1, \
         discard_enable: False",
    ),
    (
        &[&["trusted", "vdev=hda", "target=/d"], &["/d,,hda,trusted"]],
        "pdev_path: /d, vdev: hda, format: raw, readwrite: 1, trusted: True",
    ),
    (
        &[&["untrusted,vdev=hda,target=/d"]],
        "pdev_path: /d, vdev: hda, format: raw, readwrite: 1, trusted: False",
    ),
    (
        &[&["direct-io-safe,grant_usage=0,specification=virtio,backend=dd,/d,,xvda"]],
        "backend_domname: dd, pdev_path: /d, vdev: xvda, format: raw, readwrite: 1, \
         direct_io_safe: true, specification: virtio, grant_usage: False",
    ),
    (
        &[&["vdev=xvda,target=/with,comma=and=equals,"]],
        "pdev_path: /with,comma=and=equals, vdev: xvda, format: raw, readwrite: 1",
    ),
    (
        &[&["/d,,xvda,colo,colo-host=h,colo-port=9000,colo-export=e,active-disk=a,hidden-disk=b"]],
        "pdev_path: /d, vdev: xvda, format: raw, readwrite: 1, colo_enable: True, colo_host: h, \
         colo_port: 9000, colo_export: e, active_disk: a, hidden_disk: b",
    ),
];

#[test]
fn every_form_of_a_disk_means_what_it_means() {
    for (forms, want) in DISKS {
        for specs in *forms {
            assert_eq!(disk(specs).as_deref(), Ok(*want), "{specs:?}");
        }
    }
}

#[test]
fn wrong_disks_are_refused_in_stock_wording() {
    let cases = [
        ("foo", "no vdev specified in `foo'"),
        ("", "no vdev specified in `'"),
        (
            "vdev=xvda",
            "no target specified (and device not removable) in `vdev=xvda'",
        ),
        (
            "/d,foo,xvda",
            "unknown value for format: near `foo' in `/d,foo,xvda'",
        ),
        (
            "/d,,xvda,x",
            "unknown value for access: near `x' in `/d,,xvda,x'",
        ),
        (
            "/d,,xvda,w,x",
            "too many positional parameters: near `x' in `/d,,xvda,w,x'",
        ),
        (
            "/d,,xvda,vdev=xvdb",
            "vdev respecified: near `xvdb' in `/d,,xvda,vdev=xvdb'",
        ),
        (
            "/d,raw,xvda,format=vhd",
            "format respecified: near `vhd' in `/d,raw,xvda,format=vhd'",
        ),
        (
            "backend=a,backend=b,/d,,xvda",
            "backend respecified: near `b' in `backend=a,backend=b,/d,,xvda'",
        ),
        (
            "backendtype=x,/d,,xvda",
            "unknown value for backendtype: near `x' in `backendtype=x,/d,,xvda'",
        ),
        (
            "devtype=x,/d,,xvda",
            "unknown value for type: near `devtype=x,' in `devtype=x,/d,,xvda'",
        ),
        (
            "wombat=3,/d,,xvda",
            "unknown parameter: near `wombat=3,' in `wombat=3,/d,,xvda'",
        ),
        (
            "wombat:/d,,xvda",
            "unknown deprecated disk prefix: near `wombat:' in `wombat:/d,,xvda'",
        ),
        (
            "phy:/d,hda:floppy,w",
            "unknown deprecated type: near `floppy' in `phy:/d,hda:floppy,w'",
        ),
        (
            "/d,,xvda,specification=x",
            "unknown value for specification: near `x' in `/d,,xvda,specification=x'",
        ),
        ("=x", "bad disk syntax: near `=x' in `=x'"),
        (
            "/d,,xvda,colo-port=x",
            "unknown value for colo_port: near `x' in `/d,,xvda,colo-port=x'",
        ),
    ];
    for (spec, want) in cases {
        let want = format!("S: config parsing error in disk specification: {want}");
        assert_eq!(disk(&[spec]), Err(want), "{spec:?}");
    }
    let two = disk(&["format=x,access=y,vdev=xvda,target=/d"]).unwrap_err();
    assert_eq!(two.lines().count(), 2, "{two}");
}

#[test]
fn the_fields_of_a_disk_are_set() {
    let want = DiskSpec {
        target: Some("/d".into()),
        vdev: "xvda".into(),
        format: DiskFormat::Qcow2,
        backend: DiskBackend::Qdisk,
        ..DiskSpec::default()
    };
    assert_eq!(
        parse_disk("S", &["backendtype=qdisk,/d,qcow2,xvda,r"]),
        Ok(want)
    );
}

/// An interface from parameters as `network-attach` gets them.
fn vif(parameters: &[&str]) -> Result<VifSpec, VifError> {
    let mut vif = VifSpec::default();
    for parameter in parameters {
        apply(&mut vif, parameter, "S")?;
    }
    Ok(vif)
}

#[test]
fn interfaces_print_as_in_stock() {
    let cases: [(&[&str], &str); 6] = [
        (
            &["rate=16Kb/s@50ms"],
            "rate_bytes_per_interval: 100, rate_interval_usecs: 50000",
        ),
        (&["trusted"], "trusted: True"),
        (&["untrusted"], "trusted: False"),
        (
            &["mac=0:16:3E:a:b:cc", "bridge=br0"],
            "mac: 00:16:3e:0a:0b:cc, bridge: br0",
        ),
        (
            &["type=ioemu", "model=e1000"],
            "model: e1000, nictype: vif_ioemu",
        ),
        (
            &[
                "netdev=eth0",
                "forwarddev=e",
                "colo_checkpoint_port=1",
                "devid=3",
            ],
            "devid: 3, gatewaydev: eth0, coloft_forwarddev: e, colo_checkpoint_port: 1",
        ),
    ];
    for (parameters, want) in cases {
        let vif = vif(parameters).unwrap();
        assert_eq!(
            one_line(&json::vif_dry_run(&vif), "vif: "),
            want,
            "{parameters:?}"
        );
    }
}

#[test]
fn wrong_interfaces_are_refused_in_stock_wording() {
    let cases = [
        ("foo", "unrecognized argument `foo'"),
        ("wombat=1", "unrecognized argument `wombat=1'"),
        ("mac=xx:16:3e:00:00:00", "Invalid parameter `mac'."),
        ("mac=00:16:3e:00:00:100", "Invalid parameter `mac'."),
        ("mac=00:16:3e:00:00", "Invalid parameter `mac'."),
        ("mac=00:16:3e:00:00:00:00", "Invalid parameter `mac'."),
        ("type=pcnet", "Invalid parameter `type'."),
        ("devid=x", "xl: failed to convert \"x\" to number"),
        ("mtu=", "xl: failed to convert \"\" to number"),
        (
            "rate=@",
            "S: config parsing error in vif: no rate specified in `@'",
        ),
    ];
    for (parameter, want) in cases {
        assert_eq!(
            vif(&[parameter]).map_err(|e| e.to_string()),
            Err(want.into()),
            "{parameter}"
        );
    }
}

#[test]
fn host_defaults_hold_until_an_interface_says_otherwise() {
    let host = VifDefaults {
        bridge: Some("xenbr1".into()),
        ..VifDefaults::default()
    };
    let mut vif = host.interface();
    let spec = "mac=00:16:3e:00:00:01, vifname=web, mtu=9000,,ip=10.0.0.1 10.0.0.2";
    for parameter in parameters(spec) {
        apply(&mut vif, parameter, "S").unwrap();
    }
    let want = VifSpec {
        mac: Some(Mac([0, 0x16, 0x3e, 0, 0, 1])),
        bridge: Some("xenbr1".into()),
        ifname: Some("web".into()),
        mtu: Some(9000),
        ip: Some("10.0.0.1 10.0.0.2".into()),
        kind: VifKind::Unknown,
        ..VifSpec::default()
    };
    assert_eq!(vif, want);
}

proptest! {
    #[test]
    fn any_disk_specification_is_answered(spec in "[a-z0-9=:,/ -]{0,60}") {
        let _ = parse_disk("S", &[&spec]);
    }

    #[test]
    fn any_text_as_a_disk_is_answered(spec in any::<String>()) {
        let _ = parse_disk("S", &[&spec]);
    }

    #[test]
    fn what_a_disk_is_made_of_comes_back(
        path in "/[a-z0-9/._-]{1,30}",
        vdev in "xvd[a-z]{1,2}[1-9]?",
        format in prop::sample::select(vec!["raw", "qcow", "qcow2", "vhd", "qed"]),
        writable: bool,
    ) {
        let access = if writable { "rw" } else { "ro" };
        let named = format!("format={format}, vdev={vdev}, access={access}, target={path}");
        let positional = format!("{path},{format},{vdev},{access}");
        let disk = parse_disk("S", &[&named]).unwrap();
        let same = parse_disk("S", &[&positional]).unwrap();
        prop_assert_eq!(&same, &disk);
        prop_assert_eq!(disk.target.as_deref(), Some(path.as_str()));
        prop_assert_eq!((disk.vdev.as_str(), disk.writable), (vdev.as_str(), writable));
    }

    #[test]
    fn any_interface_parameter_is_answered(text in "[a-z_]{0,10}=?[0-9a-zA-Z:/@,]{0,20}") {
        let mut vif = VifSpec::default();
        for parameter in parameters(&text) {
            let _ = apply(&mut vif, parameter, "S");
        }
    }

    #[test]
    fn a_mac_address_reads_back(bytes: [u8; 6]) {
        prop_assert_eq!(Mac::parse(&Mac(bytes).to_string()), Some(Mac(bytes)));
    }
}
