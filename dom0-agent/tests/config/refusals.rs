//! Configurations that cannot be used: the last line that is said, and the exit code. Where stock refuses too, line and
//! code are its own, compared in a real dom0.

use crate::domain::try_load;

/// A configuration and the last line of what is said when it is refused, with the exit code.
const REFUSALS: &[(&str, &str, u8)] = &[
    ("", "Domain name must be specified.", 1),
    ("name=''\nkernel='k'", "Domain name must be specified.", 1),
    (
        "name=['x']\nkernel='k'",
        "Domain name must be specified.",
        1,
    ),
    ("name='g'", "Neither kernel nor bootloader specified", 1),
    ("type='x'", "Invalid domain type x.", 1),
    ("builder='linux'", "Invalid domain type linux.", 1),
    (
        "type='pv'\nbuilder='hvm'",
        "Contradicting \"builder\" and \"type\" options specified.",
        1,
    ),
    ("name='g'\nuuid='x'", "Failed to parse UUID: x", 1),
    (
        "name='g'\nuuid='11111111222233334444555555555555'",
        "Failed to parse UUID: 11111111222233334444555555555555",
        1,
    ),
    (
        "name='g'\nkernel='k'\nfirmware='pvgrub64'",
        "ERROR: both kernel and firmware specified",
        1,
    ),
    (
        "name='g'\nfirmware='uefi'",
        "ERROR: only pvgrub{32|64} supported as firmware options",
        1,
    ),
    (
        "name='g'\nkernel='k'\nvcpus=4\nmaxvcpus=2",
        "xl: maxvcpus < vcpus",
        1,
    ),
    (
        "name='g'\nkernel='k'\nvcpus=0",
        "xl: vcpus=0 is not between 1 and 8192",
        1,
    ),
    (
        "name='g'\nkernel='k'\nmemory='-1'",
        "xl: memory=-1 is not between 1 and 67108864 MiB",
        1,
    ),
    (
        "name='g'\nkernel='k'\nmemory=64\nmaxmem=32",
        "xl: maxmem=32 is less than memory=64 (both in MiB)",
        1,
    ),
    (
        "name='g'\nkernel='k'\ncpu_weight=65536",
        "xl: cpu_weight=65536 is not between 0 and 65535",
        1,
    ),
    (
        "name='g'\nkernel='k'\ncpus='x'",
        "Invalid pcpu range: x.",
        1,
    ),
    (
        "name='g'\nkernel='k'\ncpus='^0'",
        "vcpu hard affinity map is empty",
        1,
    ),
    (
        "name='g'\nkernel='k'\non_crash='explode'",
        "Unknown on_crash action \"explode\" specified",
        1,
    ),
    (
        "name='g'\nkernel='k'\non_reboot='soft_reset'",
        "Unknown on_reboot action \"soft_reset\" specified",
        1,
    ),
    (
        "name='g'\nkernel='k'\ntsc_mode='x'",
        "ERROR: invalid value \"x\" for \"tsc_mode\"",
        1,
    ),
    (
        "name='g'\nkernel='k'\ntsc_mode=7",
        "ERROR: invalid value 7 for \"tsc_mode\"",
        1,
    ),
    (
        "name='g'\nkernel='k'\ntimer_mode=1",
        "ERROR: \"timer_mode\" option is not supported for PV guests.",
        3,
    ),
    (
        "name='g'\nkernel='k'\npassthrough='x'",
        "ERROR: unknown passthrough option 'x'",
        1,
    ),
    (
        "name='g'\nkernel='k'\npci=['x']",
        "unable to parse PCI_SPEC_STRING `x' for passthrough",
        6,
    ),
    (
        "name='g'\ntype='hvm'\nvga='x'",
        "Unknown vga \"x\" specified",
        1,
    ),
    (
        "name='g'\ntype='hvm'\nvendor_device='x'",
        "xl: unknown vendor_device 'x'",
        3,
    ),
    (
        "name='g'\nkernel='k'\ndisk=['/d,,xvda', 'foo']",
        "x.cfg: config parsing error in disk specification: no vdev specified in `foo'",
        1,
    ),
    (
        "name='g'\nkernel='k'\nvif=['rate=foo']",
        "x.cfg: config parsing error in vif: invalid rate in `foo'",
        1,
    ),
    (
        "name='g'\nkernel='k'\nvif=['devid=x']",
        "xl: failed to convert \"x\" to number",
        1,
    ),
    (
        "name='g'\nkernel='k'\nprotect='most'",
        "Unknown protect class \"most\" specified; it is one of none, restart, failover, continuous",
        1,
    ),
    (
        "name='g'\nkernel='k'\nprotect_probe=['udp:x']",
        "protect_probe: \"udp:x\" is none of tcp:ADDR:PORT, http://..., ping:ADDR",
        1,
    ),
    ("name=foo\n", "Failed to parse config: Invalid argument", 1),
    (
        "name='g'\nkernel='k'\nirqs=['5','x']",
        "xl: Invalid argument parsing irq: x",
        1,
    ),
    (
        "name='g'\nkernel='k'\nioports=['3ff-3f8']",
        "xl: Invalid argument parsing ioport: 3ff-3f8",
        1,
    ),
    (
        "name='g'\nkernel='k'\niomem=['x']",
        "xl: Invalid argument parsing iomem: x",
        1,
    ),
    (
        "name='g'\nkernel='k'\nmax_grant_frames='-1'",
        "xl: max_grant_frames=-1 is not a number of 0 or more",
        1,
    ),
];

#[test]
fn what_cannot_be_used_is_refused_in_stock_wording() {
    for (text, want, code) in REFUSALS {
        let error = try_load(text).map(|l| l.config).unwrap_err();
        assert_eq!(error.to_string().lines().last(), Some(*want), "{text:?}");
        assert_eq!(error.exit_code, *code, "{text:?}");
        assert!(error.report.has_errors());
    }
}

#[test]
fn a_refusal_keeps_what_was_said_before_it() {
    let error = try_load("name='g'\nmemory=['x']\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.cfg:2: warning: parameter `memory' is a list but should be a single value\n\
         Neither kernel nor bootloader specified"
    );
}
