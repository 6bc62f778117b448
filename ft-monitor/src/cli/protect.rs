//! `guests`, `protect`, `upgrade-drivers` and `settle`: what the agent is asked.

use super::client::Client;
use super::{CliError, Exit, ProtectArguments, Whereabouts, json, table, written};
use crate::evidence::probe::Target;
use crate::limits::{HEARTBEAT_TIMEOUT_MIN, PROBES_PER_GUEST_MAX, RESTARTS_PER_HOUR_MAX};
use crate::report::class_word;
use crate::verdict::reason_word;
use parapet_wire::agent::{Guest, GuestState, Protection, Reply, Request, Watching};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// One guest, as `parapet guests --json` prints it.
#[derive(Debug, Serialize)]
struct GuestJson<'a> {
    name: &'a str,
    uuid: String,
    domid: Option<u16>,
    state: String,
    protection: Protection,
    heartbeat_timeout_ms: Option<u64>,
    probes: &'a [String],
    max_restarts: Option<u32>,
    driver_pid: Option<u32>,
}

pub(super) fn guests(socket: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let guests = ask_guests(&mut Client::agent(socket)?)?;
    if as_json {
        let list: Vec<GuestJson<'_>> = guests.iter().map(as_json_line).collect();
        return json(out, &list, true);
    }
    let rows: Vec<Vec<String>> = guests.iter().map(row).collect();
    let head = [
        "Name",
        "ID",
        "State",
        "Class",
        "Heartbeat",
        "Probes",
        "Driver",
        "UUID",
    ];
    table::print(out, &head, &rows).map_err(|error| written(&error))
}

fn ask_guests(client: &mut Client) -> Result<Vec<Guest>, CliError> {
    match client.ask_agent(&Request::Guests)? {
        Reply::Guests(guests) => Ok(guests),
        _ => Err(client.strange()),
    }
}

fn as_json_line(guest: &Guest) -> GuestJson<'_> {
    GuestJson {
        name: &guest.name,
        uuid: guest.uuid.to_string(),
        domid: guest.domid.map(|domid| domid.0),
        state: state_word(guest.state),
        protection: guest.protection,
        heartbeat_timeout_ms: guest.watching.heartbeat_timeout_ms,
        probes: &guest.watching.probes,
        max_restarts: guest.watching.max_restarts,
        driver_pid: guest.driver_pid,
    }
}

fn row(guest: &Guest) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let heartbeat = guest
        .watching
        .heartbeat_timeout_ms
        .map(|ms| format!("{} s", ms / 1000));
    vec![
        guest.name.clone(),
        or_dash(guest.domid.map(|domid| domid.to_string())),
        state_word(guest.state),
        class_word(guest.protection).to_owned(),
        or_dash(heartbeat),
        guest.watching.probes.len().to_string(),
        or_dash(guest.driver_pid.map(|pid| pid.to_string())),
        guest.uuid.to_string(),
    ]
}

fn state_word(state: GuestState) -> String {
    match state {
        GuestState::Building => "building".to_owned(),
        GuestState::Running => "running".to_owned(),
        GuestState::Down(reason) => format!("down ({})", reason_word(reason)),
        GuestState::Waiting => "waiting".to_owned(),
        GuestState::Dying => "dying".to_owned(),
        GuestState::Leaving => "leaving".to_owned(),
    }
}

/// The guest that `text` means: a uuid, a domain id, or a name, in this order of certainty.
fn find(guests: Vec<Guest>, text: &str) -> Result<Guest, CliError> {
    let by_id = |guest: &Guest| {
        guest.uuid.to_string() == text
            || guest.domid.is_some_and(|domid| domid.to_string() == text)
            || guest.name == text
    };
    guests.into_iter().find(by_id).ok_or_else(|| CliError {
        exit: Exit::Failed,
        text: format!("the agent manages no guest {text}; `parapet guests` lists them"),
    })
}

pub(super) fn protect(
    socket: &Path,
    arguments: &ProtectArguments,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut client = Client::agent(socket)?;
    let guest = find(ask_guests(&mut client)?, &arguments.guest)?;
    let watching = watching(&guest.watching, arguments)?;
    let protection = Protection::from(arguments.class);
    let unwatched = watching.heartbeat_timeout_ms.is_none() && watching.probes.is_empty();
    let changed = (watching != guest.watching).then_some(watching);
    client.ask_agent(&Request::Protect {
        uuid: guest.uuid,
        protection,
        watching: changed,
    })?;
    let said = writeln!(out, "{}: protection {}", guest.name, class_word(protection));
    said.map_err(|error| written(&error))?;
    if protection != Protection::None && unwatched {
        eprintln!(
            "parapet: note: {} is restarted after a crash or an expired watchdog; \
             a hang is noticed only with --heartbeat or --probe",
            guest.name
        );
    }
    Ok(())
}

/// `settle`.
pub(super) fn settle(
    socket: &Path,
    guest: &str,
    whereabouts: Whereabouts,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut client = Client::agent(socket)?;
    let guest = find(ask_guests(&mut client)?, guest)?;
    let name = &guest.name;
    let refuse = |text: String| CliError {
        exit: Exit::Failed,
        text,
    };
    let domid = guest.domid.filter(|_| guest.state == GuestState::Leaving);
    let domid = domid.ok_or_else(|| refuse(format!("{name} was not given to another host")))?;
    let here = whereabouts == Whereabouts::Here;
    client.ask_agent(&Request::SettleMove { domid, here })?;
    let said = if here {
        writeln!(out, "{name}: goes on here")
    } else {
        writeln!(out, "{name}: what was left of it here is gone")
    };
    said.map_err(|error| written(&error))
}

/// The present way of watching with what the command line changes.
fn watching(present: &Watching, arguments: &ProtectArguments) -> Result<Watching, CliError> {
    let refuse = |text: String| {
        Err(CliError {
            exit: Exit::Failed,
            text,
        })
    };
    let mut new = present.clone();
    match arguments.heartbeat {
        None => {}
        Some(0) => new.heartbeat_timeout_ms = None,
        Some(seconds) if seconds < HEARTBEAT_TIMEOUT_MIN.as_secs() => {
            let least = HEARTBEAT_TIMEOUT_MIN.as_secs();
            return refuse(format!(
                "--heartbeat {seconds}: at least {least} s, for three beats"
            ));
        }
        Some(seconds) => new.heartbeat_timeout_ms = Some(seconds.saturating_mul(1000)),
    }
    if arguments.probe.len() > PROBES_PER_GUEST_MAX {
        return refuse(format!("--probe: at most {PROBES_PER_GUEST_MAX} of them"));
    }
    for probe in &arguments.probe {
        if let Err(error) = probe.parse::<Target>() {
            return refuse(format!("--probe {error}"));
        }
    }
    if arguments.no_probe || !arguments.probe.is_empty() {
        new.probes.clone_from(&arguments.probe);
    }
    match arguments.max_restarts {
        None => {}
        Some(count) if count > RESTARTS_PER_HOUR_MAX => {
            return refuse(format!(
                "--max-restarts {count}: at most {RESTARTS_PER_HOUR_MAX}"
            ));
        }
        count => new.max_restarts = count,
    }
    Ok(new)
}

pub(super) fn upgrade_drivers(
    socket: &Path,
    guest: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut client = Client::agent(socket)?;
    let domid = match guest {
        None => None,
        Some(text) => match find(ask_guests(&mut client)?, text)? {
            Guest {
                domid: Some(domid), ..
            } => Some(domid),
            Guest { name, .. } => {
                let text = format!("{name} has no domain now, so it has no drivers");
                return Err(CliError {
                    exit: Exit::Failed,
                    text,
                });
            }
        },
    };
    let replaced = match client.ask_agent(&Request::ReplaceDrivers { domid })? {
        Reply::Status(text) => serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value.get("replaced")?.as_u64()),
        Reply::Done => None,
        _ => return Err(client.strange()),
    };
    let said = match replaced {
        Some(count) => writeln!(out, "drivers replaced: {count}"),
        None => writeln!(out, "drivers replaced"),
    };
    said.map_err(|error| written(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Class;

    fn arguments() -> ProtectArguments {
        ProtectArguments {
            guest: "web1".into(),
            class: Class::Restart,
            heartbeat: None,
            probe: Vec::new(),
            no_probe: false,
            max_restarts: None,
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let present = Watching {
            heartbeat_timeout_ms: Some(9000),
            probes: vec!["ping:10.0.0.1".into()],
            max_restarts: Some(3),
        };
        assert_eq!(watching(&present, &arguments()).unwrap(), present);
        let new = watching(
            &present,
            &ProtectArguments {
                heartbeat: Some(0),
                no_probe: true,
                ..arguments()
            },
        );
        let only_limit = Watching {
            max_restarts: Some(3),
            ..Watching::default()
        };
        assert_eq!(new.unwrap(), only_limit);
    }

    #[test]
    fn what_cannot_be_is_refused_before_the_agent_is_asked() {
        for (arguments, part) in [
            (
                ProtectArguments {
                    heartbeat: Some(1),
                    ..arguments()
                },
                "three beats",
            ),
            (
                ProtectArguments {
                    probe: vec!["tcp:a".into()],
                    ..arguments()
                },
                "port is missing",
            ),
            (
                ProtectArguments {
                    max_restarts: Some(101),
                    ..arguments()
                },
                "at most 100",
            ),
            (
                ProtectArguments {
                    probe: vec!["ping:a".into(); 9],
                    ..arguments()
                },
                "at most 8",
            ),
        ] {
            let error = watching(&Watching::default(), &arguments).unwrap_err();
            assert!(error.text.contains(part), "{error}");
        }
    }
}
