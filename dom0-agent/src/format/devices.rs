//! `xl block-list` and `xl network-list`.
//!
//! Numbers are shown as xenstore has them, -1 where it has none. State is the frontend's `XenbusState`.

use super::list::put;

/// One disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    /// Device number: 51712, not `xvda`.
    pub vdev: i64,
    /// Domain of the backend.
    pub backend_domid: i64,
    /// Domain of the frontend.
    pub handle: i64,
    /// State of the frontend.
    pub state: i64,
    /// Event channel.
    pub event_channel: i64,
    /// Grant reference of the ring.
    pub ring_ref: i64,
    /// Backend directory in xenstore.
    pub backend_path: String,
}

/// Header and rows of `xl block-list`.
#[must_use]
pub fn block_list(rows: &[BlockRow]) -> String {
    let mut out = format!(
        "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30}\n",
        "Vdev", "BE", "handle", "state", "evt-ch", "ring-ref", "BE-path"
    );
    for row in rows {
        let BlockRow {
            vdev,
            backend_domid,
            handle,
            state,
            event_channel,
            ring_ref,
            backend_path,
        } = row;
        put(
            &mut out,
            format_args!(
                "{vdev:<5} {backend_domid:<3} {handle:<6} {state:<5} {event_channel:<6} \
                 {ring_ref:<8} {backend_path:<30}\n"
            ),
        );
    }
    out
}

/// One interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Device number.
    pub index: i64,
    /// Domain of the backend.
    pub backend_domid: i64,
    /// MAC address, in lower case.
    pub mac: String,
    /// Handle, the same as the device number.
    pub handle: i64,
    /// State of the frontend.
    pub state: i64,
    /// Event channel.
    pub event_channel: i64,
    /// Grant reference of the transmit ring.
    pub tx_ring_ref: i64,
    /// Grant reference of the receive ring.
    pub rx_ring_ref: i64,
    /// Backend directory in xenstore.
    pub backend_path: String,
}

/// Header and rows of `xl network-list`.
#[must_use]
pub fn network_list(rows: &[NetworkRow]) -> String {
    let mut out = format!(
        "{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:>5}/{:<5} {:<30}\n",
        "Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-ring-ref", "BE-path"
    );
    for row in rows {
        put(
            &mut out,
            format_args!("{:<3} {:<2} {}", row.index, row.backend_domid, row.mac),
        );
        put(
            &mut out,
            format_args!(
                "{:>6} {:>5} {:>6}",
                row.handle, row.state, row.event_channel
            ),
        );
        put(
            &mut out,
            format_args!(" {:>5}/{:<11}", row.tx_ring_ref, row.rx_ring_ref),
        );
        put(&mut out, format_args!(" {:<30}\n", row.backend_path));
    }
    out
}
