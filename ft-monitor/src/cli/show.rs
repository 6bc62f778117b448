//! `status`, `events` and `availability`: what the monitor answers, as tables or JSON.

use super::client::Client;
use super::{CliError, json, table, written};
use crate::api::{Availability, EventLine, GuestLine, OutageLine, Reply, Request, Status};
use crate::time::{Wall, human, utc};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

pub(super) fn status(socket: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    match Client::monitor(socket, &Request::Status)? {
        (_, Reply::Status(status)) if as_json => json(out, &status, true),
        (_, Reply::Status(status)) => print_status(&status, out).map_err(|error| written(&error)),
        (client, _) => Err(client.strange()),
    }
}

fn print_status(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let running = human(Duration::from_millis(status.running_ms));
    writeln!(out, "monitor  {} running for {running}", status.release)?;
    let releases = match (&status.agent.release, &status.agent.xen) {
        (Some(release), Some(xen)) => format!("{release} on Xen {xen}, "),
        _ => String::new(),
    };
    writeln!(out, "agent    {releases}{}", status.agent.text)?;
    for alarm in &status.alarms {
        writeln!(out, "ALARM    {alarm}")?;
    }
    writeln!(out)?;
    if status.guests.is_empty() {
        return writeln!(out, "no guests");
    }
    let rows: Vec<Vec<String>> = status.guests.iter().map(status_row).collect();
    table::print(
        out,
        &[
            "Name",
            "ID",
            "Class",
            "Heartbeat",
            "Probes",
            "Restarts/h",
            "State",
        ],
        &rows,
    )
}

fn status_row(guest: &GuestLine) -> Vec<String> {
    let ago = |ms: Option<u64>| ms.map(|ms| format!("{} ago", human(Duration::from_millis(ms))));
    let probes = match guest.probes.len() {
        0 => "-".to_owned(),
        all => {
            let good = |probe: &&crate::api::ProbeLine| {
                probe.failures == 0 && probe.answered_ago_ms.is_some()
            };
            format!("{}/{all}", guest.probes.iter().filter(good).count())
        }
    };
    let mut state = guest.detail.clone();
    if let Some(action) = &guest.action {
        state.push_str("; ");
        state.push_str(action);
    } else if let Some(ms) = guest.outage_ms
        && guest.state == "healthy"
    {
        let span = human(Duration::from_millis(ms));
        state = format!("running, does not show yet what it showed before (outage of {span})");
    }
    vec![
        guest.name.clone(),
        guest
            .domid
            .map_or_else(|| "-".to_owned(), |domid| domid.to_string()),
        guest.protection.clone(),
        ago(guest.heartbeat_ago_ms).unwrap_or_else(|| "-".to_owned()),
        probes,
        format!("{} of {}", guest.restarts, guest.restarts_max),
        state,
    ]
}

pub(super) fn events(
    socket: &Path,
    last: u32,
    guest: Option<String>,
    follow: bool,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let request = Request::Events {
        last,
        guest,
        follow,
    };
    let (mut client, reply) = Client::monitor(socket, &request)?;
    let Reply::Events(lines) = reply else {
        return Err(client.strange());
    };
    for line in &lines {
        print_event(line, as_json, out)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        out.flush().map_err(|error| written(&error))?;
        match client.next_from_monitor()? {
            Reply::Event(line) => print_event(&line, as_json, out)?,
            _ => return Err(client.strange()),
        }
    }
}

fn print_event(line: &EventLine, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    if as_json {
        return json(out, line, false);
    }
    let guest = line
        .guest
        .as_deref()
        .or(line.uuid.as_deref())
        .unwrap_or("-");
    let (seconds, ms) = (utc(Wall(line.wall_ms)), line.wall_ms % 1000);
    writeln!(out, "{seconds}.{ms:03}  {guest:<16} {}", line.text).map_err(|error| written(&error))
}

pub(super) fn availability(
    socket: &Path,
    guest: Option<String>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match Client::monitor(socket, &Request::Availability { guest })? {
        (_, Reply::Availability(lines)) if as_json => json(out, &lines, true),
        (_, Reply::Availability(lines)) => {
            print_availability(&lines, out).map_err(|error| written(&error))
        }
        (client, _) => Err(client.strange()),
    }
}

fn print_availability(lines: &[Availability], out: &mut dyn Write) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "no guests seen yet");
    }
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}: {}", line.name, line.text)?;
        if line.outages.is_empty() {
            continue;
        }
        let rows: Vec<Vec<String>> = line.outages.iter().map(outage_row).collect();
        let head = [
            "  Began (UTC)",
            "Cause",
            "Length",
            "Detected after",
            "Domain after",
            "Served after",
            "End",
        ];
        table::print(out, &head, &rows)?;
    }
    writeln!(
        out,
        "\nLength: from the last sign of life until the guest shows again what it showed before."
    )?;
    writeln!(
        out,
        "\"Domain after\" and \"Served after\" count from the detection."
    )
}

fn outage_row(outage: &OutageLine) -> Vec<String> {
    let span = |ms: u64| human(Duration::from_millis(ms));
    let maybe = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), span);
    vec![
        format!("  {}", utc(Wall(outage.began_wall_ms))),
        outage.cause.clone(),
        span(outage.length_ms),
        span(outage.detect_ms),
        maybe(outage.restart_ms),
        maybe(outage.restore_ms),
        outage.end.clone().unwrap_or_else(|| "goes on".to_owned()),
    ]
}
