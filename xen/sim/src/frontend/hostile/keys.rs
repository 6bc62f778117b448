//! Bad values in xenstore: what a frontend writes before it says that it is ready.

use crate::frontend::blk::BlkFront;
use crate::frontend::net::NetFront;

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttack {
    /// Which key.
    pub key: &'static str,
    /// Its value; `None` leaves it out, `@other` is that of another key.
    pub value: Option<String>,
}

/// Values no number key should have.
const NO_NUMBERS: [&str; 9] = [
    "",
    "-1",
    "0x10",
    "99999999999999999999",
    " 8",
    "8 ",
    "8\n9",
    "eight",
    "\u{0}",
];
/// Bytes of the longest value xenstored takes from a guest.
const LONGEST: usize = 2048;

fn numbers(key: &'static str) -> Vec<KeyAttack> {
    let mut attacks: Vec<KeyAttack> = NO_NUMBERS
        .iter()
        .map(|value| KeyAttack {
            key,
            value: Some((*value).to_owned()),
        })
        .collect();
    attacks.push(KeyAttack {
        key,
        value: Some("7".repeat(LONGEST)),
    });
    attacks.push(KeyAttack { key, value: None });
    attacks
}

fn set(key: &'static str, value: &str) -> KeyAttack {
    KeyAttack {
        key,
        value: Some(value.to_owned()),
    }
}

impl KeyAttack {
    /// Everything that can be wrong with a disk's keys.
    #[must_use]
    pub fn disk() -> Vec<KeyAttack> {
        let mut attacks = numbers("ring-ref");
        attacks.extend(numbers("event-channel"));
        attacks.extend([
            set("ring-ref", "16777215"),
            set("ring-ref", "4294967295"),
            set("event-channel", "0"),
            set("event-channel", "1023"),
            set("protocol", "sparc64-abi"),
            set("protocol", ""),
            set("ring-page-order", "31"),
            set("ring-page-order", "4294967295"),
            set("ring-page-order", "-1"),
            set("multi-queue-num-queues", "0"),
            set("multi-queue-num-queues", "1000000"),
            set("multi-queue-num-queues", "2"),
            set("feature-persistent", "maybe"),
        ]);
        attacks
    }

    /// What can be wrong between the queues of a disk or interface with at least two: the same ring or port twice, a queue left out.
    #[must_use]
    pub fn two_queues(disk: bool) -> Vec<KeyAttack> {
        if disk {
            return vec![
                set("queue-1/ring-ref", "@queue-0/ring-ref"),
                set("queue-1/event-channel", "@queue-0/event-channel"),
                KeyAttack {
                    key: "queue-1/ring-ref",
                    value: None,
                },
                KeyAttack {
                    key: "queue-0/event-channel",
                    value: None,
                },
                set("multi-queue-num-queues", "3"),
            ];
        }
        vec![
            set("queue-1/tx-ring-ref", "@queue-0/tx-ring-ref"),
            set("queue-1/tx-ring-ref", "@queue-1/rx-ring-ref"),
            set("queue-1/event-channel-rx", "@queue-0/event-channel-rx"),
            KeyAttack {
                key: "queue-1/rx-ring-ref",
                value: None,
            },
            KeyAttack {
                key: "queue-0/event-channel-tx",
                value: None,
            },
            set("multi-queue-num-queues", "3"),
        ]
    }

    /// Everything that can be wrong with an interface's keys.
    #[must_use]
    pub fn interface() -> Vec<KeyAttack> {
        let mut attacks = numbers("tx-ring-ref");
        attacks.extend(numbers("rx-ring-ref"));
        attacks.extend(numbers("event-channel-tx"));
        attacks.extend([
            set("tx-ring-ref", "16777215"),
            set("rx-ring-ref", "4294967295"),
            set("event-channel-rx", "0"),
            set("event-channel-rx", "1023"),
            set("request-rx-copy", "0"),
            set("request-rx-copy", "x"),
            set("multi-queue-num-queues", "0"),
            set("multi-queue-num-queues", "1000000"),
            set("multi-queue-num-queues", "2"),
            set("ctrl-ring-ref", "16777215"),
            set("event-channel-ctrl", "1023"),
        ]);
        attacks
    }

    /// Makes a disk's frontend publish it; before it steps.
    pub fn arm_disk(&self, front: &mut BlkFront) {
        front.override_key(self.key, self.value.as_deref());
    }

    /// Makes an interface's frontend publish it; before it steps.
    pub fn arm_interface(&self, front: &mut NetFront) {
        front.override_key(self.key, self.value.as_deref());
    }
}
