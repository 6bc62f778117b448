//! The records of a libxl stream, each whole in memory.
//!
//! Numbers with bit 31 set are optional by the specification, and are skipped here; stock libxl of 4.20 refuses every record
//! it does not know, optional or not, so nothing of ours may stand in this layer.

use crate::bytes::{Fields, exactly};
use crate::error::Problem;
use crate::limits;

/// A record of a libxl stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// The last one.
    End = 0,
    /// The image of libxc follows.
    LibxcContext = 1,
    /// Keys of a device model in xenstore.
    EmulatorXenstoreData = 2,
    /// State of a device model.
    EmulatorContext = 3,
    /// The end of a checkpoint; the image goes on.
    CheckpointEnd = 4,
    /// COLO's conversation.
    CheckpointState = 5,
}

impl Kind {
    /// Every one of them, in order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::End,
        Self::LibxcContext,
        Self::EmulatorXenstoreData,
        Self::EmulatorContext,
        Self::CheckpointEnd,
        Self::CheckpointState,
    ];

    /// The one of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "END",
            Self::LibxcContext => "LIBXC_CONTEXT",
            Self::EmulatorXenstoreData => "EMULATOR_XENSTORE_DATA",
            Self::EmulatorContext => "EMULATOR_CONTEXT",
            Self::CheckpointEnd => "CHECKPOINT_END",
            Self::CheckpointState => "CHECKPOINT_STATE",
        }
    }

    /// The longest body that is accepted, in bytes.
    #[must_use]
    pub const fn longest(self) -> u64 {
        match self {
            Self::End | Self::LibxcContext | Self::CheckpointEnd => 0,
            Self::EmulatorXenstoreData => 8 + limits::EMULATOR_XENSTORE_BYTES,
            Self::EmulatorContext => 8 + limits::EMULATOR_CONTEXT_BYTES,
            Self::CheckpointState => 8,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which program a device model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmulatorId {
    /// Not known: converted streams.
    Unknown,
    /// QEMU as Xen once forked it.
    QemuTraditional,
    /// QEMU.
    QemuUpstream,
}

/// Whose state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Emulator {
    /// Which program.
    pub id: EmulatorId,
    /// Which of the domain's; stock has only 0.
    pub index: u32,
}

/// A relative path in xenstore with its value, both without NULs.
pub type Node = (Vec<u8>, Vec<u8>);

/// One record of a libxl stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// END.
    End,
    /// LIBXC_CONTEXT.
    LibxcContext,
    /// EMULATOR_XENSTORE_DATA: keys below the device model's directory, and values.
    EmulatorXenstoreData {
        /// Whose.
        emulator: Emulator,
        /// Each of them.
        nodes: Vec<Node>,
    },
    /// EMULATOR_CONTEXT.
    EmulatorContext {
        /// Whose.
        emulator: Emulator,
        /// For that program to understand.
        state: Vec<u8>,
    },
    /// CHECKPOINT_END.
    CheckpointEnd,
    /// CHECKPOINT_STATE, 0 to 3.
    CheckpointState(u32),
}

impl Record {
    /// Which record it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::End => Kind::End,
            Self::LibxcContext => Kind::LibxcContext,
            Self::EmulatorXenstoreData { .. } => Kind::EmulatorXenstoreData,
            Self::EmulatorContext { .. } => Kind::EmulatorContext,
            Self::CheckpointEnd => Kind::CheckpointEnd,
            Self::CheckpointState(_) => Kind::CheckpointState,
        }
    }

    /// Takes a body apart.
    ///
    /// # Errors
    /// It is not such a record.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, Problem> {
        check_longest(kind, body.len() as u64)?;
        match kind {
            Kind::End => exactly(body, 0).map(|()| Self::End),
            Kind::LibxcContext => exactly(body, 0).map(|()| Self::LibxcContext),
            Kind::CheckpointEnd => exactly(body, 0).map(|()| Self::CheckpointEnd),
            Kind::EmulatorXenstoreData => {
                let (emulator, rest) = emulator(body)?;
                let nodes = nodes(rest)?;
                Ok(Self::EmulatorXenstoreData { emulator, nodes })
            }
            Kind::EmulatorContext => {
                let (emulator, rest) = emulator(body)?;
                let state = rest.to_vec();
                Ok(Self::EmulatorContext { emulator, state })
            }
            Kind::CheckpointState => {
                // The specification has padding after the number; stock sends the number alone.
                let mut fields = Fields::of(body);
                let state = fields.u32()?;
                let rest = fields.rest();
                exactly(rest, if rest.is_empty() { 0 } else { 4 })?;
                if rest.iter().any(|byte| *byte != 0) {
                    return Err(Problem::Reserved {
                        what: "the record",
                        value: 1,
                    });
                }
                check_state(state).map(|()| Self::CheckpointState(state))
            }
        }
    }

    /// Appends the body, without header and padding.
    ///
    /// # Errors
    /// A record that [`Record::decode`] would not take.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), Problem> {
        let before = into.len();
        match self {
            Self::End | Self::LibxcContext | Self::CheckpointEnd => {}
            Self::EmulatorXenstoreData { emulator, nodes } => {
                emulator.encode(into);
                for (key, value) in nodes {
                    check_key(key)?;
                    if key.contains(&0) || value.contains(&0) {
                        return Err(Problem::Content("a key or value has a NUL in it"));
                    }
                    for text in [key, value] {
                        into.extend_from_slice(text);
                        into.push(0);
                    }
                }
            }
            Self::EmulatorContext { emulator, state } => {
                emulator.encode(into);
                into.extend_from_slice(state);
            }
            Self::CheckpointState(state) => {
                check_state(*state)?;
                into.extend_from_slice(&state.to_le_bytes());
            }
        }
        check_longest(self.kind(), (into.len() - before) as u64)
    }
}

impl Emulator {
    /// Appends it.
    fn encode(self, into: &mut Vec<u8>) {
        let id: u32 = match self.id {
            EmulatorId::Unknown => 0,
            EmulatorId::QemuTraditional => 1,
            EmulatorId::QemuUpstream => 2,
        };
        into.extend_from_slice(&id.to_le_bytes());
        into.extend_from_slice(&self.index.to_le_bytes());
    }
}

fn emulator(body: &[u8]) -> Result<(Emulator, &[u8]), Problem> {
    let mut fields = Fields::of(body);
    let id = match fields.u32()? {
        0 => EmulatorId::Unknown,
        1 => EmulatorId::QemuTraditional,
        2 => EmulatorId::QemuUpstream,
        found => {
            return Err(Problem::Value {
                what: "the device model",
                found: found.into(),
                expected: "0 to 2",
            });
        }
    };
    let index = fields.u32()?;
    Ok((Emulator { id, index }, fields.rest()))
}

/// Keys and values, each with its NUL.
fn nodes(bytes: &[u8]) -> Result<Vec<Node>, Problem> {
    let Some((0, texts)) = bytes.split_last() else {
        return if bytes.is_empty() {
            Ok(vec![])
        } else {
            Err(Problem::Content("the last value does not end in a NUL"))
        };
    };
    let mut found = vec![];
    let mut texts = texts.split(|byte| *byte == 0);
    while let Some(key) = texts.next() {
        check_key(key)?;
        let value = texts
            .next()
            .ok_or(Problem::Content("the last key has no value"))?;
        found.push((key.to_vec(), value.to_vec()));
    }
    Ok(found)
}

fn check_key(key: &[u8]) -> Result<(), Problem> {
    match key.first() {
        None => Err(Problem::Content("a key is empty")),
        Some(b'/') => Err(Problem::Content("a key is not relative")),
        Some(_) => Ok(()),
    }
}

fn check_state(state: u32) -> Result<(), Problem> {
    if state <= 3 {
        return Ok(());
    }
    Err(Problem::Value {
        what: "the state",
        found: state.into(),
        expected: "0 to 3",
    })
}

/// The limit of a kind, before its body is looked at or even read.
pub(crate) fn check_longest(kind: Kind, length: u64) -> Result<(), Problem> {
    match kind.longest() {
        0 => {
            if length == 0 {
                return Ok(());
            }
            Err(Problem::Length {
                found: length,
                expected: crate::error::Expected::Exactly(0),
            })
        }
        limit if length > limit => Err(Problem::Limit {
            what: "bytes",
            found: length,
            limit,
        }),
        _ => Ok(()),
    }
}
