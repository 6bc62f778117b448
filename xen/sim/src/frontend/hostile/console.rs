//! Impossible indexes in a console's page.

use super::Expect;
use crate::frontend::console::ConsoleFront;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleAttack {
    /// `out_prod` is this far ahead of `out_cons` (more than the ring holds).
    OutProdAhead(u32),
    /// `out_prod` goes back.
    OutProdGoesBack,
    /// `in_cons` is ahead of `in_prod`.
    InConsAhead(u32),
    /// The backend's own `out_cons` is overwritten.
    OutConsOverwritten(u32),
    /// The backend's own `in_prod` is overwritten.
    InProdOverwritten(u32),
    /// Every byte of the page is this.
    Filled(u8),
}

impl ConsoleAttack {
    /// Every attack.
    pub const ALL: &[ConsoleAttack] = &[
        Self::OutProdAhead(2049),
        Self::OutProdAhead(1 << 31),
        Self::OutProdGoesBack,
        Self::InConsAhead(1),
        Self::InConsAhead(1 << 31),
        Self::OutConsOverwritten(u32::MAX),
        Self::InProdOverwritten(u32::MAX),
        Self::Filled(0xFF),
    ];

    /// What a good backend makes of it: it reads nothing of what cannot be there, and goes on or stops.
    #[must_use]
    pub fn expect(self) -> Expect {
        Expect::RefusedOrStopped
    }

    /// Writes it and sends an event.
    pub fn launch(self, console: &ConsoleFront) {
        let page = console.page();
        let (in_cons, in_prod) = (3072, 3076);
        let (out_cons, out_prod) = (3080, 3084);
        match self {
            Self::OutProdAhead(ahead) => {
                page.store_u32(out_prod, page.load_u32(out_cons).wrapping_add(ahead));
            }
            Self::OutProdGoesBack => {
                page.store_u32(out_prod, page.load_u32(out_cons).wrapping_sub(1));
            }
            Self::InConsAhead(ahead) => {
                page.store_u32(in_cons, page.load_u32(in_prod).wrapping_add(ahead));
            }
            Self::OutConsOverwritten(value) => page.store_u32(out_cons, value),
            Self::InProdOverwritten(value) => page.store_u32(in_prod, value),
            Self::Filled(byte) => page.fill(byte),
        }
        console.domu().send(console.port());
    }
}
