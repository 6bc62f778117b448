//! What the patches of `xen-patches/` add to Xen's public headers, as C text of its own: structures and constants, in the order of the patches.

use std::path::Path;

/// The declarations of all patches.
pub fn declarations() -> std::io::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xen-patches");
    let mut found = String::new();
    for name in std::fs::read_to_string(folder.join("series"))?.lines() {
        let patch = std::fs::read_to_string(folder.join(name.trim()))?;
        found.push_str(&added(&patch));
    }
    Ok(found)
}

/// Added lines of public headers that are a `#define` or belong to a whole structure.
fn added(patch: &str) -> String {
    let (mut public, mut within, mut found) = (false, false, String::new());
    for line in patch.lines() {
        if let Some(file) = line.strip_prefix("+++ ") {
            public = file.starts_with("b/xen/include/public/");
        } else if let Some(line) = line.strip_prefix('+').filter(|_| public) {
            within |= line.starts_with("struct ");
            if within || line.starts_with("#define ") {
                found.push_str(line);
                found.push('\n');
            }
            within &= line != "};";
        }
    }
    found
}
