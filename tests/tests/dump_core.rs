//! Dumps of ours hold what stock's hold (PV), and a guest of either kind that crashes leaves one behind.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::stock::{self, Guest, Kind};

/// Reads dumps by ELF's section headers, as any reader does, in dom0: they are too large for the lab's line. Says for each what it holds, and with two
/// whether they are the same, pages being compared by their hashes and the words that name them.
const READER: &str = r#"
import mmap, struct, sys

def read(path):
    file = open(path, "rb")
    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    table, = struct.unpack_from("<Q", data, 40)
    each, count, names = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQ", data, table + n * each) for n in range(count)]
    text = bytes(data[heads[names][4]:][:heads[names][5]])
    parts = {text[h[0]:text.index(b"\0", h[0])].decode(): data[h[4]:h[4] + h[5]] for h in heads}
    pages = parts.pop(".xen_pages")
    width = 16 if ".xen_p2m" in parts else 8
    list = parts.pop(".xen_p2m", None) or parts.pop(".xen_pfn")
    for other in ("", ".shstrtab"):
        parts.pop(other)
    named = {bytes(list[n * width:][:width]): hash(bytes(pages[n * 4096:][:4096])) for n in range(len(list) // width)}
    return parts, named

cores = [read(path) for path in sys.argv[1:]]
for parts, pages in cores:
    print(sorted(parts), len(pages), "pages")
if len(cores) == 2:
    (ours, mine), (stock, theirs) = cores
    for name in set(ours) | set(stock):
        assert bytes(ours.get(name, b"")) == bytes(stock.get(name, b"")), name + " differs"
    assert set(mine) == set(theirs), "other pages: %d and %d" % (len(set(mine) - set(theirs)), len(set(theirs) - set(mine)))
    changed = [name.hex() for name in mine if mine[name] != theirs[name]]
    assert not changed, "pages differ: %s" % changed[:8]
"#;

#[test]
fn a_dump_is_what_stock_writes_and_a_crash_leaves_one() -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        for kind in [Kind::Pv, Kind::Pvh] {
            let guest = Guest::bare("dumped", kind);
            product::create(host, &guest, "on_crash=\"coredump-restart\"\n")?;
            host.guest("dumped").wait_up()?;
            // Of a PVH guest, stock tries every page number below 4 GiB one by one, which takes the lab minutes.
            if kind == Kind::Pv {
                compare(host)?;
            }
            crash(host)?;
            host.ok(&[XL, "destroy", "dumped"])?;
            product::gone(host, "dumped")?;
            host.sh(&format!(
                "rm -rf /var/lib/xen/dump/dumped {}",
                guest.config_path()
            ))?;
        }
        host.sh("rmdir /var/lib/xen/dump || true")?;
        product::clean(host)
    })
}

/// Paused, both tools see the same guest.
fn compare(host: &Host) -> Result<()> {
    host.ok(&[XL, "pause", "dumped"])?;
    host.ok(&[stock::XL, "dump-core", "dumped", "/tmp/stock.core"])?;
    host.ok(&[XL, "dump-core", "dumped", "/tmp/ours.core"])?;
    host.ok(&[XL, "unpause", "dumped"])?;
    host.ok(&["python3", "-c", READER, "/tmp/ours.core", "/tmp/stock.core"])?;
    host.sh("rm /tmp/ours.core /tmp/stock.core").map(drop)
}

/// The guest is back, and what it was lies in a file.
fn crash(host: &Host) -> Result<()> {
    let before = host.guest("dumped").domid()?;
    host.ok(&[XL, "sysrq", "dumped", "c"])?;
    host.wait_until(
        &format!("n=$({XL} domid dumped 2>/dev/null) && [ \"$n\" != {before} ]"),
        deadline::GUEST_BOOT,
    )?;
    host.guest("dumped").wait_up()?;
    let said = host.ok(&["python3", "-c", READER, "/var/lib/xen/dump/dumped"])?;
    let pages = said.split_whitespace().rev().nth(1);
    let pages: u32 = pages.and_then(|word| word.parse().ok()).unwrap_or(0);
    ensure!(pages > 30_000, "{said}");
    Ok(())
}
