//! What a stream holds, counted.
//!
//! Reader and writer keep one while they go; both count the same of the same stream. It prints as lines for people.

use std::fmt;

use crate::libxc::pages::contents;
use crate::libxc::{DomainHeader, ImageHeader, Kind, PageEntry};
use crate::libxl;
use crate::limits::PAGE_BYTES;

/// Counts of one stream, of what was read or written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The image's headers.
    pub image: Option<(ImageHeader, DomainHeader)>,
    /// All bytes, headers included.
    pub bytes: u64,
    /// Records of the image, those skipped included.
    pub image_records: u64,
    /// Records of the libxl layer, those skipped included.
    pub outer_records: u64,
    /// Optional records that nobody here knows, of both layers.
    pub skipped: u64,
    /// Pages named, as often as they were.
    pub pages: u64,
    /// Pages that had contents.
    pub contents: u64,
    pub(crate) kinds: [u64; Kind::ALL.len()],
    pub(crate) outer_kinds: [u64; libxl::Kind::ALL.len()],
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

impl Summary {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            image: None,
            bytes: 0,
            image_records: 0,
            outer_records: 0,
            skipped: 0,
            pages: 0,
            contents: 0,
            kinds: [0; Kind::ALL.len()],
            outer_kinds: [0; libxl::Kind::ALL.len()],
        }
    }

    /// How many records of this kind the image holds.
    #[must_use]
    pub const fn records(&self, kind: Kind) -> u64 {
        self.kinds[kind.index()]
    }

    /// How many records of this kind the libxl layer holds.
    #[must_use]
    pub const fn outer(&self, kind: libxl::Kind) -> u64 {
        self.outer_kinds[kind as usize]
    }

    pub(crate) const fn count(&mut self, kind: Kind) {
        self.kinds[kind.index()] += 1;
    }

    pub(crate) const fn count_outer(&mut self, kind: libxl::Kind) {
        self.outer_kinds[kind as usize] += 1;
    }

    pub(crate) fn count_pages(&mut self, entries: &[PageEntry]) {
        self.count(Kind::PageData);
        self.pages += entries.len() as u64;
        self.contents += contents(entries);
    }
}

impl fmt::Display for Summary {
    /// One line for the image, one for each kind of record there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((image, domain)) = &self.image {
            let (major, minor) = (domain.xen_major, domain.xen_minor);
            let kind = domain.kind.name();
            let version = image.version;
            writeln!(
                f,
                "image of version {version}: {kind} domain of Xen {major}.{minor}"
            )?;
        }
        for kind in libxl::Kind::ALL {
            line(f, "libxl", kind.name(), self.outer(kind))?;
        }
        for kind in Kind::ALL {
            line(f, "libxc", kind.name(), self.records(kind))?;
        }
        if self.skipped > 0 {
            line(f, "", "unknown, skipped", self.skipped)?;
        }
        writeln!(
            f,
            "{} pages, {} with contents ({} bytes); {} bytes in all",
            self.pages,
            self.contents,
            self.contents * PAGE_BYTES,
            self.bytes
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, layer: &str, name: &str, count: u64) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    writeln!(f, "  {layer:5} {name:25} {count}")
}
