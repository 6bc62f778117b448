//! The rig itself: hosts boot and fork, commands and files go in and out, stock guests run, and nothing is left behind.

use anyhow::{Result, ensure};
use stack_tests::rig::leaks::Inventory;
use stack_tests::rig::{Host, Shape, nested};
use stack_tests::scenario::main_job;
use stack_tests::stock::{self, Kind};
use stack_tests::timeline::Timeline;

#[test]
fn a_fork_is_a_xen_host_with_a_working_stock_toolstack() -> Result<()> {
    nested(&Shape::default(), |host| {
        assert_eq!(
            host.ok(&["cat", "/proc/xen/capabilities"])?.trim(),
            "control_d"
        );
        assert!(host.ok(&["xl", "list"])?.contains("Domain-0"));
        let line = host.ok(&["xl", "info", "xen_commandline"])?;
        assert!(line.contains("spec-ctrl=eager-fpu"), "{line}");
        Ok(())
    })
}

#[test]
fn commands_bring_back_their_streams_and_exit_codes() -> Result<()> {
    nested(&Shape::default(), |host| {
        let output = host.run(&["sh", "-c", "cat; echo complaint >&2; exit 7"])?;
        assert_eq!(
            (
                output.code,
                output.text().as_str(),
                output.errors().as_str()
            ),
            (7, "", "complaint\n")
        );
        let input = host.run_with(
            &["wc", "-c"],
            &[b'x'; 100_000],
            std::time::Duration::from_secs(60),
        )?;
        assert_eq!(input.text().trim(), "100000");
        assert_eq!(host.run(&["sh", "-c", "kill -9 $$"])?.code, 128 + 9);
        let missing = host.run(&["/no/such/program"])?;
        assert_eq!(missing.code, 127);
        assert!(
            missing.errors().contains("/no/such/program"),
            "{}",
            missing.errors()
        );
        Ok(())
    })
}

#[test]
fn a_command_dies_with_its_conversation_but_a_daemon_stays() -> Result<()> {
    nested(&Shape::default(), |host| {
        // Without setsid: the daemon is in the group of a command that has ended, which must not be killed.
        for _ in 0..10 {
            host.sh("sleep 1000 > /dev/null 2>&1 & echo $! > /tmp/daemon")?;
            host.sh("kill -0 $(cat /tmp/daemon) && kill $(cat /tmp/daemon)")?;
        }
        let silence = std::time::Duration::from_secs(1);
        let given_up = host.run_with(
            &["sh", "-c", "echo $$ > /tmp/victim; exec sleep 1000"],
            &[],
            silence,
        );
        assert!(given_up.is_err());
        host.wait_until(
            "! kill -0 $(cat /tmp/victim) 2>/dev/null",
            std::time::Duration::from_secs(20),
        )
    })
}

#[test]
fn files_go_in_and_out_unchanged() -> Result<()> {
    nested(&Shape::default(), |host| {
        let content: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n ^ (n >> 7)).to_le_bytes())
            .collect();
        host.write("/tmp/in", &content, 0o640)?;
        assert_eq!(
            host.ok(&["stat", "-c", "%a %s", "/tmp/in"])?.trim(),
            "640 4000000"
        );
        assert!(host.read("/tmp/in")? == content);
        assert!(host.write("/no/such/dir/file", b"x", 0o600).is_err());
        assert!(host.read("/no/such/file").is_err());
        Ok(())
    })
}

#[test]
fn two_forks_do_not_see_each_other() -> Result<()> {
    nested(&Shape::default(), |first| {
        first.sh("echo first > /etc/who; sync")?;
        let second = first.fork_beside(&Shape::default())?;
        ensure!(
            second.run(&["cat", "/etc/who"])?.code != 0,
            "a fork sees another fork's disk"
        );
        Ok(())
    })
}

#[test]
fn stock_guests_of_both_kinds_boot_use_disk_and_network_and_go() -> Result<()> {
    nested(&Shape::default(), |host| {
        let mut timeline = Timeline::default();
        main_job::with_stock_tools(host, &mut timeline)?;
        timeline.print();
        Ok(())
    })
}

#[test]
fn guests_go_on_where_a_saved_host_had_them() -> Result<()> {
    let shape = Shape::default();
    for kind in [Kind::Pv, Kind::Pvh] {
        let host = Host::fork(&shape)?;
        stock::Guest::bare("ticks", kind).create(&host)?;
        host.guest("ticks").wait_up()?;
        host.guest("ticks").sh("echo kept > /tmp/mark")?;
        let before = host.guest("ticks").uptime()?;

        let host = host.reborn(&shape)?;
        let inside = host.guest("ticks");
        assert_eq!(inside.sh("cat /tmp/mark")?.trim(), "kept");
        let (first, second) = (inside.uptime()?, inside.uptime()?);
        ensure!(
            before < first && first < second,
            "{kind:?}: uptime {before}, then {first}, then {second}"
        );
    }
    Ok(())
}

#[test]
fn the_leak_check_sees_what_is_left_behind() -> Result<()> {
    nested(&Shape::default(), |host| {
        let before = Inventory::of(host)?;
        host.sh(
            "ip link add left0 type bridge; xenstore-write /local/domain/77/name ghost; \
             truncate -s 1M /tmp/l; losetup /dev/loop0 /tmp/l; mkdir /run/parapet; touch /run/parapet/left; \
             bash -c 'exec -a unpack-kernel sleep 300' > /dev/null 2>&1 &",
        )?;
        let left = Inventory::of(host)?.beyond(&before).join("\n");
        for kind in [
            "link left0",
            "store local/domain/77",
            "loop /dev/loop0",
            "file /run/parapet/left",
            " unpacks a kernel",
        ] {
            assert!(left.contains(kind), "{kind} is not in {left:?}");
        }
        host.sh("ip link del left0; xenstore-rm /local/domain/77; losetup -d /dev/loop0; rm -r /run/parapet; pkill -f '[u]npack-kernel'")?;
        Ok(())
    })
}
