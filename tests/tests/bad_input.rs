//! Bad input on a real host: one clear message that names the cause, stock's exit code, nothing left behind.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::leaks::Inventory;
use stack_tests::rig::{Host, Shape, nested};

/// What is wrong, how to make it so in dom0, the configuration, the exit code, and words the message must hold.
struct Case {
    what: &'static str,
    before: &'static str,
    config: &'static str,
    code: i32,
    words: &'static [&'static str],
}

const GOOD: &str = "kernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd\"\nmemory=128\n";

const CASES: &[Case] = &[
    Case {
        what: "missing kernel",
        before: "",
        config: "name=\"x\"\nkernel=\"/no/such\"\nmemory=64\n",
        code: 3,
        words: &["/no/such"],
    },
    Case {
        what: "corrupt kernel",
        before: "dd if=/dev/urandom of=/tmp/junk bs=64k count=4 2>/dev/null",
        config: "name=\"x\"\nkernel=\"/tmp/junk\"\nmemory=64\n",
        code: 3,
        words: &["/tmp/junk"],
    },
    Case {
        what: "truncated kernel",
        before: "head -c 5000000 /lab/guest/vmlinuz > /tmp/short",
        config: "name=\"x\"\nkernel=\"/tmp/short\"\nmemory=128\n",
        code: 3,
        words: &["/tmp/short", "zstd"],
    },
    Case {
        what: "missing ramdisk",
        before: "",
        config: "name=\"x\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/no/rd\"\nmemory=128\n",
        code: 3,
        words: &["/no/rd"],
    },
    Case {
        what: "corrupt ramdisk",
        before: "dd if=/dev/urandom of=/tmp/junk bs=64k count=4 2>/dev/null; printf junk | dd of=/tmp/junk conv=notrunc 2>/dev/null",
        config: "name=\"x\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/tmp/junk\"\nmemory=128\n",
        code: 3,
        words: &["initrd /tmp/junk is not a ramdisk", "byte 0"],
    },
    Case {
        what: "truncated ramdisk",
        before: "head -c 300000 /lab/guest/initrd > /tmp/short",
        config: "name=\"x\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/tmp/short\"\nmemory=128\n",
        code: 3,
        words: &["initrd /tmp/short is cut short", "cpio"],
    },
    Case {
        what: "not enough memory",
        before: "",
        config: "GOOD\nname=\"x\"\nmemory=900000\n",
        code: 3,
        words: &["not enough memory", "MiB"],
    },
    Case {
        what: "syntax",
        before: "",
        config: "name=\"x\"\nmemory==64\n",
        code: 1,
        words: &["/tmp/bad.cfg:2:", "column"],
    },
    Case {
        what: "disk specification",
        before: "",
        config: "GOOD\nname=\"x\"\ndisk=[\"/tmp/a,raw\"]\n",
        code: 1,
        words: &["no vdev specified"],
    },
    Case {
        what: "missing image",
        before: "",
        config: "GOOD\nname=\"x\"\ndisk=[\"/no/image,raw,xvda,rw\"]\n",
        code: 3,
        words: &["/no/image", "does not exist"],
    },
    Case {
        what: "read-only image",
        before: "truncate -s 1M /tmp/ro; chmod 444 /tmp/ro",
        config: "GOOD\nname=\"x\"\ndisk=[\"/tmp/ro,raw,xvda,rw\"]\n",
        code: 3,
        words: &["/tmp/ro", "read-only"],
    },
    Case {
        what: "missing bridge",
        before: "",
        config: "GOOD\nname=\"x\"\nvif=[\"bridge=nobr\"]\n",
        code: 3,
        words: &["nobr", "does not exist"],
    },
    Case {
        what: "name in use",
        before: "",
        config: "GOOD\nname=\"Domain-0\"\n",
        code: 3,
        words: &["Domain-0", "exists"],
    },
];

#[test]
fn each_fault_has_its_message_its_code_and_leaves_nothing() -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        for case in CASES {
            check(host, case)?;
        }
        host.sh("rm -f /tmp/bad.cfg /tmp/junk /tmp/short /tmp/ro")?;
        product::clean(host)
    })
}

fn check(host: &Host, case: &Case) -> Result<()> {
    if !case.before.is_empty() {
        host.sh(case.before)?;
    }
    let config = case.config.replace("GOOD", GOOD);
    host.write("/tmp/bad.cfg", config.as_bytes(), 0o644)?;
    let before = Inventory::of(host)?;
    let output = host.run(&[XL, "create", "/tmp/bad.cfg"])?;
    let said = output.errors();
    ensure!(
        output.code == case.code,
        "{}: exit code {} instead of {}: {said}",
        case.what,
        output.code,
        case.code
    );
    for word in case.words {
        ensure!(
            said.contains(word),
            "{}: `{word}` is not in: {said}",
            case.what
        );
    }
    before.assert_nothing_new(host)
}

#[test]
fn what_is_not_running_is_named() -> Result<()> {
    nested(&Shape::default(), |host| {
        host.mount_product()?;
        host.write(
            "/tmp/bad.cfg",
            format!("name=\"x\"\n{GOOD}").as_bytes(),
            0o644,
        )?;
        let output = host.run(&[XL, "create", "/tmp/bad.cfg"])?;
        ensure!(
            output.code == 1 && output.errors().contains("the agent is not running"),
            "{}",
            output.errors()
        );
        let output = host.run(&[
            "busybox",
            "su",
            "-s",
            "/bin/sh",
            "nobody",
            "-c",
            &format!("{XL} list"),
        ])?;
        ensure!(
            output.code == 1 && output.errors().contains("root"),
            "not root: {} {}",
            output.code,
            output.errors()
        );
        host.sh("rm /tmp/bad.cfg; umount /lab/dist").map(drop)
    })
}
