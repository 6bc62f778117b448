//! Network requests and responses. Source: `xen/io/netif.h`.
//!
//! ```text
//!   transmit:  request(size = whole packet) [extra ...] request(size = its own) ...     one answer per slot
//!   receive:   request(empty page) ...   answer(first piece) [extra ...] answer ...     each in its request's slot
//! ```
//!
//! The layouts are the same for 32-bit guests. Take entries out with [`crate::layout::copy_out`] from private copies;
//! nothing in them is checked.

use crate::ids::GrantRef;
use crate::layout;
use crate::layout::copy_out;

crate::constants! {
    /// Slots one packet may take that every backend accepts.
    pub const NR_SLOTS_MIN: usize = 18 => "XEN_NETIF_NR_SLOTS_MIN";
    /// Longest packet, bytes.
    pub const MAX_TX_SIZE: usize = 0xffff => "XEN_NETIF_MAX_TX_SIZE";

    /// [`TxRequest::flags`]: the checksum is still to be made.
    pub const TXF_CSUM_BLANK: u16 = 1 << 0 => "NETTXF_csum_blank";
    /// [`TxRequest::flags`]: the data is known good.
    pub const TXF_DATA_VALIDATED: u16 = 1 << 1 => "NETTXF_data_validated";
    /// [`TxRequest::flags`]: the packet goes on in the next request.
    pub const TXF_MORE_DATA: u16 = 1 << 2 => "NETTXF_more_data";
    /// [`TxRequest::flags`]: extras follow.
    pub const TXF_EXTRA_INFO: u16 = 1 << 3 => "NETTXF_extra_info";

    /// [`RxResponse::flags`]: the data is known good.
    pub const RXF_DATA_VALIDATED: u16 = 1 << 0 => "NETRXF_data_validated";
    /// [`RxResponse::flags`]: the checksum is still to be made.
    pub const RXF_CSUM_BLANK: u16 = 1 << 1 => "NETRXF_csum_blank";
    /// [`RxResponse::flags`]: the packet goes on in the next response.
    pub const RXF_MORE_DATA: u16 = 1 << 2 => "NETRXF_more_data";
    /// [`RxResponse::flags`]: extras follow.
    pub const RXF_EXTRA_INFO: u16 = 1 << 3 => "NETRXF_extra_info";

    /// Dropped.
    pub const RSP_DROPPED: i16 = -2 => "NETIF_RSP_DROPPED";
    /// Failed.
    pub const RSP_ERROR: i16 = -1 => "NETIF_RSP_ERROR";
    /// Sent.
    pub const RSP_OKAY: i16 = 0 => "NETIF_RSP_OKAY";
    /// No answer: the slot held an extra.
    pub const RSP_NULL: i16 = 1 => "NETIF_RSP_NULL";

    /// [`ExtraInfo::kind`]: segmentation.
    pub const EXTRA_GSO: u8 = 1 => "XEN_NETIF_EXTRA_TYPE_GSO";
    /// [`ExtraInfo::kind`]: take a multicast address.
    pub const EXTRA_MCAST_ADD: u8 = 2 => "XEN_NETIF_EXTRA_TYPE_MCAST_ADD";
    /// [`ExtraInfo::kind`]: drop a multicast address.
    pub const EXTRA_MCAST_DEL: u8 = 3 => "XEN_NETIF_EXTRA_TYPE_MCAST_DEL";
    /// [`ExtraInfo::kind`]: hash.
    pub const EXTRA_HASH: u8 = 4 => "XEN_NETIF_EXTRA_TYPE_HASH";
    /// [`ExtraInfo::kind`]: headroom. Of Linux; Xen's header ends before it.
    pub const EXTRA_XDP: u8 = 5;
    /// [`ExtraInfo::flags`]: another extra follows.
    pub const EXTRA_FLAG_MORE: u8 = 1 => "XEN_NETIF_EXTRA_FLAG_MORE";

    /// Segmentation: none.
    pub const GSO_NONE: u8 = 0 => "XEN_NETIF_GSO_TYPE_NONE";
    /// Segmentation: TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1 => "XEN_NETIF_GSO_TYPE_TCPV4";
    /// Segmentation: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 2 => "XEN_NETIF_GSO_TYPE_TCPV6";

    /// [`CtrlRequest::kind`]: read hash flags.
    pub const CTRL_GET_HASH_FLAGS: u16 = 1 => "XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS";
    /// [`CtrlRequest::kind`]: set hash flags.
    pub const CTRL_SET_HASH_FLAGS: u16 = 2 => "XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS";
    /// [`CtrlRequest::kind`]: set the hash key.
    pub const CTRL_SET_HASH_KEY: u16 = 3 => "XEN_NETIF_CTRL_TYPE_SET_HASH_KEY";
    /// [`CtrlRequest::kind`]: read the size of the hash map.
    pub const CTRL_GET_HASH_MAPPING_SIZE: u16 = 4 => "XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE";
    /// [`CtrlRequest::kind`]: set the size of the hash map.
    pub const CTRL_SET_HASH_MAPPING_SIZE: u16 = 5 => "XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE";
    /// [`CtrlRequest::kind`]: set part of the hash map.
    pub const CTRL_SET_HASH_MAPPING: u16 = 6 => "XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING";
    /// [`CtrlRequest::kind`]: set the hash algorithm.
    pub const CTRL_SET_HASH_ALGORITHM: u16 = 7 => "XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM";
    /// [`CtrlResponse::status`]: done.
    pub const CTRL_STATUS_SUCCESS: u32 = 0 => "XEN_NETIF_CTRL_STATUS_SUCCESS";
    /// [`CtrlResponse::status`]: not here.
    pub const CTRL_STATUS_NOT_SUPPORTED: u32 = 1 => "XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED";
    /// [`CtrlResponse::status`]: not so.
    pub const CTRL_STATUS_INVALID_PARAMETER: u32 = 2 => "XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER";
}

/// Bytes of an entry of the transmit ring.
pub const TX_ENTRY_BYTES: usize = size_of::<TxRequest>();
/// Bytes of an entry of the receive ring.
pub const RX_ENTRY_BYTES: usize = size_of::<RxRequest>();
/// Slots of each ring; both are one page.
pub const RING_SLOTS: u32 = 256;

layout! {
    /// A piece of a packet of the guest.
    pub struct TxRequest: "struct netif_tx_request", 12 {
        /// The page.
        pub gref: u32 = 0 => "gref",
        /// First byte in it.
        pub offset: u16 = 4 => "offset",
        /// `TXF_*`.
        pub flags: u16 = 6 => "flags",
        /// To be given back.
        pub id: u16 = 8 => "id",
        /// Bytes: of the whole packet in its first request, of the piece in others.
        pub size: u16 = 10 => "size",
    }
}

layout! {
    /// An answer to a [`TxRequest`] or an extra.
    pub struct TxResponse: "struct netif_tx_response", 4 {
        /// Of the request.
        pub id: u16 = 0 => "id",
        /// `RSP_*`.
        pub status: i16 = 2 => "status",
    }
}

layout! {
    /// A page for a packet to the guest.
    pub struct RxRequest: "struct netif_rx_request", 8 {
        /// To be given back.
        pub id: u16 = 0 => "id",
        /// Padding.
        pub pad: u16 = 2 => "pad",
        /// The page.
        pub gref: u32 = 4 => "gref",
    }
}

layout! {
    /// A piece of a packet to the guest.
    pub struct RxResponse: "struct netif_rx_response", 8 {
        /// Of the request.
        pub id: u16 = 0 => "id",
        /// First byte in the page.
        pub offset: u16 = 2 => "offset",
        /// `RXF_*`, in the first piece.
        pub flags: u16 = 4 => "flags",
        /// Bytes, or a negative `RSP_*`.
        pub status: i16 = 6 => "status",
    }
}

layout! {
    /// A slot that says more about its packet.
    pub struct ExtraInfo: "struct netif_extra_info", 8 {
        /// `EXTRA_*`.
        pub kind: u8 = 0 => "type",
        /// [`EXTRA_FLAG_MORE`] or 0.
        pub flags: u8 = 1 => "flags",
        /// By kind; see [`Extra`].
        pub data: [u8; 6] = 2 => "u",
    }
}

layout! {
    /// An order on the control ring.
    pub struct CtrlRequest: "struct xen_netif_ctrl_request", 16 {
        /// To be given back.
        pub id: u16 = 0 => "id",
        /// `CTRL_*`.
        pub kind: u16 = 2 => "type",
        /// By kind.
        pub data: [u32; 3] = 4 => "data",
    }
}

layout! {
    /// Its answer.
    pub struct CtrlResponse: "struct xen_netif_ctrl_response", 12 {
        /// Of the order.
        pub id: u16 = 0 => "id",
        /// Of the order.
        pub kind: u16 = 2 => "type",
        /// `CTRL_STATUS_*`.
        pub status: u32 = 4 => "status",
        /// By kind.
        pub data: u32 = 8 => "data",
    }
}

impl TxRequest {
    /// The page.
    #[must_use]
    pub const fn gref(&self) -> GrantRef {
        GrantRef(self.gref)
    }
}

/// What an extra says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Cut the packet into segments.
    Gso {
        /// Bytes of payload in each.
        size: u16,
        /// `GSO_*` or anything.
        kind: u8,
    },
    /// Take a multicast address.
    MulticastAdd([u8; 6]),
    /// Drop a multicast address.
    MulticastDel([u8; 6]),
    /// The packet's hash.
    Hash {
        /// Which headers.
        kind: u8,
        /// How.
        algorithm: u8,
        /// The hash.
        value: [u8; 4],
    },
    /// Headroom for XDP, bytes.
    Xdp(u16),
    /// Anything else.
    Unknown(u8),
}

impl ExtraInfo {
    /// What it says.
    #[must_use]
    pub const fn meaning(&self) -> Extra {
        let [a, b, c, d, e, f] = self.data;
        match self.kind {
            EXTRA_GSO => Extra::Gso {
                size: u16::from_le_bytes([a, b]),
                kind: c,
            },
            EXTRA_MCAST_ADD => Extra::MulticastAdd(self.data),
            EXTRA_MCAST_DEL => Extra::MulticastDel(self.data),
            EXTRA_HASH => Extra::Hash {
                kind: a,
                algorithm: b,
                value: [c, d, e, f],
            },
            EXTRA_XDP => Extra::Xdp(u16::from_le_bytes([a, b])),
            other => Extra::Unknown(other),
        }
    }

    /// Whether another extra follows.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.flags & EXTRA_FLAG_MORE != 0
    }

    /// Segmentation of a packet.
    #[must_use]
    pub const fn gso(kind: u8, size: u16, more: bool) -> Self {
        let [low, high] = size.to_le_bytes();
        let flags = if more { EXTRA_FLAG_MORE } else { 0 };
        Self {
            kind: EXTRA_GSO,
            flags,
            data: [low, high, kind, 0, 0, 0],
        }
    }

    /// From a private copy of a slot of either ring.
    #[must_use]
    pub fn decode(slot: &[u8]) -> Option<Self> {
        copy_out(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ring;

    #[test]
    fn a_page_holds_the_slots_the_protocol_says() {
        assert_eq!(ring::entries(0, TX_ENTRY_BYTES), Some(RING_SLOTS));
        assert_eq!(ring::entries(0, RX_ENTRY_BYTES), Some(RING_SLOTS));
    }

    #[test]
    fn extras_are_read_by_kind() {
        let gso = ExtraInfo::gso(GSO_TCPV6, 1448, true);
        assert_eq!(
            gso.meaning(),
            Extra::Gso {
                size: 1448,
                kind: GSO_TCPV6
            }
        );
        assert!(gso.more());
        let extra = |kind| ExtraInfo {
            kind,
            flags: 0,
            data: [1, 2, 3, 4, 5, 6],
        };
        assert_eq!(extra(2).meaning(), Extra::MulticastAdd([1, 2, 3, 4, 5, 6]));
        assert_eq!(extra(3).meaning(), Extra::MulticastDel([1, 2, 3, 4, 5, 6]));
        let hash = Extra::Hash {
            kind: 1,
            algorithm: 2,
            value: [3, 4, 5, 6],
        };
        assert_eq!(extra(4).meaning(), hash);
        assert_eq!(extra(5).meaning(), Extra::Xdp(0x201));
        assert_eq!(extra(0).meaning(), Extra::Unknown(0));
        assert_eq!(extra(6).meaning(), Extra::Unknown(6));
        assert_eq!(ExtraInfo::decode(&[1; 7]), None);
    }
}
