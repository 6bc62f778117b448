//! What an interface may be asked to serve, and what its tap is told.

use parapet_wire::driver::{ConnectNet, NetFeatures, offer};
use std::collections::HashSet;
use xen_host::tap::Offload;

/// Why an order is refused: nothing was mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Number of queues.
    #[error("{0} queues, 1 to {max} are offered", max = offer::NET_MAX_QUEUES)]
    Queues(usize),
    /// The same page twice.
    #[error("grant reference {0} is named twice")]
    SharedPage(u32),
    /// The same port twice.
    #[error("event channel {0} is named twice")]
    SharedPort(u32),
}

/// Judges an order.
///
/// # Errors
/// It is outside of what is offered, or names something twice.
pub fn check(order: &ConnectNet) -> Result<(), Disagreement> {
    let queues = order.queues.len();
    if queues == 0 || queues > offer::NET_MAX_QUEUES as usize {
        return Err(Disagreement::Queues(queues));
    }
    let (mut refs, mut ports) = (HashSet::new(), HashSet::new());
    for queue in &order.queues {
        for gref in [queue.tx_ref, queue.rx_ref] {
            if !refs.insert(gref) {
                return Err(Disagreement::SharedPage(gref.0));
            }
        }
        // One port for both rings is what a frontend without split event channels has.
        let both = if queue.tx_port == queue.rx_port {
            vec![queue.tx_port]
        } else {
            vec![queue.tx_port, queue.rx_port]
        };
        for port in both {
            if !ports.insert(port) {
                return Err(Disagreement::SharedPort(port.0));
            }
        }
    }
    Ok(())
}

/// What the host may leave undone in packets for this frontend. Checksums missing in one IP version only are made here.
#[must_use]
pub fn offload(can: NetFeatures) -> Offload {
    Offload {
        checksum: can.csum_ipv4 || can.csum_ipv6,
        tso4: can.sg && can.gso_tcpv4 && can.csum_ipv4,
        tso6: can.sg && can.gso_tcpv6 && can.csum_ipv6,
    }
}
