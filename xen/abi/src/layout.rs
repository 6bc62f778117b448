//! How a structure of somebody else is declared here: once, with the proof beside it.
//!
//! [`crate::layout!`] writes a `repr(C)` structure that can be copied from and to bytes, asserts its size and every offset at
//! compile time, and remembers the name of the C structure and of its fields, so that the header check can ask a C
//! compiler whether the numbers are true. It also holds [`UserPtr`] and the ioctl number rule. It never touches memory.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the header check needs to know of a structure.
pub trait Layout {
    /// Its name here.
    const NAME: &'static str;
    /// The C type this stands for, as a C declaration spells it.
    const C_TYPE: &'static str;
    /// Size in bytes.
    const SIZE: usize;
    /// C field designators with their offsets, for those fields that have a name in C.
    const FIELDS: &'static [(&'static str, usize)];
}

/// Declares a structure: `pub struct Name: "struct c_name", size { pub field: type = offset => "c_field", }`.
///
/// A field without `=> "c_field"` is padding or has no name in C; its offset is still asserted here.
#[macro_export]
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident: $c:literal, $size:literal {
        $($(#[$fmeta:meta])* pub $field:ident: $ty:ty = $offset:literal $(=> $cfield:literal)?,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq,
                 zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
        #[repr(C)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(core::mem::offset_of!($name, $field) == $offset);)*
        impl $crate::layout::Layout for $name {
            const NAME: &'static str = stringify!($name);
            const C_TYPE: &'static str = $c;
            const SIZE: usize = $size;
            const FIELDS: &'static [(&'static str, usize)] = &[$($(($cfield, $offset),)?)*];
        }
    };
}

/// Declares constants together with their names in C: `pub const NAME: type = value => "C_NAME";`.
///
/// Writes `C_CONSTANTS` beside them for the header check, or a table named by a leading `table NAME;`. A constant without
/// a C name is one that not every release checked has, or that C does not name.
#[macro_export]
macro_rules! constants {
    (table $table:ident; $($(#[$meta:meta])* pub const $name:ident: $ty:ty = $value:expr $(=> $c:literal)?;)*) => {
        $($(#[$meta])* pub const $name: $ty = $value;)*
        /// The constants of this module under their C names, sign-extended to 64 bits, for the header check.
        pub const $table: &[(&str, u64)] = &[$($(($c, $name as u64),)?)*];
    };
    ($($rest:tt)*) => { $crate::constants! { table C_CONSTANTS; $($rest)* } };
}

/// A virtual address in the calling process, as Xen and the kernel want it (`XEN_GUEST_HANDLE_64`): what it points to
/// must stay put for the length of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct UserPtr(pub u64);

impl UserPtr {
    /// No buffer; many calls then answer with the size they would need.
    pub const NULL: UserPtr = UserPtr(0);
}

/// The number of an ioctl in the style of the Xen drivers: no direction, `size << 16 | kind << 8 | number`.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "argument structures are far below 2^14 bytes"
)]
pub const fn ioctl_number(kind: u8, number: u8, size: usize) -> u64 {
    assert!(size < 1 << 14, "the ioctl size field has 14 bits");
    ((size as u64) << 16) | ((kind as u64) << 8) | number as u64
}

/// Copies a structure out of the start of `bytes`, or `None` if they are too few.
#[must_use]
pub fn copy_out<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}
