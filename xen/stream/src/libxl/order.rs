//! What may follow what in a libxl stream.
//!
//! ```text
//!                                 END of the image                        EMULATOR_...
//!                                ┌───────────────────────────────────▶ After ──END──▶ Ended
//!   Start ──LIBXC_CONTEXT──▶ Image ──CHECKPOINT of the image──▶ Checkpoint
//!                                ▲                               │  EMULATOR_...
//!                                └────────CHECKPOINT_END─────────┘
//! ```
//!
//! While the state is Image, records are those of libxc. A device model's keys and its context come at most once each, in
//! any order, and never with a PV domain. COLO's CHECKPOINT_STATE is refused.

use crate::libxc::DomainKind;
use crate::libxl::Kind;

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The image comes first.
    Start,
    /// In the image.
    Image,
    /// In a checkpoint, after its part of the image.
    Checkpoint,
    /// After the image.
    After,
    /// Nothing may follow.
    Ended,
}

/// Why a record may not come now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The image has to come first.
    #[error("comes before LIBXC_CONTEXT")]
    BeforeImage,
    /// There is one image.
    #[error("comes twice")]
    Twice,
    /// Not in a checkpoint.
    #[error("is not in a checkpoint")]
    NoCheckpoint,
    /// In a checkpoint.
    #[error("is in the middle of a checkpoint")]
    InCheckpoint,
    /// PV domains have no device model.
    #[error("has no place beside the image of a PV domain")]
    Pv,
    /// COLO.
    #[error("is of COLO, which is not offered")]
    Colo,
    /// Records of this layer, while the image goes on.
    #[error("is in the middle of the image")]
    InImage,
    /// Nothing follows END.
    #[error("comes after END")]
    Ended,
}

/// One arrow of the picture above.
///
/// # Errors
/// There is no such arrow.
pub const fn step(phase: Phase, kind: Kind) -> Result<Phase, Refusal> {
    use Kind as K;
    use Phase as P;
    match (phase, kind) {
        (P::Ended, _) => Err(Refusal::Ended),
        (P::Image, _) => Err(Refusal::InImage),
        (_, K::CheckpointState) => Err(Refusal::Colo),
        (P::Start, K::LibxcContext) => Ok(P::Image),
        (P::Checkpoint | P::After, K::LibxcContext) => Err(Refusal::Twice),
        (P::Start, K::EmulatorXenstoreData | K::EmulatorContext | K::CheckpointEnd | K::End) => {
            Err(Refusal::BeforeImage)
        }
        (P::Checkpoint, K::EmulatorXenstoreData | K::EmulatorContext) => Ok(P::Checkpoint),
        (P::After, K::EmulatorXenstoreData | K::EmulatorContext) => Ok(P::After),
        (P::Checkpoint, K::CheckpointEnd) => Ok(P::Image),
        (P::After, K::CheckpointEnd) => Err(Refusal::NoCheckpoint),
        (P::Checkpoint, K::End) => Err(Refusal::InCheckpoint),
        (P::After, K::End) => Ok(P::Ended),
    }
}

/// The order of one stream, as far as it went.
#[derive(Debug, Clone)]
pub struct Order {
    phase: Phase,
    /// Bit of each device model record since the image was last left.
    seen: u32,
    domain: Option<DomainKind>,
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

impl Order {
    /// At the beginning, after the header.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phase: Phase::Start,
            seen: 0,
            domain: None,
        }
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes note of a record by its kind, before its body is read.
    ///
    /// # Errors
    /// It may not come now; the order is as before.
    pub fn admit(&mut self, kind: Kind) -> Result<(), Refusal> {
        let next = step(self.phase, kind)?;
        let bit = 1 << kind.number();
        if matches!(kind, Kind::EmulatorXenstoreData | Kind::EmulatorContext) {
            if self.domain == Some(DomainKind::Pv) {
                return Err(Refusal::Pv);
            }
            if self.seen & bit != 0 {
                return Err(Refusal::Twice);
            }
        }
        self.seen |= bit;
        self.phase = next;
        Ok(())
    }

    /// The image says whose it is.
    pub const fn image_is_of(&mut self, domain: DomainKind) {
        self.domain = Some(domain);
    }

    /// The image has come to its END, or to a CHECKPOINT.
    pub const fn leave_image(&mut self, at_checkpoint: bool) {
        self.seen = 0;
        self.phase = if at_checkpoint {
            Phase::Checkpoint
        } else {
            Phase::After
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair of the picture; everything else is refused.
    #[test]
    fn the_picture_is_the_code() {
        use Kind as K;
        use Phase as P;
        let arrows = [
            (P::Start, K::LibxcContext, P::Image),
            (P::Checkpoint, K::EmulatorXenstoreData, P::Checkpoint),
            (P::Checkpoint, K::EmulatorContext, P::Checkpoint),
            (P::Checkpoint, K::CheckpointEnd, P::Image),
            (P::After, K::EmulatorXenstoreData, P::After),
            (P::After, K::EmulatorContext, P::After),
            (P::After, K::End, P::Ended),
        ];
        for phase in [P::Start, P::Image, P::Checkpoint, P::After, P::Ended] {
            for kind in K::ALL {
                let drawn = arrows
                    .iter()
                    .find(|(from, by, _)| (*from, *by) == (phase, kind))
                    .map(|(_, _, to)| *to);
                assert_eq!(step(phase, kind).ok(), drawn, "{phase:?} {kind}");
            }
        }
    }
}
