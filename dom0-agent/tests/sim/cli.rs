//! The `xl` command against a simulated host, with the agent behind a real socket: words, streams and exit codes that scripts depend on.

use crate::support::desk::{Desk, Row, check, say};
use dom0_agent::cli::table::COMMANDS;
use xen_abi::ids::DomId;
use xen_sim::GuestSpec;

mod absent;
mod migrate;
mod power;
mod save;

#[test]
fn command_lines_are_understood_as_stock_xl_understands_them() {
    let mut desk = Desk::new();
    desk.guest("web1");
    check(
        &desk,
        &[
            ("", 1, "create", ""),
            ("help", 0, "create", ""),
            ("help list", 0, "Usage: xl", ""),
            ("help nosuch", 0, "command \"nosuch\" not implemented", ""),
            ("nosuch", 1, "", "command not implemented"),
            // Prefixes: the only one, an exact one that others begin with, an ambiguous one.
            ("domi web1", 0, "1\n", ""),
            ("lis web1", 0, "web1", ""),
            ("dom web1", 1, "", "command not implemented"),
            ("debug R", 0, "", ""),
            // Global options.
            ("-x list", 1, "", "unknown global option"),
            ("-v -f domid web1", 0, "1\n", ""),
            (
                "-N list",
                1,
                "",
                "command does not implement -N (dryrun) option",
            ),
            (
                "-N destroy web1",
                1,
                "",
                "command does not implement -N (dryrun) option",
            ),
            // Options of commands.
            ("destroy -c web1", 2, "", "option `c' not supported."),
            ("list --nosuch", 2, "", "not supported."),
            ("list -h", 0, "Usage: xl", ""),
            ("list --help", 0, "Usage: xl", ""),
            (
                "destroy",
                2,
                "Usage: xl",
                "'xl destroy' requires at least 1 argument.",
            ),
            (
                "rename web1",
                2,
                "Usage: xl",
                "'xl rename' requires at least 2 arguments.",
            ),
            ("list web1 -v", 0, "web1", ""),
            ("list -- web1", 0, "web1", ""),
            (
                "list -- -v",
                1,
                "",
                "-v is an invalid domain identifier (rc=-6)",
            ),
            ("list a b", 1, "Usage: xl", ""),
            // Domains.
            (
                "list nosuch",
                1,
                "",
                "nosuch is an invalid domain identifier (rc=-6)",
            ),
            ("list 99", 1, "", "99"),
            ("domid nosuch", 1, "", "nosuch"),
            ("domid 1", 1, "", "1"),
            ("domname 1", 0, "web1\n", ""),
            ("domname 99", 1, "", "99"),
            ("domname web1", 1, "", "Invalid domain id."),
        ],
    );
    desk.host.agent.destroy(DomId(1)).unwrap();
    desk.host.assert_clean();
}

#[test]
fn a_long_list_says_what_a_guest_has_now() {
    let mut desk = Desk::new();
    let domid = desk.guest("web1");
    let text = desk.xl("list -l web1").out;
    for piece in [
        "\"name\": \"web1\"",
        "\"max_memkb\": 16384",
        "\"sched\": \"credit2\"",
        "\"weight\": 256",
        "\"vdev\": \"xvda\"",
        "\"devid\": 0",
    ] {
        assert!(text.contains(piece), "{piece}\n{text}");
    }
    desk.host.agent.destroy(domid).unwrap();
    desk.host.assert_clean();
}

#[test]
fn an_empty_operand_is_domain_0_as_in_stock() {
    let desk = Desk::new();
    let said = say(&desk.reach(), &["list", ""]);
    assert!(said.code == 0 && said.out.contains("Domain-0"), "{said:?}");
}

#[test]
fn commands_that_are_not_there_yet_say_so() {
    let desk = Desk::new();
    let waiting: Vec<_> = COMMANDS
        .iter()
        .filter(|command| command.run.is_none())
        .collect();
    assert!(!waiting.is_empty());
    for command in waiting {
        let said = desk.xl(&format!("{} a b c", command.name));
        assert_eq!(said.code, 1, "{}", command.name);
        assert!(
            said.err.contains(command.name)
                && said.err.contains("not there yet")
                && said.out.is_empty(),
            "{said:?}"
        );
    }
}

#[test]
fn reading_commands_work_without_the_agent() {
    let mut desk = Desk::new();
    desk.guest("web1");
    desk.stop_agent();
    check(
        &desk,
        &[
            ("list", 0, "Domain-0", ""),
            ("list -v", 0, "web1", ""),
            ("list -l web1", 0, "\"domid\": 1", ""),
            ("info free_memory", 0, "238\n", ""),
            ("info xen_version", 0, "4.20", ""),
            ("uptime web1", 0, "web1", ""),
            ("vcpu-list web1", 0, "web1", ""),
            ("vcpu-list nosuch", 1, "VCPU", "nosuch is an invalid"),
            ("domid web1", 0, "1\n", ""),
            ("block-list web1", 0, "51712", ""),
            ("block-list nosuch", 0, "Vdev", "nosuch is an invalid"),
            ("network-list web1", 0, "parapet-vif/1/0", ""),
            ("network-list nosuch", 1, "Idx", "nosuch is an invalid"),
            ("dmesg", 0, "", ""),
            ("debug-keys q", 0, "", ""),
            ("pause web1", 0, "", ""),
            ("unpause web1", 0, "", ""),
            ("pause 99", 0, "", "99"),
            ("pause nosuch", 1, "", "nosuch is an invalid"),
            ("sysrq web1 h", 0, "", ""),
            ("sysrq web1 help", 1, "", "Invalid sysrq"),
            ("trigger web1 nmi", 0, "", ""),
            ("trigger web1 wink", 1, "", "wink"),
        ],
    );
    assert_eq!(
        desk.host
            .world
            .xs_read("/local/domain/1/control/sysrq")
            .as_deref(),
        Some("h")
    );
    // What changes things names who is missing, and how to start it.
    for line in [
        "destroy web1",
        "rename web1 web2",
        "block-detach web1 xvda",
        "network-detach web1 0",
    ] {
        let said = desk.xl(line);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("the agent is not running") && said.err.contains("systemctl"),
            "{said:?}"
        );
    }
    desk.host.agent.destroy(DomId(1)).unwrap();
    desk.host.assert_clean();
}

#[test]
fn a_guest_is_made_changed_and_destroyed_by_name() {
    let mut desk = Desk::new();
    desk.guest("web1");
    let image = desk.host.image("second.img", 64);
    let attach = format!("block-attach web1 {},raw,xvdb,rw", image.display());
    check(
        &desk,
        &[
            (&attach, 0, "", ""),
            (&attach, 1, "", "block-attach failed: device xvdb"),
            (
                "block-attach web1 /no/such.img,raw,xvdc,rw",
                1,
                "",
                "/no/such.img: does not exist",
            ),
            ("block-attach web1 nonsense=1", 1, "", "nonsense"),
            (
                "block-attach nosuch /a,raw,xvdc,rw",
                1,
                "",
                "nosuch is an invalid",
            ),
            ("block-detach -f web1 xvdb", 0, "", ""),
            ("block-detach -f web1 xvdb", 1, "", "xvdb not disconnected"),
            (
                "block-detach web1 nodisk",
                1,
                "",
                "Error: Device nodisk not connected.",
            ),
            ("network-attach web1 mac=00:16:3e:00:00:07", 0, "", ""),
            (
                "network-attach web1 bridge=nobr",
                1,
                "",
                "nobr does not exist",
            ),
            ("network-attach web1 nonsense=1", 1, "", "nonsense"),
            (
                "network-detach web1 00:16:3e:99:99:99",
                1,
                "",
                "Unknown device 00:16:3e:99:99:99.",
            ),
            ("-N block-attach web1 /a,raw,xvdq,rw", 0, "xvdq", ""),
            ("rename web1 web2", 0, "", ""),
            ("rename web2 Domain-0", 1, "", "Domain-0"),
            ("domid web2", 0, "1\n", ""),
            ("destroy Domain-0", 1, "", "domain 0"),
            ("destroy nosuch", 1, "", "nosuch is an invalid"),
            ("destroy 99", 1, "", "domain 99 does not exist"),
            ("destroy web2", 0, "", ""),
            ("list web2", 1, "", "web2 is an invalid"),
        ],
    );
    desk.host.settle();
    desk.host.assert_clean();
}

#[test]
fn create_ends_with_the_codes_that_clients_know() {
    let mut desk = Desk::new();
    desk.guest("web1");
    let good = desk.config("ok", "").display().to_string();
    let syntax = desk.config("syntax", "memory==3").display().to_string();
    let kernel = desk
        .config("kernel", "kernel=\"/no/kernel\"")
        .display()
        .to_string();
    let memory = desk.config("big", "memory=90000").display().to_string();
    let name = desk.config("name", "name=\"web1\"").display().to_string();
    let kind = desk.config("hvm", "type=\"hvm\"").display().to_string();
    let disk = desk.config("disk", "disk=['/a,raw']").display().to_string();
    let create = |rest: &str| format!("create {rest}");
    let rows: Vec<(String, u8, &str, &str)> = vec![
        (create(""), 6, "", "Config file not specified"),
        (create("/no/such.cfg"), 3, "", "/no/such.cfg: No such file"),
        (create(&format!("{good} {good}")), 2, "Usage: xl", ""),
        (create(&syntax), 1, "", "syntax.cfg:5:"),
        (create(&disk), 1, "", "no vdev specified"),
        (create(&format!("-q {kernel}")), 3, "", "/no/kernel"),
        (create(&format!("-q {memory}")), 3, "", "not enough memory"),
        (create(&format!("-q {name}")), 3, "", "web1"),
        (create(&format!("-q {kind}")), 4, "", "hvm"),
        (
            create(&format!("-n {good}")),
            0,
            "\"name\": \"ok\"",
            "Parsing config from",
        ),
        (
            format!("-N create {good} memory=24"),
            0,
            "24576",
            "Parsing config from",
        ),
        (
            create(&format!("-q -i -V -f {good} name=\"other\"")),
            0,
            "",
            "not acted on yet: --vncviewer",
        ),
        (create(&good), 0, "", "Parsing config from"),
    ];
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|(line, code, out, err)| (line.as_str(), *code, *out, *err))
        .collect();
    check(&desk, &rows);
    desk.host.settle();
    let mut names: Vec<_> = desk
        .host
        .agent
        .guests()
        .into_iter()
        .map(|guest| guest.name)
        .collect();
    names.sort();
    assert_eq!(names, ["ok", "other", "web1"]);
    for name in names {
        assert_eq!(desk.xl(&format!("destroy {name}")).code, 0);
    }
    desk.stop_agent();
    let said = desk.xl(&create(&good));
    assert!(
        said.code == 1 && said.err.contains("the agent is not running"),
        "{said:?}"
    );
    desk.host.assert_clean();
}

#[test]
fn stock_guests_are_seen_and_managed() {
    let desk = Desk::new();
    let guest = desk.host.world.spawn(&GuestSpec::pv("stock1"));
    check(
        &desk,
        &[
            ("list stock1", 0, "stock1", ""),
            ("domid stock1", 0, "1\n", ""),
            ("pause stock1", 0, "", ""),
            ("unpause stock1", 0, "", ""),
            ("rename stock1 stock2", 0, "", ""),
            ("destroy stock2", 0, "", ""),
        ],
    );
    drop(guest);
    desk.host.assert_clean();
}
