//! The leak check: everything a world still holds, as lines that can be compared and read.
//!
//! A test ends with [`Ledger::assert_empty`], or takes a ledger before and ends with [`Ledger::assert_same_as`].

use crate::grants::MapKind;
use crate::state::State;
use std::collections::BTreeSet;
use std::fmt;
use xen_abi::ids::DomId;

/// Things of other simulations that can leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A tap or another network device.
    Tap,
    /// A loop device.
    LoopDevice,
    /// A child process.
    Process,
    /// A file (journals, sockets, locks).
    File,
    /// Anything else.
    Other,
}

/// What a world held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    free_pages: u64,
    used_pages: u64,
    lines: Vec<String>,
}

impl Ledger {
    pub(crate) fn of(state: &State) -> Self {
        let mut lines = Vec::new();
        domains(state, &mut lines);
        holdings(state, &mut lines);
        lines.extend(
            orphans(state)
                .into_iter()
                .map(|path| format!("xenstore node {path}")),
        );
        for ((kind, name), count) in &state.resources {
            lines.push(format!("{kind:?} {name} open {count} times"));
        }
        lines.extend(
            state
                .violations
                .iter()
                .map(|what| format!("VIOLATION {what}")),
        );
        let accounted: u64 = accounted(state);
        let free_pages = state.free_pages();
        Self {
            free_pages,
            used_pages: accounted,
            lines,
        }
    }

    /// What is held, one line each.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Pages nobody has.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Nothing is held: no guest, no mapping, port, watch or transaction, no node of a dead guest, no resource, no broken rule.
    ///
    /// # Panics
    /// With every line that is held.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(
            self.lines.is_empty() && self.used_pages == 0,
            "the ledger is not empty:\n{self}"
        );
    }

    /// The same is held as `before`.
    ///
    /// # Panics
    /// With what is new (`+`), what is gone (`-`), and the difference in free pages.
    #[track_caller]
    pub fn assert_same_as(&self, before: &Ledger) {
        assert!(
            self == before,
            "the ledger differs:\n{}",
            self.since(before)
        );
    }

    /// What changed since `before`, as a readable difference.
    #[must_use]
    pub fn since(&self, before: &Ledger) -> String {
        let mut text = String::new();
        let mut old = before.lines.clone();
        for line in &self.lines {
            if let Some(at) = old.iter().position(|known| known == line) {
                old.remove(at);
            } else {
                text.push_str(&format!("  + {line}\n"));
            }
        }
        old.iter()
            .for_each(|line| text.push_str(&format!("  - {line}\n")));
        if self.free_pages != before.free_pages {
            text.push_str(&format!(
                "  free pages: {} before, {} now\n",
                before.free_pages, self.free_pages
            ));
        }
        text
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        writeln!(
            f,
            "  {} pages in use, {} free",
            self.used_pages, self.free_pages
        )
    }
}

fn accounted(state: &State) -> u64 {
    state
        .domains
        .iter()
        .filter(|(domid, _)| **domid != DomId::DOM0)
        .map(|(_, domain)| {
            domain.tot_pages + domain.pool_pages + domain.grant_frames.len() as u64 + 1
        })
        .sum()
}

fn domains(state: &State, lines: &mut Vec<String>) {
    for (domid, domain) in &state.domains {
        if *domid != DomId::DOM0 {
            let dying = if domain.dying { " (dying)" } else { "" };
            lines.push(format!("domain {domid}{dying}: {} pages", domain.tot_pages));
        }
    }
}

fn holdings(state: &State, lines: &mut Vec<String>) {
    let label = |process: &crate::state::ProcessId| {
        state
            .processes
            .get(process)
            .map_or("?", |process| process.label.as_str())
    };
    for map in state.maps.live() {
        let what = match &map.kind {
            MapKind::Foreign => "foreign map".to_owned(),
            MapKind::GrantTable => "grant table map".to_owned(),
            MapKind::Grants(refs) => {
                format!(
                    "grant map of {:?}",
                    refs.iter().map(|gref| gref.0).collect::<Vec<_>>()
                )
            }
        };
        let (pages, domid) = (map.mfns.len(), map.domid);
        lines.push(format!(
            "{}: {what}, {pages} pages of domain {domid}",
            label(&map.process)
        ));
    }
    for (port, end, process) in state.events.dom0_ports() {
        let who = process.as_ref().map_or("xenstored", label);
        lines.push(format!("{who}: port {port}, {end:?}"));
    }
    for process in state.events.open_handles() {
        lines.push(format!("{}: event channel descriptor", label(&process)));
    }
    for watch in state.store.watches() {
        lines.push(format!(
            "{}: watch on {}",
            label(&watch.caller.process),
            watch.path
        ));
    }
    for caller in state.store.open_transactions() {
        lines.push(format!("{}: open transaction", label(&caller.process)));
    }
}

/// Nodes of guests that are no more: their home, their backends, their libxl and vm directories. Only the topmost of each tree.
fn orphans(state: &State) -> Vec<String> {
    let lives = |text: &str| {
        text.parse::<u16>().is_ok_and(|id| {
            state
                .domains
                .get(&DomId(id))
                .is_some_and(|domain| !domain.dying)
        })
    };
    let vms: BTreeSet<String> = state
        .domains
        .values()
        .filter(|domain| !domain.dying)
        .map(|domain| domain.handle.to_string())
        .collect();
    let mut found = Vec::new();
    for path in state.store.paths() {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let orphan = match parts.as_slice() {
            ["local", "domain", id] | ["libxl", id] => !lives(id),
            ["local", "domain", _, "backend", _, id] => !lives(id),
            ["local", "domain", "0", "device-model", id] => !lives(id),
            ["vm", uuid] => !vms.contains(*uuid),
            _ => false,
        };
        if orphan {
            found.push(path.clone());
        }
    }
    found
}
