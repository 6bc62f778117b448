//! save and restore as commands: stock's words, exit codes, and files.

use crate::support::desk::Desk;
use crate::support::reflex::Reflex;
use parapet_wire::agent::Protection;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use xen_abi::ids::DomId;
use xen_stream::libxc::Kind;
use xen_stream::{Layer, Mode, verify};

fn desk() -> (Desk, DomId) {
    let mut desk = Desk::new();
    let domid = desk.guest("web1");
    desk.host.reflex(domid, Reflex::Suspend);
    (desk, domid)
}

fn end(mut desk: Desk) {
    for guest in desk.host.agent.guests() {
        desk.host.agent.destroy(guest.domid.unwrap()).unwrap();
    }
    desk.stop_agent();
    desk.host.settle();
    desk.host.assert_clean();
}

#[test]
fn a_guest_goes_into_a_file_and_comes_back() {
    let (mut desk, _) = desk();
    let path = desk.host.file("web1.save");
    let shown = path.display().to_string();
    let said = desk.xl(&format!("save web1 {shown}"));
    let verified = verify(File::open(&path).unwrap(), Layer::Xl, Mode::Plain).unwrap();
    let header = verified.file.unwrap();
    let length = header.optional_length().unwrap();
    let saving = format!("Saving to {shown} new xl format (info 0x3/0x0/{length})\n");
    assert_eq!((said.code, said.out, said.err), (0, String::new(), saving));
    assert!(!verified.more && verified.summary.records(Kind::End) == 1);
    assert!(header.config_text().unwrap().contains("\"web1\""));
    desk.host.settle();
    desk.host.assert_clean();

    let said = desk.xl(&format!("restore {shown}"));
    let loading = format!(
        "Loading new save file {shown} (new xl fmt info 0x3/0x0/{length})\n Savefile contains xl domain config in JSON format\nParsing config from <saved>\n"
    );
    assert_eq!((said.code, said.out, said.err), (0, String::new(), loading));
    desk.host.settle();
    let domid = desk.host.agent.guests()[0].domid.unwrap();
    assert!(desk.host.machine(domid).is_connected());
    let again = desk.xl(&format!("restore {shown}"));
    assert!(
        again.code == 1 && again.err.contains("exists already"),
        "{again:?}"
    );
    end(desk);
}

#[test]
fn a_save_that_is_refused_leaves_the_file_that_was_there() {
    let (desk, domid) = desk();
    let path = desk.host.file("web1.save");
    std::fs::write(&path, "an older one").unwrap();
    desk.host.reflex(domid, Reflex::Crash);
    let said = desk.xl(&format!("save web1 {}", path.display()));
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"an older one");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".partial")));
    end(desk);
}

#[test]
fn protection_comes_back_with_the_guest_and_only_the_caller_may_read_its_memory() {
    let (mut desk, _) = desk();
    let uuid = desk.host.agent.guests()[0].uuid;
    let wanted = Protection::Restart;
    let shared = desk
        .host
        .agent
        .by_uuid(uuid::Uuid::from_bytes(uuid.0))
        .unwrap();
    shared.lock().unwrap().set_protection(wanted, None).unwrap();
    let path = desk.host.file("web1.save");
    assert_eq!(desk.xl(&format!("save web1 {}", path.display())).code, 0);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(desk.xl(&format!("restore {}", path.display())).code, 0);
    desk.host.settle();
    assert_eq!(desk.host.agent.guests()[0].protection, wanted);
    end(desk);
}

#[test]
fn a_checkpoint_and_a_restore_with_another_configuration() {
    let (mut desk, domid) = desk();
    let path = desk.host.file("web1.save");
    let shown = path.display().to_string();
    assert_eq!(desk.xl(&format!("save -c web1 {shown}")).code, 0);
    desk.host.settle();
    assert!(desk.host.machine(domid).is_connected());
    let image = desk.host.image("other.img", 64);
    let lines = format!("disk=['{},raw,xvda,rw']", image.display());
    let other = desk.config("web2", &lines);
    let said = desk.xl(&format!("restore -p {} {shown}", other.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err
            .contains(&format!("Parsing config from {}", other.display()))
    );
    let guests = desk.host.agent.guests();
    let domid_of = |name: &str| {
        guests
            .iter()
            .find(|guest| guest.name == name)
            .unwrap()
            .domid
    };
    assert_eq!(domid_of("web1"), Some(domid));
    let restored = domid_of("web2").unwrap();
    assert!(desk.host.world.domain(restored).unwrap().paused);
    end(desk);
}

#[test]
fn what_cannot_be_is_said_and_leaves_no_file() {
    let (desk, domid) = desk();
    let path = desk.host.file("web1.save");
    let shown = path.display();
    let text = desk.host.file("text");
    std::fs::write(
        &text,
        "no save file at all, but longer than a header of one would be",
    )
    .unwrap();
    let rows = [
        (
            format!("save nobody {shown}"),
            1,
            "invalid domain identifier",
        ),
        (format!("save 0 {shown}"), 1, "control domain"),
        (format!("save 77 {shown}"), 1, "domain 77 does not exist"),
        (
            "save web1 /nonexistent/x".to_owned(),
            1,
            "Failed to open temp file /nonexistent/x for writing",
        ),
        (
            format!("save web1 {shown} /nonexistent/cfg"),
            1,
            "Failed to read config file",
        ),
        (
            "restore /nonexistent/x".to_owned(),
            1,
            "Can't open restore file /nonexistent/x",
        ),
        (
            format!("restore {}", text.display()),
            1,
            "File has wrong magic number",
        ),
        ("save web1".to_owned(), 2, "requires at least 2 arguments"),
        ("restore".to_owned(), 2, "requires at least 1 argument"),
    ];
    for (line, code, piece) in &rows {
        let said = desk.xl(line);
        assert!(
            said.code == *code && said.err.contains(piece),
            "xl {line}: {said:?}"
        );
    }
    // A guest that does something else is not bothered, and its file is taken away.
    desk.host.reflex(domid, Reflex::Crash);
    let said = desk.xl(&format!("save web1 {shown}"));
    assert!(
        said.code == 1 && said.err.contains("Failed to save domain, resuming domain"),
        "{said:?}"
    );
    assert!(!path.exists());
    end(desk);
}
