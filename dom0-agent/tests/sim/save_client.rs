//! Whoever asks for a save goes away, keeps nothing, or changes things meanwhile; and what is left of a request to suspend.

use crate::save::{assert_runs, config_of, file, running, save, whole};
use crate::support::Host;
use dom0_agent::agent::save::{AfterSave, Keeper, SaveOptions};
use std::cell::{Cell, RefCell};
use std::path::Path;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;

const GUEST: DomId = DomId(1);

/// A client that goes away: after it was asked so many times whether it waits, or when it is to keep the file.
struct Fickle {
    patience: Cell<u32>,
    keeps: bool,
}

impl Keeper for Fickle {
    fn waits(&self) -> bool {
        let left = self.patience.get();
        self.patience.set(left.saturating_sub(1));
        left > 0
    }

    fn keep(&mut self) -> bool {
        self.keeps
    }
}

#[test]
fn a_guest_runs_on_when_nobody_waits_for_its_file_or_keeps_it() {
    for patience in [0, u32::MAX] {
        let mut host = running();
        let mut client = Fickle {
            patience: Cell::new(patience),
            keeps: false,
        };
        let options = SaveOptions::then(AfterSave::Destroy);
        let saved = host.agent.save_guest(GUEST, options, file(), &mut client);
        let why = saved.unwrap_err().to_string();
        assert!(why.contains("went away"), "{why}");
        assert_runs(&mut host, GUEST);
    }
}

#[test]
fn a_saved_guest_is_gone_even_if_its_end_cannot_be_put_on_record() {
    let mut host = running();
    let file = file();
    // The image filled the disk that the records are on.
    struct Full<'a>(&'a Path);
    impl Keeper for Full<'_> {
        fn waits(&self) -> bool {
            true
        }
        fn keep(&mut self) -> bool {
            let away = self.0.with_extension("away");
            std::fs::rename(self.0, away)
                .and_then(|()| std::fs::write(self.0, "full"))
                .is_ok()
        }
    }
    let guests = host.file("state/guests");
    let options = SaveOptions::then(AfterSave::Destroy);
    let again = file.try_clone().unwrap();
    host.agent
        .save_guest(GUEST, options, again, &mut Full(&guests))
        .unwrap();
    assert!(whole(&file).is_some());
    assert_eq!(host.world.domain(GUEST), None, "it could be woken");
    std::fs::remove_file(&guests).unwrap();
    std::fs::rename(guests.with_extension("away"), &guests).unwrap();
    host.next_agent();
    host.settle();
    host.assert_clean();
}

#[test]
fn a_request_that_was_taken_back_is_forgotten() {
    let mut host = Host::new();
    let config = config_of(&host, "pvh");
    host.start(config);
    // It never looks at what it is asked.
    let error = save(&host, AfterSave::Destroy, &file()).unwrap_err();
    assert!(error.to_string().contains("acknowledge"), "{error}");
    // Later somebody else suspends it, and waits for that.
    host.world
        .shut_down(GUEST, ShutdownReason::Suspend)
        .unwrap();
    host.settle();
    let info = host.world.domain(GUEST).unwrap();
    assert_eq!(
        info.shutdown,
        Some(ShutdownReason::Suspend),
        "woken under another's hands"
    );
    host.agent.destroy(GUEST).unwrap();
    host.settle();
    host.assert_clean();
}

#[test]
fn devices_stay_as_they_are_while_a_guest_is_saved() {
    let mut host = running();
    struct Attaches<'a>(&'a Host, RefCell<Option<String>>);
    impl Keeper for Attaches<'_> {
        fn waits(&self) -> bool {
            let mut vif = self.0.config("pvh", "other", "vif=['bridge=xenbr0']").vifs;
            let refused = self.0.agent.attach_net(GUEST, &vif.remove(0));
            *self.1.borrow_mut() = refused.err().map(|error| error.to_string());
            true
        }
        fn keep(&mut self) -> bool {
            true
        }
    }
    let mut client = Attaches(&host, RefCell::default());
    let options = SaveOptions::then(AfterSave::Resume);
    host.agent
        .save_guest(GUEST, options, file(), &mut client)
        .unwrap();
    let why = client.1.into_inner().unwrap();
    assert!(why.contains("being saved"), "{why}");
    assert_runs(&mut host, GUEST);
}
