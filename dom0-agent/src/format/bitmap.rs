//! Sets of CPUs and nodes as xl prints them: `all`, `none`, `0-3,5`.

/// The text for the members of a set among the first `count` numbers.
///
/// `all` is a single run from 0 to the end; numbers from `count` on do not count.
///
/// ```
/// use dom0_agent::format::bitmap::ranges;
/// assert_eq!(ranges([0, 1, 2, 5], 8), "0-2,5");
/// assert_eq!(ranges([0, 1], 2), "all");
/// assert_eq!(ranges([], 2), "none");
/// ```
#[must_use]
pub fn ranges(members: impl IntoIterator<Item = u32>, count: u32) -> String {
    let mut members: Vec<u32> = members.into_iter().filter(|&m| m < count).collect();
    members.sort_unstable();
    members.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for member in members {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == member => *last = member,
            _ => runs.push((member, member)),
        }
    }
    match runs[..] {
        [] => "none".into(),
        [(0, last)] if last + 1 == count => "all".into(),
        _ => runs.iter().map(run).collect::<Vec<_>>().join(","),
    }
}

fn run(&(first, last): &(u32, u32)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_as_stock_writes_them() {
        let cases: [(&[u32], u32, &str); 8] = [
            (&[], 4, "none"),
            (&[0], 1, "all"),
            (&[0, 1, 2, 3], 4, "all"),
            (&[0, 1, 2, 3], 8, "0-3"),
            (&[1, 2, 3], 4, "1-3"),
            (&[3, 0, 1, 5, 7], 8, "0-1,3,5,7"),
            (&[0, 9], 8, "0"),
            (&[0], 0, "none"),
        ];
        for (members, count, want) in cases {
            assert_eq!(
                ranges(members.iter().copied(), count),
                want,
                "{members:?} of {count}"
            );
        }
    }
}
