//! A countdown to death, for tests: the driver calls [`burn`] before each store that the guest or a successor can see, and a test that has
//! lit the fuse dies there. Outside of this crate's own tests it is nothing at all.

/// Dies here if the fuse has burnt down.
#[cfg(not(test))]
#[inline(always)]
pub fn burn() {}

#[cfg(test)]
pub use lit::{Dead, burn, light};

#[cfg(test)]
mod lit {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

    thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// The driver died on its fuse.
    #[derive(Debug, PartialEq, Eq)]
    pub struct Dead;

    /// Dies here if the fuse has burnt down.
    pub fn burn() {
        match LEFT.get() {
            None => {}
            Some(0) => {
                LEFT.set(None);
                panic_any(Dead);
            }
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    /// Runs `act` with a fuse of `steps` stores.
    pub fn light<T>(steps: u64, act: impl FnOnce() -> T) -> Result<T, Dead> {
        LEFT.set(Some(steps));
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Dead>() {
                quiet(info);
            }
        }));
        let result = catch_unwind(AssertUnwindSafe(act));
        let _ = std::panic::take_hook();
        LEFT.set(None);
        result.map_err(|payload| match payload.downcast::<Dead>() {
            Ok(dead) => *dead,
            Err(other) => resume_unwind(other),
        })
    }
}
