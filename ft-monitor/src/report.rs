//! What the monitor knows, in the words of its API. Pure: reads the machine, changes nothing.

use crate::api::{AgentLine, Availability, EventLine, GuestLine, OutageLine, ProbeLine, Status};
use crate::availability::{Outage, parts_per_million, sentence, summary};
use crate::book::{Book, Page};
use crate::evidence::agent::Link;
use crate::limits::RESTART_WINDOW;
use crate::monitor::{Monitor, Tracked};
use crate::record::{Deed, End, Entry, Outcome, Record};
use crate::time::{Mono, Now, human, millis};
use crate::verdict::{Verdict, describe, reason_word};
use parapet_wire::agent::Protection;
use std::time::Duration;
use xen_abi::ids::{DomId, Handle};

/// How everything is.
#[must_use]
pub fn status(monitor: &Monitor, running: Duration, alarms: Vec<String>, now: Now) -> Status {
    let mut all = monitor.alarms.clone();
    all.extend(alarms);
    let given_up = monitor.book.pages.values().filter_map(|page| {
        page.given_up
            .as_ref()
            .map(|why| format!("{}: given up: {why}", page.name))
    });
    all.extend(given_up);
    Status {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        running_ms: millis(running),
        agent: agent_line(&monitor.link, now.mono),
        guests: monitor
            .guests
            .values()
            .map(|tracked| guest_line(tracked, monitor.book.pages.get(&tracked.guest.uuid), now))
            .collect(),
        alarms: all,
    }
}

fn agent_line(link: &Link, now: Mono) -> AgentLine {
    let line =
        |connected, text: String, release: Option<&String>, xen: Option<&String>| AgentLine {
            connected,
            text,
            release: release.cloned(),
            xen: xen.cloned(),
        };
    match link {
        Link::Never => line(false, "not heard yet".to_owned(), None, None),
        Link::Greeted { release, xen } => line(
            false,
            "greeted; waiting for its guests".to_owned(),
            Some(release),
            Some(xen),
        ),
        Link::Up {
            since,
            release,
            xen,
        } => {
            let text = format!("connected for {}", human(now.since(*since)));
            line(true, text, Some(release), Some(xen))
        }
        Link::Down { since, why } => line(
            false,
            format!("not heard for {}: {why}", human(now.since(*since))),
            None,
            None,
        ),
    }
}

fn guest_line(tracked: &Tracked, page: Option<&Page>, now: Now) -> GuestLine {
    let given_up = page.and_then(|page| page.given_up.as_ref());
    let (state, detail) = match (given_up, &tracked.verdict) {
        (Some(why), _) => ("given-up", format!("given up: {why}")),
        (None, verdict) => (word(verdict), describe(verdict, &tracked.policy, now.mono)),
    };
    let ago = |moment: Option<Mono>| moment.map(|moment| millis(now.mono.since(moment)));
    let probe = |series: &crate::evidence::probe::Series| ProbeLine {
        target: series.target.to_string(),
        answered_ago_ms: ago(series.last_success),
        failures: series.failures,
        error: series.last_error.clone(),
    };
    let recent = |page: &Page| {
        page.restarts
            .iter()
            .filter(|at| now.mono.since(**at) < RESTART_WINDOW)
            .count()
    };
    GuestLine {
        name: tracked.guest.name.clone(),
        uuid: tracked.guest.uuid.to_string(),
        domid: tracked.evidence.domid.map(|domid| domid.0),
        protection: class_word(tracked.policy.protection).to_owned(),
        state: state.to_owned(),
        detail,
        heartbeat_ago_ms: ago(tracked.evidence.beats.last),
        probes: tracked.evidence.probes.iter().map(probe).collect(),
        restarts: page.map_or(0, |page| u32::try_from(recent(page)).unwrap_or(u32::MAX)),
        restarts_max: tracked.policy.restarts_per_hour,
        action: page.and_then(|page| page.open.as_ref()).map(|open| {
            let what = match open.deed {
                Deed::Restart => "restarting",
                Deed::GiveUp => "giving up",
            };
            format!(
                "{what} for {} ({})",
                human(now.mono.since(open.since)),
                open.why
            )
        }),
        outage_ms: page
            .and_then(|page| page.outage.as_ref())
            .map(|o| millis(o.length(now))),
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Unseen => "unknown",
        Verdict::Starting => "starting",
        Verdict::Healthy => "healthy",
        Verdict::Suspect { .. } => "suspect",
        Verdict::Failed { .. } => "failed",
        Verdict::Stopped(_) => "stopped",
        Verdict::Ending => "ending",
        Verdict::Leaving => "leaving",
    }
}

/// The word of a protection class, as in the configuration.
#[must_use]
pub fn class_word(class: Protection) -> &'static str {
    match class {
        Protection::None => "none",
        Protection::Restart => "restart",
        Protection::Failover => "failover",
        Protection::Continuous => "continuous",
    }
}

/// Outages and availability of all guests, or of the one with this name or uuid.
#[must_use]
pub fn availability(book: &Book, guest: Option<&str>, now: Now) -> Vec<Availability> {
    let mut book = book.clone();
    book.account(now.mono);
    let wanted = |page: &&Page| guest.is_none_or(|name| names(page, name));
    let mut lines: Vec<_> = book
        .pages
        .values()
        .filter(wanted)
        .map(|page| of_page(page, now))
        .collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines
}

/// Whether `name` means this guest.
#[must_use]
pub fn names(page: &Page, name: &str) -> bool {
    page.name == name || page.guest.to_string() == name
}

fn of_page(page: &Page, now: Now) -> Availability {
    let outages = || page.past.iter().chain(page.outage.as_ref());
    let summary = summary(&page.account, outages(), now);
    Availability {
        name: page.name.clone(),
        uuid: page.guest.to_string(),
        observed_ms: millis(summary.observed),
        unobserved_ms: millis(summary.unobserved),
        down_ms: millis(summary.down),
        planned_ms: millis(summary.planned),
        failures: summary.failures,
        parts_per_million: parts_per_million(&summary),
        text: sentence(&summary),
        outages: outages().map(|outage| outage_line(outage, now)).collect(),
    }
}

fn outage_line(outage: &Outage, now: Now) -> OutageLine {
    let detected = outage.detected.mono;
    OutageLine {
        cause: outage.cause.to_string(),
        planned: outage.cause.planned(),
        began_wall_ms: outage.began.wall.0,
        length_ms: millis(outage.length(now)),
        detect_ms: millis(outage.time_to_detect()),
        restart_ms: outage.restarted.map(|at| millis(at.mono.since(detected))),
        restore_ms: outage.time_to_restore().map(millis),
        end: outage.ended.map(|(_, end)| end_word(end).to_owned()),
    }
}

fn end_word(end: End) -> &'static str {
    match end {
        End::Restored => "restored",
        End::Removed => "removed",
        End::GivenUp => "given up",
        End::HostRebooted => "host rebooted",
    }
}

/// An entry as an event; `None` for bookkeeping.
#[must_use]
pub fn event(entry: &Entry, book: &Book) -> Option<EventLine> {
    let (kind, text) = told(&entry.record, book)?;
    let guest: Option<Handle> = entry.record.guest();
    Some(EventLine {
        seq: entry.seq,
        wall_ms: entry.at.wall.0,
        guest: guest
            .and_then(|guest| book.pages.get(&guest))
            .map(|page| page.name.clone()),
        uuid: guest.map(|guest| guest.to_string()),
        kind: kind.to_owned(),
        text,
    })
}

fn told(record: &Record, book: &Book) -> Option<(&'static str, String)> {
    Some(match record {
        Record::Opened { release, .. } => ("opened", format!("monitor {release} started")),
        Record::AgentUp { release, xen } => {
            ("agent_up", format!("agent {release} connected (Xen {xen})"))
        }
        Record::AgentDown { why } => ("agent_down", format!("agent lost: {why}")),
        Record::Stalled { ms } => {
            let span = human(Duration::from_millis(*ms));
            (
                "stalled",
                format!("the monitor itself stood still for {span}; nothing is concluded from it"),
            )
        }
        Record::Known {
            domid, protection, ..
        } => (
            "known",
            format!("{}, protection {}", domain(*domid), class_word(*protection)),
        ),
        Record::Signs { signs, .. } => {
            let mut seen = Vec::new();
            if signs.heartbeat {
                seen.push("heartbeat".to_owned());
            }
            match signs.probes.count_ones() {
                0 => {}
                1 => seen.push("1 probe".to_owned()),
                more => seen.push(format!("{more} probes")),
            }
            (
                "signs",
                format!(
                    "shows {}",
                    if seen.is_empty() {
                        "nothing".to_owned()
                    } else {
                        seen.join(" and ")
                    }
                ),
            )
        }
        Record::ShutDown { reason, .. } => {
            ("shut_down", format!("shut down: {}", reason_word(*reason)))
        }
        Record::Gone { .. } => ("gone", "removed".to_owned()),
        Record::Remark { text, .. } => ("remark", text.clone()),
        Record::OutageBegan { cause, .. } => ("outage_began", format!("outage: {cause}")),
        Record::OutageEnded { guest, end } => ("outage_ended", ended(*end, book, *guest)),
        Record::Intent {
            deed, domid, why, ..
        } => match deed {
            Deed::Restart => ("intent", format!("restarting {} ({why})", domain(*domid))),
            Deed::GiveUp => ("intent", format!("giving up {}: {why}", domain(*domid))),
        },
        Record::Outcome { outcome, .. } => ("outcome", outcome_text(outcome)),
        Record::GaveUp { why, .. } => ("gave_up", format!("given up: {why}")),
        Record::Pardoned { .. } => ("pardoned", "stable again; protected again".to_owned()),
        Record::Alive | Record::Continued { .. } | Record::Page(_) => return None,
    })
}

fn domain(domid: Option<DomId>) -> String {
    domid.map_or_else(|| "no domain".to_owned(), |domid| format!("domain {domid}"))
}

fn ended(end: End, book: &Book, guest: Handle) -> String {
    let last = book.pages.get(&guest).and_then(|page| page.past.back());
    match (end, last) {
        (End::Restored, Some(outage)) => {
            format!(
                "serves again after {}",
                human(outage.length(Now::default()))
            )
        }
        (end, _) => format!("outage over: {}", end_word(end)),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { domid: Some(domid) } => format!("done: domain {domid}"),
        Outcome::Done { domid: None } => "done".to_owned(),
        Outcome::FoundDone { domid } => format!("found done: {}", domain(*domid)),
        Outcome::Failed { why } => format!("failed: {why}"),
        Outcome::Unknown { why } => format!("unknown: {why}"),
        Outcome::Gone => "the guest was removed meanwhile".to_owned(),
    }
}
