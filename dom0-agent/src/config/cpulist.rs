//! CPU lists: `all`, `0-3,5,^1`, `node:0,^node:1`.
//!
//! Used by `cpus=`, `cpus_soft=` and `xl vcpu-pin`. Terms are applied from left to right to an empty set, so `^0`
//! alone is the empty set and `0-3,^1` leaves 0, 2 and 3. A CPU that the host does not have is dropped in silence,
//! as stock does.

use std::collections::BTreeSet;

use super::cpu::CpuSet;
use super::limits::MAX_HOST_CPUS;
use super::number::radix_prefix;

/// The CPUs of a host, as far as CPU lists need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCpus {
    /// Number of CPUs that Xen can have on this host (`nr_cpus` of physinfo, offline ones included).
    pub count: u32,
    /// CPUs of each NUMA node, by node number.
    pub nodes: Vec<CpuSet>,
}

impl HostCpus {
    /// A host with `count` CPUs in one node.
    #[must_use]
    pub fn uniform(count: u32) -> Self {
        Self {
            count,
            nodes: vec![CpuSet((0..count.min(MAX_HOST_CPUS)).collect())],
        }
    }

    /// Bits of stock's CPU maps: whole bytes, so up to seven more than there are CPUs.
    #[must_use]
    pub fn map_bits(&self) -> u32 {
        self.count.min(MAX_HOST_CPUS).next_multiple_of(8)
    }
}

/// Why a CPU list is refused. The text is stock's, without a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// `^all`.
    #[error("Can't combine \"^\" and \"all\".")]
    NotAll,
    /// A term that is neither a number nor a range.
    #[error("Invalid pcpu range: {0}.")]
    Range(String),
    /// A node that the host does not have.
    #[error("libxl_node_to_cpumap failed.")]
    Node(u64),
}

/// The set that a list stands for on `host`.
///
/// # Errors
/// The first term that is wrong.
pub fn parse_cpu_list(list: &str, host: &HostCpus) -> Result<CpuSet, CpuListError> {
    let mut set = BTreeSet::new();
    for term in list.split(',').filter(|term| !term.is_empty()) {
        apply(term, host, &mut set)?;
    }
    Ok(CpuSet(set))
}

fn apply(term: &str, host: &HostCpus, set: &mut BTreeSet<u32>) -> Result<(), CpuListError> {
    let (remove, rest) = match term.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, term),
    };
    let in_nodes = rest
        .strip_prefix("node:")
        .or_else(|| rest.strip_prefix("nodes:"));
    let range = in_nodes.unwrap_or(rest);
    if range == "all" {
        if remove {
            return Err(CpuListError::NotAll);
        }
        set.extend(0..host.map_bits());
        return Ok(());
    }
    let (first, last) = parse_range(range).ok_or_else(|| CpuListError::Range(range.into()))?;
    let mut change = |cpu: u32| match remove {
        true => drop(set.remove(&cpu)),
        false => drop(set.insert(cpu)),
    };
    if in_nodes.is_none() {
        let bound = u64::from(host.map_bits());
        (first..=last)
            .take_while(|&cpu| cpu < bound)
            .for_each(|cpu| {
                if let Ok(cpu) = u32::try_from(cpu) {
                    change(cpu);
                }
            });
        return Ok(());
    }
    for node in first..=last {
        let cpus = usize::try_from(node).ok().and_then(|n| host.nodes.get(n));
        cpus.ok_or(CpuListError::Node(node))?
            .0
            .iter()
            .for_each(|&cpu| change(cpu));
    }
    Ok(())
}

/// `N` or `N-M` with N not above M, nothing behind it.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (first, rest) = radix_prefix(text.trim_start(), 10)?;
    let (last, rest) = match rest.strip_prefix('-') {
        Some(rest) => radix_prefix(rest, 10)?,
        None => (first, rest),
    };
    (rest.is_empty() && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two_nodes() -> HostCpus {
        let node = |range: std::ops::Range<u32>| CpuSet(range.collect());
        HostCpus {
            count: 8,
            nodes: vec![node(0..4), node(4..8)],
        }
    }

    #[test]
    fn lists_mean_what_the_manual_says() {
        let cases: [(&str, &[u32]); 16] = [
            ("all", &[0, 1, 2, 3, 4, 5, 6, 7]),
            ("nodes:all", &[0, 1, 2, 3, 4, 5, 6, 7]),
            ("all,nodes:all", &[0, 1, 2, 3, 4, 5, 6, 7]),
            ("all,^nodes:0,all", &[0, 1, 2, 3, 4, 5, 6, 7]),
            ("2", &[2]),
            ("0-3", &[0, 1, 2, 3]),
            ("0-3,5,^1", &[0, 2, 3, 5]),
            ("^0", &[]),
            ("", &[]),
            ("all,^0", &[1, 2, 3, 4, 5, 6, 7]),
            ("node:1", &[4, 5, 6, 7]),
            ("nodes:0-1,^nodes:0", &[4, 5, 6, 7]),
            ("node:0,^2", &[0, 1, 3]),
            ("0-3,^node:0,2", &[2]),
            ("6-99999999999", &[6, 7]),
            (",,1,,", &[1]),
        ];
        for (list, want) in cases {
            let got = parse_cpu_list(list, &two_nodes()).unwrap();
            assert_eq!(got.0.into_iter().collect::<Vec<_>>(), want, "{list:?}");
        }
    }

    #[test]
    fn wrong_terms_are_refused_in_stock_wording() {
        let cases = [
            ("foo", "Invalid pcpu range: foo."),
            ("3-1", "Invalid pcpu range: 3-1."),
            ("1-", "Invalid pcpu range: 1-."),
            ("1x", "Invalid pcpu range: 1x."),
            ("-1", "Invalid pcpu range: -1."),
            ("^all", "Can't combine \"^\" and \"all\"."),
            ("all,^nodes:all", "Can't combine \"^\" and \"all\"."),
            ("node:2", "libxl_node_to_cpumap failed."),
        ];
        for (list, want) in cases {
            let error = parse_cpu_list(list, &two_nodes()).unwrap_err();
            assert_eq!(error.to_string(), want, "{list:?}");
        }
    }

    #[test]
    fn maps_are_whole_bytes_as_in_stock() {
        let one_cpu = HostCpus::uniform(1);
        assert_eq!(parse_cpu_list("all", &one_cpu).unwrap().0.len(), 8);
    }

    proptest! {
        #[test]
        fn any_text_ends_and_stays_on_the_host(list in "[-0-9a-z^:,]{0,60}") {
            if let Ok(set) = parse_cpu_list(&list, &two_nodes()) {
                prop_assert!(set.0.iter().all(|&cpu| cpu < 8));
            }
        }
    }
}
