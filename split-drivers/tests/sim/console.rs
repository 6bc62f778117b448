//! Consoles of correct and of hostile guests.

use crate::support::disk::order;
use crate::support::{PATIENCE, assert_nothing_left};
use parapet_wire::driver::{ConnectConsole, DeviceKind, OrderBody, Outcome};
use split_drivers::control::driver::Driver;
use split_drivers::control::pool::Pool;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use xen_abi::ids::GrantRef;
use xen_sim::frontend::console::ConsoleFront;
use xen_sim::frontend::hostile::ConsoleAttack;
use xen_sim::{Guest, GuestSpec, World};

struct Console {
    front: ConsoleFront,
    driver: Driver,
    terminal: UnixStream,
}

/// The page by its reserved grant, the terminal one end of a socket pair.
fn connect(driver: &mut Driver, front: &ConsoleFront) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let connect = ConnectConsole {
        index: 0,
        gref: GrantRef(0),
        port: front.port(),
        log: false,
    };
    assert_eq!(
        order(
            driver,
            OrderBody::ConnectConsole(connect),
            vec![OwnedFd::from(theirs)]
        ),
        Ok(Outcome::Done)
    );
    ours
}

fn console(world: &World, guest: &Guest) -> Console {
    let front = ConsoleFront::primary(guest).unwrap();
    let mut driver =
        Driver::new(Pool::open(&world.host("driver"), guest.domid()).unwrap()).unwrap();
    let terminal = connect(&mut driver, &front);
    Console {
        front,
        driver,
        terminal,
    }
}

fn expect(terminal: &mut UnixStream, text: &[u8]) {
    let mut seen = vec![0; text.len()];
    terminal.read_exact(&mut seen).unwrap();
    assert_eq!(seen, text);
}

#[test]
fn what_is_printed_is_shown_and_what_is_typed_is_read() {
    let world = World::seeded(31);
    let guest = world.spawn(&GuestSpec::pv("web1"));
    let mut console = console(&world, &guest);
    assert_eq!(console.front.write(b"login: "), 7);
    expect(&mut console.terminal, b"login: ");
    console.terminal.write_all(b"root\n").unwrap();
    let mut typed = Vec::new();
    assert!(world.wait_until(PATIENCE, || {
        typed.extend(console.front.read());
        typed == b"root\n"
    }));
    // Another agent brings another terminal.
    let mut other = connect(&mut console.driver, &console.front);
    assert_eq!(console.front.write(b"again"), 5);
    expect(&mut other, b"again");
    order(&mut console.driver, OrderBody::Quiesce, Vec::new()).unwrap();
    drop(console);
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn a_successor_goes_on_where_the_page_stands() {
    let world = World::seeded(32);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut first = console(&world, &guest);
    assert_eq!(first.front.write(b"one "), 4);
    expect(&mut first.terminal, b"one ");
    order(&mut first.driver, OrderBody::Quiesce, Vec::new()).unwrap();
    assert_eq!(first.front.write(b"two"), 3);
    let mut second = console(&world, &guest);
    expect(&mut second.terminal, b"two");
    order(&mut second.driver, OrderBody::Quiesce, Vec::new()).unwrap();
    drop((first, second));
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn every_attack_is_survived_or_stops_the_console_only() {
    for attack in ConsoleAttack::ALL {
        let world = World::seeded(33);
        let honest = world.spawn(&GuestSpec::pvh("honest"));
        let guest = world.spawn(&GuestSpec::pvh("hostile"));
        let mut neighbour = console(&world, &honest);
        let mut console = console(&world, &guest);
        attack.launch(&console.front);
        // Either it is heard of as a fault, or the console still answers.
        let stopped = || {
            console
                .driver
                .bell()
                .wait(Some(std::time::Duration::ZERO))
                .unwrap()
        };
        let mut alive = false;
        let _ = world.wait_until(PATIENCE, || {
            alive = console.front.write(b"x") == 1;
            alive || stopped()
        });
        if stopped() {
            assert_eq!(
                console.driver.take_faults()[0].kind,
                DeviceKind::Console,
                "{attack:?}"
            );
        }
        let hello = order(&mut console.driver, OrderBody::Hello, Vec::new());
        assert!(matches!(hello, Ok(Outcome::Hello { .. })), "{attack:?}");
        assert_eq!(neighbour.front.write(b"calm"), 4, "{attack:?}");
        expect(&mut neighbour.terminal, b"calm");
        for mut console in [console, neighbour] {
            order(&mut console.driver, OrderBody::Quiesce, Vec::new()).unwrap();
        }
        // What the attacker found in its page it had written itself.
        let own = format!("VIOLATION console of domain {}:", guest.domid());
        for guest in [&guest, &honest] {
            world.destroy_guest(guest.domid());
        }
        let ledger = world.ledger();
        let left = ledger.lines().iter().filter(|line| !line.starts_with(&own));
        assert_eq!(left.collect::<Vec<_>>(), [] as [&String; 0], "{attack:?}");
    }
}
