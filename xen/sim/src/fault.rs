//! Faults: which call of the seam goes wrong, and how.
//!
//! ```text
//!   call 0  1  2  3  4 ...          every call of every process is counted, those the filter takes are numbered
//!              ▲ Fault { at: 2 }    here it fails, or the caller dies before or after the effect
//! ```
//!
//! [`exhaust`] repeats a scenario with the fault at call 0, 1, 2 ... until a run has fewer calls than that: then every place was tried.

use crate::limits::MAX_EXHAUSTIVE_RUNS;
use crate::world::World;
use nix::errno::Errno;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The call fails and has no effect.
    Fail(Errno),
    /// The call has its effect, but answers with a failure. (A call that answers with a mapping fails without effect.)
    FailAfter(Errno),
    /// The calling process dies before the call has an effect. All later calls of it fail; the test then calls [`World::kill`].
    Crash,
    /// The calling process dies after the effect, before it learns of it.
    CrashAfter,
    /// Of a batch (`xs.call` outside of a transaction), a part is done; then the process dies. Elsewhere the same as `Crash`.
    CrashTorn,
    /// `populate_physmap` does at most this many extents, as when memory is fragmented. Other calls are not touched.
    Short(usize),
    /// The watch event is lost; matches the pseudo-call `xs.event` only.
    LoseWatch,
    /// The call takes this much of the world's time.
    Delay(Duration),
}

/// Which calls are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    process: Option<String>,
    ops: Vec<&'static str>,
}

impl Filter {
    /// Every call of everybody.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Calls of one process, by its label.
    #[must_use]
    pub fn process(label: &str) -> Self {
        Self {
            process: Some(label.to_owned()),
            ops: Vec::new(),
        }
    }

    /// Only these operations (`createdomain`, `xs.call`, `gnttab.map` ...; the names are in the errors).
    #[must_use]
    pub fn ops(mut self, ops: &[&'static str]) -> Self {
        self.ops = ops.to_vec();
        self
    }

    fn takes(&self, process: &str, op: &str) -> bool {
        self.process.as_deref().is_none_or(|label| label == process)
            && (self.ops.is_empty() || self.ops.contains(&op))
    }
}

/// One planned fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which of the matching calls, from 0.
    pub at: u64,
    /// Which calls are counted.
    pub filter: Filter,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many matching calls in a row go wrong (1 usually).
    pub times: u64,
}

impl Fault {
    /// The `at`-th call of anybody goes wrong.
    #[must_use]
    pub fn at(at: u64, kind: FaultKind) -> Self {
        Self {
            at,
            filter: Filter::any(),
            kind,
            times: 1,
        }
    }

    /// Only calls that `filter` takes count.
    #[must_use]
    pub fn of(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Goes wrong this many times in a row.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

/// Planned faults and what was counted.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: Vec<(Fault, u64)>,
    fired: u64,
    calls: u64,
    log: Option<Vec<(String, &'static str)>>,
}

impl Faults {
    pub(crate) fn plan(&mut self, fault: Fault) {
        self.planned.push((fault, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.planned.clear();
    }

    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    pub(crate) fn record(&mut self) {
        self.log = Some(Vec::new());
    }

    pub(crate) fn log(&self) -> Vec<(String, &'static str)> {
        self.log.clone().unwrap_or_default()
    }

    /// Counts a call and says what befalls it.
    pub(crate) fn next(&mut self, process: &str, op: &'static str) -> Option<FaultKind> {
        self.calls += 1;
        if let Some(log) = &mut self.log {
            log.push((process.to_owned(), op));
        }
        let mut hit = None;
        for (fault, seen) in &mut self.planned {
            if !fault.filter.takes(process, op) || !suits(fault.kind, op) {
                continue;
            }
            let number = *seen;
            *seen += 1;
            if number >= fault.at && number - fault.at < fault.times && hit.is_none() {
                hit = Some(fault.kind);
            }
        }
        self.fired += u64::from(hit.is_some());
        hit
    }
}

/// Whether this kind of fault can befall this call.
fn suits(kind: FaultKind, op: &str) -> bool {
    match kind {
        FaultKind::LoseWatch => op == "xs.event",
        FaultKind::Short(_) => op == "populate_physmap",
        FaultKind::Fail(_)
        | FaultKind::FailAfter(_)
        | FaultKind::Crash
        | FaultKind::CrashAfter
        | FaultKind::CrashTorn
        | FaultKind::Delay(_) => op != "xs.event",
    }
}

/// Runs `scenario` with the fault at the first, second, third ... matching call, until a run ends without reaching it.
///
/// The scenario makes its own world, injects the fault it is given ([`World::inject`]), runs, checks what must hold, and hands the
/// world back. Answers how many places were tried.
///
/// # Panics
/// When the scenario has no matching call at all (the test would prove nothing), or more than [`MAX_EXHAUSTIVE_RUNS`].
pub fn exhaust(kind: FaultKind, filter: &Filter, mut scenario: impl FnMut(Fault) -> World) -> u64 {
    for at in 0..MAX_EXHAUSTIVE_RUNS {
        let world = scenario(Fault::at(at, kind).of(filter.clone()));
        if world.faults_fired() == 0 {
            assert!(at > 0, "the scenario makes no call that {filter:?} takes");
            return at;
        }
    }
    panic!("more than {MAX_EXHAUSTIVE_RUNS} calls: the scenario does not end");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_its_call_and_no_other() {
        let mut faults = Faults::default();
        let filter = Filter::process("agent").ops(&["populate_physmap"]);
        faults.plan(Fault::at(1, FaultKind::Fail(Errno::ENOMEM)).of(filter));
        assert_eq!(faults.next("agent", "populate_physmap"), None);
        assert_eq!(faults.next("driver", "populate_physmap"), None);
        assert_eq!(faults.next("agent", "createdomain"), None);
        assert_eq!(faults.fired(), 0);
        let hit = faults.next("agent", "populate_physmap");
        assert_eq!(hit, Some(FaultKind::Fail(Errno::ENOMEM)));
        assert_eq!(faults.next("agent", "populate_physmap"), None);
        assert_eq!((faults.fired(), faults.calls()), (1, 5));
    }

    #[test]
    fn a_fault_can_last() {
        let mut faults = Faults::default();
        faults.plan(Fault::at(1, FaultKind::Fail(Errno::EBUSY)).times(2));
        let hits: Vec<_> = (0..4)
            .map(|_| faults.next("x", "evtchn.bind").is_some())
            .collect();
        assert_eq!(hits, [false, true, true, false]);
    }
}
