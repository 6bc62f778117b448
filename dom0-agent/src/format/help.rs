//! The layout of `xl help`. The commands and their descriptions are the command table's.

use super::list::put;

/// Columns for a command's name.
const NAME_COLUMNS: usize = 19;

/// The listing of all commands, each given as its name and its one-line description.
///
/// The completion that ships with Xen drops four lines and takes the first word of each line that starts with one
/// blank, so a name too long for its column has its description on a line of its own.
pub fn listing<'a>(commands: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out =
        String::from("Usage xl [-vfNtT] <subcommand> [args]\n\nxl full list of subcommands:\n\n");
    for (name, description) in commands {
        if name.len() > NAME_COLUMNS {
            put(
                &mut out,
                format_args!(" {name} \n{:1$}{description}\n", "", NAME_COLUMNS + 2),
            );
        } else {
            put(
                &mut out,
                format_args!(" {name:<NAME_COLUMNS$} {description}\n"),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_push_their_description_to_the_next_line() {
        let text = listing([
            ("create", "Make it"),
            ("pci-assignable-list", "List"),
            ("pci-assignable-remove", "Off"),
        ]);
        let want = " create              Make it\n pci-assignable-list List\n \
            pci-assignable-remove \n                     Off\n";
        assert_eq!(
            text.split_once("subcommands:\n\n").map(|(_, rows)| rows),
            Some(want)
        );
        assert_eq!(text.lines().take(4).last(), Some(""));
    }
}
