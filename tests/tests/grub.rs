//! Debian's GRUB for Xen is a guest of its own: its frontends poll, keep one request in flight, and give the disk back to the kernel that
//! they loaded from it. The PV build talks the 64-bit ring protocol, the PVH build the 32-bit one.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use stack_tests::product;
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::stock::{Guest, Kind};

/// What GRUB finds on the guest's disk.
const MENU: &str =
    "linux ($root)/boot/vmlinuz console=hvc0 quiet from-grub\ninitrd ($root)/boot/initrd\nboot\n";
/// The tree that becomes the guest's disk.
const TREE: &str = "/tmp/grub";

/// Fills the tree with what both guests need.
fn prepare(host: &Host) -> Result<()> {
    host.sh(&format!(
        "mkdir -p {TREE}/boot/grub; cp /lab/guest/vmlinuz /lab/guest/initrd {TREE}/boot/"
    ))?;
    host.write(
        &format!("{TREE}/boot/grub/grub.cfg"),
        MENU.as_bytes(),
        0o644,
    )
}

/// A field of the header of Linux' bzImage (Documentation/arch/x86/boot.rst).
fn field(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image.get(at..at + 4).context("a kernel cut short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
}

/// GRUB unpacks kernels of PV guests itself and knows gzip, but not Debian's zstd: the same kernel in another wrapping.
fn rewrap_with_gzip(host: &Host) -> Result<()> {
    let mut image = host.read("/lab/guest/vmlinuz")?;
    let setup = (field(&image, 0x1f1)? % 256 + 1) * 512;
    let (from, length) = (setup + field(&image, 0x248)?, field(&image, 0x24c)?);
    // Four bytes behind the frame tell the unpacked size.
    let frame = image
        .get(from..from + length - 4)
        .context("a kernel without a payload")?;
    let kernel = zstd::decode_all(frame)?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&kernel)?;
    let payload = packer.finish()?;
    image.truncate(setup);
    let place = [(0x248, 0), (0x24c, u32::try_from(payload.len())?)];
    for (at, value) in place {
        let field = image.get_mut(at..at + 4).context("a header cut short")?;
        field.copy_from_slice(&value.to_le_bytes());
    }
    image.extend(payload);
    host.write(&format!("{TREE}/boot/vmlinuz"), &image, 0o644)
}

/// Boots a guest whose kernel is known only to its own disk.
fn boots_by_itself(host: &Host, name: &str, kind: Kind, loader: &str) -> Result<()> {
    let guest = Guest::minimal(name, kind, 31);
    host.sh(&format!("mke2fs -q -t ext4 -d {TREE} {} 64M", guest.disk()))?;
    let kind = match kind {
        Kind::Pv => "",
        Kind::Pvh => "type=\"pvh\"\ntsc_mode=\"native\"\n",
    };
    let config = format!(
        "name=\"{name}\"\nkernel=\"/usr/lib/grub-xen/{loader}\"\nmemory=256\ndisk=[\"{},raw,xvda,rw\"]\n{kind}",
        guest.disk()
    );
    host.write(&guest.config_path(), config.as_bytes(), 0o644)?;
    host.ok(&[product::XL, "create", "-q", &guest.config_path()])?;
    // GRUB reads the console, too: nothing is typed before Linux is there.
    host.wait_until(
        &format!("grep LAB-GUEST-UP /var/log/parapet/console-{name}.log"),
        deadline::GUEST_BOOT,
    )?;
    let inside = host.guest(name);
    let line = inside.sh("cat /proc/cmdline")?;
    ensure!(line.contains("from-grub"), "{name} was started by: {line}");
    let read = inside.sh(
        "mount -t ext4 /dev/xvda /mnt && sha256sum < /mnt/boot/vmlinuz && touch /mnt/written && umount /mnt",
    )?;
    let written = host.sh(&format!("sha256sum < {TREE}/boot/vmlinuz"))?;
    ensure!(
        read == written,
        "{name} reads {read}, written was {written}"
    );
    product::destroy(host, &guest)
}

#[test]
fn grub_loads_a_kernel_from_the_guests_disk_and_hands_the_disk_over() -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        prepare(host)?;
        boots_by_itself(host, "grub-pvh", Kind::Pvh, "grub-i386-xen_pvh.bin")?;
        rewrap_with_gzip(host)?;
        boots_by_itself(host, "grub-pv", Kind::Pv, "grub-x86_64-xen.bin")?;
        host.sh(&format!("rm -rf {TREE}"))?;
        product::clean(host)
    })
}
