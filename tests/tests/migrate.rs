//! Guests that are moved: ours to ours, ours to stock's, stock's to ours, while a client talks to them.

use anyhow::{Context, Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::scenario::continuity::{Client, begin, goes_on};
use stack_tests::scenario::soak;
use stack_tests::stock::{self, Guest, Kind};

fn with_parapet(test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        test(host)?;
        product::clean(host)
    })
}

/// Moves a guest to the host it is on; one command leads to the other.
fn travel(host: &Host, guest: &Guest, from: &str, to: &str) -> Result<()> {
    let before = host.guest(&guest.name).domid()?;
    host.ok(&[
        from,
        "migrate",
        "-s",
        "",
        &guest.name,
        &format!("{to} migrate-receive"),
    ])
    .with_context(|| format!("{from} to {to}"))?;
    ensure!(
        host.guest(&guest.name).domid()? != before,
        "it did not move"
    );
    let copies = host.sh(&format!(
        "{} list | grep -c '^{}[ -]'; true",
        stock::XL,
        guest.name
    ))?;
    ensure!(copies.trim() == "1", "{copies} copies");
    Ok(())
}

#[test]
fn guests_are_moved_between_toolstacks_and_their_clients_do_not_notice() -> Result<()> {
    with_parapet(|host| {
        let guests = [
            Guest::minimal("pvh", Kind::Pvh, 41),
            Guest::minimal("pv", Kind::Pv, 42),
        ];
        for guest in &guests {
            product::create(host, guest, "")?;
        }
        for guest in &guests {
            begin(host, guest)?;
            let client = Client::start(host, guest)?;
            travel(host, guest, XL, XL)?;
            goes_on(host, guest)?;
            travel(host, guest, XL, stock::XL)?;
            goes_on(host, guest)?;
            if guest.kind == Kind::Pvh {
                travel(host, guest, stock::XL, XL)?;
            } else {
                // Without shadow paging stock does not move PV guests at all: it comes back by a file.
                let file = format!("/tmp/{}.save", guest.name);
                host.ok(&[stock::XL, "save", &guest.name, &file])?;
                host.ok(&[XL, "restore", &file])?;
                host.sh(&format!("rm {file}"))?;
            }
            goes_on(host, guest)?;
            let (words, silence) = client.stop()?;
            println!(
                "{}: {words} words, longest silence {silence:.3} s",
                guest.name
            );
            host.ok(&[XL, "shutdown", "-w", &guest.name])?;
            product::gone(host, &guest.name)?;
            host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))?;
        }
        host.wait_until("! ls /var/lib/parapet/guests | grep -q .", deadline::SETTLE)
    })
}

#[test]
fn an_agent_that_is_killed_while_it_moves_a_guest_costs_nobody_anything() -> Result<()> {
    with_parapet(|host| {
        let guest = Guest::minimal("pvh", Kind::Pvh, 43);
        product::create(host, &guest, "")?;
        begin(host, &guest)?;
        let before = host.guest(&guest.name).domid()?;
        // In the middle of its memory.
        let outcome = host.sh(&format!(
            "cat > /tmp/cut <<'END'\nhead -c 30000000 > /dev/null; pkill -KILL -x dom0-agent; sleep 1000 & cat > /dev/null; kill $!\nEND\n\
             {XL} migrate -s '' {name} \"printf 'xl migration receiver ready, send binary domain data.\\n'; sh /tmp/cut\" > /tmp/said 2>&1; \
             echo $?; cat /tmp/said; rm /tmp/said /tmp/cut",
            name = guest.name
        ))?;
        ensure!(outcome.starts_with("1\n"), "{outcome}");
        product::start_agent(host)?;
        goes_on(host, &guest)?;
        ensure!(host.guest(&guest.name).domid()? == before, "another domain");
        product::destroy(host, &guest)
    })
}

/// Draws one move of each kind: cut in the last answer, with the agent killed, cut in the memory, whole, and cut in an answer before.
const SEED: u64 = 2784;

#[test]
fn after_every_move_that_is_cut_one_copy_runs_with_its_data() -> Result<()> {
    with_parapet(|host| {
        let tally = soak::moves(host, 5, SEED)?;
        println!("{tally}");
        ensure!(tally.moved >= 2 && tally.stayed >= 2, "{tally}");
        Ok(())
    })
}
