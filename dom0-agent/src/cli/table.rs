//! Every command of stock xl, of all supported releases: what it is called, what it takes, and who runs it. Help, man page and completions are made from this table.

use super::getopt::{Opt, flag, valued};
use super::reach::Failure;
use super::{
    Call, block, console, create, domain, dump, help, info, lifecycle, list, migrate, network,
    power, save,
};

/// What runs a command; answers its exit code.
pub type Run = fn(&mut Call<'_>) -> Result<u8, Failure>;

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Operands, as help shows them.
    pub usage: &'static str,
    /// Options.
    pub options: &'static [Opt],
    /// One line for each option, as help shows them.
    pub option_help: &'static [(&'static str, &'static str)],
    /// Operands there must be.
    pub least: usize,
    /// Takes `-N`.
    pub dry_run: bool,
    /// `None`: not there yet.
    pub run: Option<Run>,
}

const fn command(name: &'static str, usage: &'static str, summary: &'static str) -> Command {
    Command {
        name,
        summary,
        usage,
        options: &[],
        option_help: &[],
        least: 0,
        dry_run: false,
        run: None,
    }
}

impl Command {
    const fn takes(mut self, least: usize) -> Self {
        self.least = least;
        self
    }

    const fn runs(mut self, run: Run) -> Self {
        self.run = Some(run);
        self
    }

    const fn options(
        mut self,
        options: &'static [Opt],
        option_help: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.options = options;
        self.option_help = option_help;
        self
    }

    const fn dry(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

/// Finds a command by its name or by a prefix that only it has.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static Command> {
    if let Some(exact) = COMMANDS.iter().find(|command| command.name == name) {
        return Some(exact);
    }
    let mut candidates = COMMANDS
        .iter()
        .filter(|command| command.name.starts_with(name));
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

const STOP_OPTIONS: &[Opt] = &[flag('a', "all"), flag('w', "wait"), flag('F', "")];
const STOP_HELP: &[(&str, &str)] = &[
    ("-a, --all", "all guests"),
    (
        "-w, --wait",
        "wait until the guest has shut down; twice: until it is gone",
    ),
    (
        "-F",
        "press the guest's ACPI button where it has no PV drivers",
    ),
];

/// The commands, in the order in which help lists them.
pub static COMMANDS: &[Command] = &[
    command(
        "create",
        "<ConfigFile> [options] [vars]",
        "Create a domain from config file <filename>",
    )
    .options(
        &[
            flag('p', "paused"),
            flag('q', "quiet"),
            flag('c', ""),
            flag('n', "dryrun"),
            flag('F', ""),
            flag('e', ""),
            flag('d', "debug"),
            flag('V', "vncviewer"),
            flag('A', "vncviewer-autopass"),
            flag('i', "ignore-global-affinity-masks"),
            valued('f', "defconfig"),
        ],
        &[
            ("-p, --paused", "leave the new domain paused"),
            ("-q, --quiet", "say less"),
            ("-c", "connect to the console at once"),
            (
                "-n, --dryrun",
                "show the resulting configuration as JSON and do nothing",
            ),
            (
                "-F",
                "stay in the foreground, through restarts, until the guest is gone",
            ),
            ("-e", "let nobody act on the domain's events"),
            ("-d, --debug", "show the resulting configuration on stderr"),
            (
                "-f FILE, --defconfig=FILE",
                "take the configuration from FILE",
            ),
        ],
    )
    .dry()
    .runs(create::run),
    command(
        "config-update",
        "<Domain> <ConfigFile> [options] [vars]",
        "Update a running domain's saved configuration",
    )
    .dry(),
    command(
        "list",
        "[options] [Domain]",
        "List information about all/some domains",
    )
    .options(
        &[
            flag('l', "long"),
            flag('v', "verbose"),
            flag('Z', "context"),
            flag('c', "cpupool"),
            flag('n', "numa"),
        ],
        &[
            ("-l, --long", "whole configuration as JSON"),
            (
                "-v, --verbose",
                "also UUID, shutdown reason and security label",
            ),
            ("-Z, --context", "also security label"),
            ("-c, --cpupool", "also cpupool"),
            ("-n, --numa", "also NUMA node affinity"),
        ],
    )
    .runs(list::list),
    command(
        "destroy",
        "[options] <Domain>",
        "Terminate a domain immediately",
    )
    .options(
        &[flag('f', "force")],
        &[("-f", "allow even dom0 to be named")],
    )
    .takes(1)
    .runs(lifecycle::destroy),
    command(
        "shutdown",
        "[options] <-a|Domain>",
        "Issue a shutdown signal to a domain",
    )
    .options(STOP_OPTIONS, STOP_HELP)
    .runs(power::shutdown),
    command(
        "reboot",
        "[options] <-a|Domain>",
        "Issue a reboot signal to a domain",
    )
    .options(STOP_OPTIONS, STOP_HELP)
    .runs(power::reboot),
    command(
        "pci-attach",
        "<Domain> <PCI_SPEC>",
        "Insert a new pass-through pci device",
    ),
    command(
        "pci-detach",
        "[options] <Domain> <PCI_SPEC>",
        "Remove a domain's pass-through pci device",
    ),
    command(
        "pci-list",
        "<Domain>",
        "List pass-through pci devices for a domain",
    ),
    command(
        "pci-assignable-add",
        "[options] <BDF>",
        "Make a device assignable for pci-passthru",
    ),
    command(
        "pci-assignable-remove",
        "[options] <BDF>",
        "Remove a device from being assignable",
    ),
    command(
        "pci-assignable-list",
        "[options]",
        "List all the assignable pci devices",
    ),
    command("pause", "<Domain>", "Pause execution of a domain")
        .takes(1)
        .runs(lifecycle::pause),
    command("unpause", "<Domain>", "Unpause a paused domain")
        .takes(1)
        .runs(lifecycle::unpause),
    command(
        "console",
        "[options] <Domain>",
        "Attach to domain's console",
    )
    .options(
        &[
            valued('t', "type"),
            valued('n', "num"),
            valued('e', "escape"),
        ],
        &[
            ("-t TYPE", "console type: pv or serial"),
            ("-n NUM", "console number"),
            ("-e CHAR", "escape character (default ^])"),
        ],
    )
    .takes(1)
    .runs(console::run),
    command(
        "vncviewer",
        "[options] <Domain>",
        "Attach to domain's VNC server.",
    ),
    command(
        "save",
        "[options] <Domain> <CheckpointFile> [<ConfigFile>]",
        "Save a domain state to restore later",
    )
    .options(
        &[flag('c', ""), flag('p', ""), flag('D', "")],
        &[
            ("-c", "leave the domain running after saving it"),
            ("-p", "leave the domain paused after saving it"),
            ("-D", "store the domain id in the configuration"),
        ],
    )
    .takes(2)
    .runs(save::save),
    command(
        "migrate",
        "[options] <Domain> <host>",
        "Migrate a domain to another host",
    )
    .options(
        &[
            flag('e', ""),
            valued('C', ""),
            valued('s', ""),
            flag('p', ""),
            flag('D', ""),
            flag('F', ""),
            flag('d', "debug"),
            flag('l', "live"),
            valued('m', "max-downtime"),
        ],
        &[
            (
                "-C <config>",
                "send this configuration instead of the guest's own",
            ),
            (
                "-s <sshcommand>",
                "reach the host by this instead of ssh; empty: <host> is a whole command",
            ),
            ("-e", "nobody acts when it stops there"),
            ("-p", "leave it paused there"),
            ("-D", "keep the domain id there; accepted"),
            ("-F", "the receiver stays; accepted"),
            ("--debug", "send memory twice, to be compared there"),
            ("--live", "the default; accepted"),
            (
                "-m, --max-downtime <ms>",
                "suspend it when the rest of its memory takes this long; default 20",
            ),
        ],
    )
    .takes(2)
    .runs(migrate::migrate),
    command(
        "restore",
        "[options] [<ConfigFile>] <CheckpointFile>",
        "Restore a domain from a saved state",
    )
    .options(
        &[
            flag('F', ""),
            flag('c', ""),
            flag('p', ""),
            flag('d', ""),
            flag('e', ""),
            flag('V', "vncviewer"),
            flag('A', "vncviewer-autopass"),
        ],
        &[
            ("-p", "leave the domain paused after restoring it"),
            ("-c", "attach to its console"),
            ("-e", "do not act when it stops"),
            ("-F", "wait, through restarts, until it is gone"),
            ("-d", "show its configuration"),
            ("-V, --vncviewer", "no display is served; accepted"),
            ("-A, --vncviewer-autopass", "no display is served; accepted"),
        ],
    )
    .takes(1)
    .runs(save::restore),
    command(
        "migrate-receive",
        "- for internal use only",
        "Receive a migrated domain (internal)",
    )
    .options(
        &[
            flag('F', ""),
            flag('e', ""),
            flag('d', ""),
            flag('p', ""),
            flag('r', ""),
        ],
        &[
            ("-p", "leave it paused"),
            ("-e", "nobody acts when it stops"),
            ("-d", "show its configuration"),
            ("-F", "accepted"),
            ("-r", "checkpoints; not there yet"),
        ],
    )
    .runs(migrate::receive),
    command("dump-core", "<Domain> <filename>", "Core dump a domain")
        .takes(2)
        .runs(dump::dump_core),
    command(
        "cd-insert",
        "<Domain> <VirtualDevice> <path>",
        "Insert a cdrom into a guest's cd drive",
    )
    .dry(),
    command(
        "cd-eject",
        "<Domain> <VirtualDevice>",
        "Eject a cdrom from a guest's cd drive",
    )
    .dry(),
    command(
        "mem-max",
        "<Domain> <MemMB>",
        "Set the maximum amount reservation for a domain",
    ),
    command(
        "mem-set",
        "<Domain> <MemMB>",
        "Set the current memory usage for a domain",
    ),
    command(
        "button-press",
        "<Domain> <Button>",
        "Indicate an ACPI button press to the domain",
    ),
    command(
        "vcpu-list",
        "[Domain, ...]",
        "List the VCPUs for all/some domains",
    )
    .runs(list::vcpu_list),
    command(
        "vcpu-pin",
        "[options] <Domain> <VCPU|all> <Hard> [Soft]",
        "Set which CPUs a VCPU can use",
    )
    .dry(),
    command(
        "vcpu-set",
        "[options] <Domain> <vCPUs>",
        "Set the number of active VCPUs allowed for the domain",
    ),
    command(
        "vm-list",
        "",
        "List guest domains, excluding dom0, stubdoms, etc.",
    )
    .runs(list::vm_list),
    command("info", "[options] [key]", "Get information about Xen host")
        .options(
            &[flag('n', "numa")],
            &[("-n, --numa", "also the host's topology")],
        )
        .runs(info::info),
    command("sharing", "[Domain]", "Get information about page sharing"),
    command(
        "sched-credit",
        "[options]",
        "Get/set credit scheduler parameters",
    ),
    command(
        "sched-credit2",
        "[options]",
        "Get/set credit2 scheduler parameters",
    ),
    command(
        "sched-rtds",
        "[options]",
        "Get/set rtds scheduler parameters",
    ),
    command(
        "domid",
        "<DomainName>",
        "Convert a domain name to domain id",
    )
    .takes(1)
    .runs(domain::domid),
    command(
        "domname",
        "<DomainId>",
        "Convert a domain id to domain name",
    )
    .takes(1)
    .runs(domain::domname),
    command("rename", "<Domain> <NewDomainName>", "Rename a domain")
        .takes(2)
        .runs(lifecycle::rename),
    command(
        "trigger",
        "<Domain> <nmi|reset|init|power|sleep|s3resume> [<VCPU>]",
        "Send a trigger to a domain",
    )
    .takes(2)
    .runs(lifecycle::trigger),
    command("sysrq", "<Domain> <letter>", "Send a sysrq to a domain")
        .takes(2)
        .runs(lifecycle::sysrq),
    command("debug-keys", "<Keys>", "Send debug keys to Xen")
        .takes(1)
        .runs(info::debug_keys),
    command("set-parameters", "<Params>", "Set hypervisor parameters"),
    command("dmesg", "[options]", "Read and/or clear dmesg buffer")
        .options(
            &[flag('c', "clear")],
            &[("-c, --clear", "clear the buffer after printing")],
        )
        .runs(info::dmesg),
    command("top", "", "Monitor a host and the domains in real time"),
    command(
        "network-attach",
        "<Domain> [type=<type>] [mac=<mac>] [bridge=<bridge>] [...]",
        "Create a new virtual network device",
    )
    .takes(1)
    .dry()
    .runs(network::attach),
    command(
        "network-list",
        "<Domain(s)>",
        "List virtual network interfaces for a domain",
    )
    .takes(1)
    .runs(network::list),
    command(
        "network-detach",
        "<Domain> <DevId|mac>",
        "Destroy a domain's virtual network device",
    )
    .takes(2)
    .runs(network::detach),
    command(
        "channel-list",
        "<Domain(s)>",
        "List virtual channel devices for a domain",
    ),
    command(
        "block-attach",
        "<Domain> <disk-spec-component(s)>...",
        "Create a new virtual block device",
    )
    .takes(2)
    .dry()
    .runs(block::attach),
    command(
        "block-list",
        "<Domain(s)>",
        "List virtual block devices for a domain",
    )
    .takes(1)
    .runs(block::list),
    command(
        "block-detach",
        "[options] <Domain> <DevId>",
        "Destroy a domain's virtual block device",
    )
    .options(
        &[flag('f', "force")],
        &[("-f, --force", "do not wait for the guest's consent")],
    )
    .takes(2)
    .runs(block::detach),
    command(
        "vtpm-attach",
        "<Domain> [uuid=<uuid>] [backend=<BackDomain>]",
        "Create a new virtual TPM device",
    )
    .dry(),
    command(
        "vtpm-list",
        "<Domain(s)>",
        "List virtual TPM devices for a domain",
    ),
    command(
        "vtpm-detach",
        "<Domain> <DevId|uuid>",
        "Destroy a domain's virtual TPM device",
    ),
    command(
        "vkb-attach",
        "<Domain> [...]",
        "Create a new virtual keyboard device",
    )
    .dry(),
    command(
        "vkb-list",
        "<Domain(s)>",
        "List virtual keyboard devices for a domain",
    ),
    command(
        "vkb-detach",
        "<Domain> <DevId>",
        "Destroy a domain's virtual keyboard device",
    ),
    command(
        "vdispl-attach",
        "<Domain> [...]",
        "Create a new virtual display device",
    )
    .dry(),
    command(
        "vdispl-list",
        "<Domain(s)>",
        "List virtual display devices for a domain",
    ),
    command(
        "vdispl-detach",
        "<Domain> <DevId>",
        "Destroy a domain's virtual display device",
    ),
    command(
        "vsnd-attach",
        "<Domain> [...]",
        "Create a new virtual sound device",
    )
    .dry(),
    command(
        "vsnd-list",
        "<Domain(s)>",
        "List virtual sound devices for a domain",
    ),
    command(
        "vsnd-detach",
        "<Domain> <DevId>",
        "Destroy a domain's virtual sound device",
    ),
    command(
        "uptime",
        "[options] [Domain]",
        "Print uptime for all/some domains",
    )
    .options(
        &[flag('s', "short")],
        &[("-s, --short", "the form of uptime(1)")],
    )
    .runs(list::uptime),
    command(
        "claims",
        "",
        "List outstanding claim information about all domains",
    ),
    command(
        "cpupool-create",
        "[options] [<ConfigFile>] [vars]",
        "Create a new CPU pool",
    )
    .dry(),
    command(
        "cpupool-list",
        "[options] [<CPU Pool>]",
        "List CPU pools on host",
    ),
    command("cpupool-destroy", "<CPU Pool>", "Deactivate a CPU pool"),
    command(
        "cpupool-rename",
        "<CPU Pool> <new name>",
        "Rename a CPU pool",
    ),
    command(
        "cpupool-cpu-add",
        "<CPU Pool> <CPU nr>|node:<node nr>",
        "Add a CPU to a CPU pool",
    ),
    command(
        "cpupool-cpu-remove",
        "<CPU Pool> <CPU nr>|node:<node nr>",
        "Remove a CPU from a CPU pool",
    ),
    command(
        "cpupool-migrate",
        "<Domain> <CPU Pool>",
        "Move a domain into a CPU pool",
    ),
    command(
        "cpupool-numa-split",
        "",
        "Split up the machine into one CPU pool per NUMA node",
    ),
    command(
        "getenforce",
        "",
        "Return the current enforcing mode of the Flask security module",
    ),
    command(
        "setenforce",
        "<enforcing|permissive>",
        "Set the enforcing mode of the Flask security module",
    ),
    command(
        "loadpolicy",
        "<policy file>",
        "Load a new policy into the Flask security module",
    ),
    command(
        "remus",
        "[options] <Domain> [<host>]",
        "Enable Remus HA for a domain",
    ),
    command(
        "devd",
        "[options]",
        "Daemon that listens for devices and launches backends",
    ),
    command(
        "usbctrl-attach",
        "<Domain> [...]",
        "Create a virtual USB controller",
    ),
    command(
        "usbctrl-detach",
        "<Domain> <DevId>",
        "Remove a virtual USB controller",
    ),
    command(
        "usbdev-attach",
        "<Domain> <hostbus=X> <hostaddr=X> [...]",
        "Attach a USB device to a domain",
    ),
    command(
        "usbdev-detach",
        "<Domain> <Controller> <Port>",
        "Detach a USB device from a domain",
    ),
    command(
        "usb-list",
        "<Domain>",
        "List information about all USB devices of a domain",
    ),
    command("suspend", "<Domain>", "Suspend a domain to RAM"),
    command("resume", "<Domain>", "Resume a domain from RAM"),
    command(
        "psr-hwinfo",
        "[options]",
        "Show hardware information of Platform Shared Resource",
    ),
    command(
        "psr-cmt-attach",
        "<Domain>",
        "Attach Cache Monitoring Technology service to a domain",
    ),
    command(
        "psr-cmt-detach",
        "<Domain>",
        "Detach Cache Monitoring Technology service from a domain",
    ),
    command(
        "psr-cmt-show",
        "<PSR-CMT-Type> <Domain>",
        "Show Cache Monitoring Technology information",
    ),
    command(
        "psr-cat-set",
        "[options] <Domain> <CBM>",
        "Set cache capacity bitmasks (CBM) for a domain",
    ),
    command(
        "psr-cat-show",
        "[options] <Domain>",
        "Show Cache Allocation Technology information",
    ),
    command(
        "psr-mba-set",
        "[options] <Domain> <throttling>",
        "Set Memory Bandwidth Allocation throttling for a domain",
    ),
    command(
        "psr-mba-show",
        "<Domain>",
        "Show Memory Bandwidth Allocation information",
    ),
    command(
        "dt-overlay",
        "<add|remove|attach> <.dtbo> [Domain]",
        "Add/remove a device tree overlay",
    ),
    command(
        "qemu-monitor-command",
        "<Domain> <Command>",
        "Issue a qemu monitor command to the device model of a domain",
    ),
    command(
        "xenstore-quota-get",
        "<Domain>|-g",
        "List global or domain specific Xenstore quotas",
    ),
    command(
        "xenstore-quota-set",
        "<Domain>|-g <quota>=<val>...",
        "Set global or domain specific Xenstore quotas",
    ),
    command("help", "[command]", "Print help").runs(help::run),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = COMMANDS.iter().map(|command| command.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn prefixes_work_where_they_are_unambiguous() {
        assert_eq!(
            lookup("debug").map(|command| command.name),
            Some("debug-keys")
        );
        assert_eq!(
            lookup("sched-credit").map(|command| command.name),
            Some("sched-credit")
        );
        assert!(lookup("vcpu-").is_none());
        assert!(lookup("nosuch").is_none());
        assert_eq!(lookup("cr").map(|command| command.name), Some("create"));
    }

    #[test]
    fn each_option_is_explained() {
        for command in COMMANDS {
            for option in command.options {
                let named = command.option_help.iter().any(|(form, _)| {
                    form.contains(&format!("-{}", option.short))
                        || (!option.long.is_empty() && form.contains(option.long))
                });
                let accepted_silently = matches!(option.short, 'V' | 'A' | 'i');
                assert!(
                    named || accepted_silently,
                    "{} -{}",
                    command.name,
                    option.short
                );
            }
        }
    }
}
