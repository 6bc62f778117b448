//! What a disk offers and what an order may have agreed with the frontend. The agent parses the frontend's strings; the numbers are
//! judged here again, since they come from the guest.

use super::wire;
use crate::ring::back::entries_of;
use parapet_wire::driver::{ConnectDisk, Medium, offer};
use std::collections::HashSet;

/// Backend nodes of xenstore that describe a medium and what can be done with it, as (name, value). To be written before state 2,
/// so that GRUB, which does not wait, finds them.
#[must_use]
pub fn nodes(medium: &Medium, read_only: bool) -> Vec<(&'static str, String)> {
    let mut nodes = vec![
        ("sectors", medium.sectors.to_string()),
        ("sector-size", medium.sector_size.to_string()),
        (
            "physical-sector-size",
            medium.physical_sector_size.to_string(),
        ),
        ("info", if read_only { "4" } else { "0" }.to_owned()),
        ("feature-flush-cache", "1".to_owned()),
        ("feature-barrier", "1".to_owned()),
        ("feature-persistent", "1".to_owned()),
        (
            "feature-max-indirect-segments",
            offer::DISK_MAX_INDIRECT_SEGMENTS.to_string(),
        ),
        (
            "max-ring-page-order",
            offer::DISK_MAX_RING_PAGE_ORDER.to_string(),
        ),
        ("multi-queue-max-queues", offer::DISK_MAX_QUEUES.to_string()),
    ];
    if let Some(granularity) = medium.discard_granularity.filter(|_| !read_only) {
        nodes.push(("feature-discard", "1".to_owned()));
        nodes.push(("discard-granularity", granularity.to_string()));
        nodes.push(("discard-alignment", "0".to_owned()));
        nodes.push(("discard-secure", "0".to_owned()));
    }
    nodes
}

/// Why an order is refused: nothing was mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Number of rings.
    #[error("{0} rings, 1 to {max} are offered", max = offer::DISK_MAX_QUEUES)]
    Queues(usize),
    /// Pages of a ring.
    #[error("a ring of {0} pages; a power of two up to {max} is offered", max = 1 << offer::DISK_MAX_RING_PAGE_ORDER)]
    Pages(usize),
    /// Rings of different sizes.
    #[error("the rings differ in size")]
    Uneven,
    /// The same page twice.
    #[error("grant reference {0} is named twice")]
    SharedPage(u32),
    /// The same port twice.
    #[error("event channel {0} is named twice")]
    SharedPort(u32),
}

/// Slots of each ring of an order.
///
/// # Errors
/// The order is outside of what is offered, or names something twice.
pub fn check(order: &ConnectDisk) -> Result<u32, Disagreement> {
    let queues = order.rings.len();
    if queues == 0 || queues > offer::DISK_MAX_QUEUES as usize {
        return Err(Disagreement::Queues(queues));
    }
    let pages = order.rings[0].refs.len();
    if !pages.is_power_of_two() || pages > 1 << offer::DISK_MAX_RING_PAGE_ORDER {
        return Err(Disagreement::Pages(pages));
    }
    let (mut refs, mut ports) = (HashSet::new(), HashSet::new());
    for ring in &order.rings {
        if ring.refs.len() != pages {
            return Err(Disagreement::Uneven);
        }
        if let Some(gref) = ring.refs.iter().find(|gref| !refs.insert(**gref)) {
            return Err(Disagreement::SharedPage(gref.0));
        }
        if !ports.insert(ring.port) {
            return Err(Disagreement::SharedPort(ring.port.0));
        }
    }
    Ok(entries_of(pages, wire::stride(order.protocol)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parapet_wire::driver::{Protocol, Ring};
    use xen_abi::ids::{GrantRef, Port};

    fn order(rings: &[(&[u32], u32)]) -> ConnectDisk {
        let rings = rings
            .iter()
            .map(|(refs, port)| Ring {
                refs: refs.iter().map(|gref| GrantRef(*gref)).collect(),
                port: Port(*port),
            })
            .collect();
        ConnectDisk {
            devid: 1,
            protocol: Protocol::X86_64,
            persistent: true,
            rings,
            resume: false,
        }
    }

    #[test]
    fn what_is_offered_is_accepted() {
        assert_eq!(check(&order(&[(&[1], 1)])), Ok(32));
        assert_eq!(check(&order(&[(&[1, 2], 1), (&[3, 4], 2)])), Ok(64));
    }

    #[test]
    fn what_is_not_is_refused_by_name() {
        assert_eq!(check(&order(&[])), Err(Disagreement::Queues(0)));
        assert_eq!(check(&order(&[(&[], 1)])), Err(Disagreement::Pages(0)));
        assert_eq!(
            check(&order(&[(&[1, 2, 3], 1)])),
            Err(Disagreement::Pages(3))
        );
        assert_eq!(
            check(&order(&[(&[1], 1), (&[2, 3], 2)])),
            Err(Disagreement::Uneven)
        );
        assert_eq!(
            check(&order(&[(&[1], 1), (&[1], 2)])),
            Err(Disagreement::SharedPage(1))
        );
        assert_eq!(
            check(&order(&[(&[1], 1), (&[2], 1)])),
            Err(Disagreement::SharedPort(1))
        );
        let refs: Vec<u32> = (0..32).collect();
        assert_eq!(check(&order(&[(&refs, 1)])), Err(Disagreement::Pages(32)));
    }
}
