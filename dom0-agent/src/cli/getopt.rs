//! Options as xl's commands take them: short ones in groups, long ones in unambiguous prefixes, anywhere among the operands, `--` ends them.
//!
//! Scripts depend on all of this (`xl shutdown NAME -F`, `xl list -- NAME`), which is why no general argument parser stands here.

/// An option of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    /// Short form.
    pub short: char,
    /// Long form, without dashes; empty for none.
    pub long: &'static str,
    /// Takes a value.
    pub value: bool,
}

/// A plain flag.
#[must_use]
pub const fn flag(short: char, long: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: false,
    }
}

/// An option with a value.
#[must_use]
pub const fn valued(short: char, long: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: true,
    }
}

/// What a command line said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Options in order, by their short form.
    pub options: Vec<(char, Option<String>)>,
    /// Everything else.
    pub operands: Vec<String>,
    /// `-h` or `--help` was there.
    pub help: bool,
}

impl Parsed {
    /// Whether an option was given.
    #[must_use]
    pub fn has(&self, short: char) -> bool {
        self.options.iter().any(|(option, _)| *option == short)
    }

    /// How often an option was given.
    #[must_use]
    pub fn count(&self, short: char) -> usize {
        self.options
            .iter()
            .filter(|(option, _)| *option == short)
            .count()
    }

    /// The last value of an option.
    #[must_use]
    pub fn value(&self, short: char) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find(|(option, _)| *option == short)
            .and_then(|(_, value)| value.as_deref())
    }
}

/// A command line that cannot be understood; the text is xl's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option `{0}' not supported.")]
pub struct UsageError(pub String);

/// Sorts the arguments of a command.
///
/// # Errors
/// An unknown or ambiguous option, or a missing value.
pub fn parse(known: &[Opt], arguments: &[String]) -> Result<Parsed, UsageError> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            long_option(known, long, &mut rest, &mut parsed)?;
        } else if let Some(group) = argument.strip_prefix('-').filter(|group| !group.is_empty()) {
            short_options(known, group, &mut rest, &mut parsed)?;
        } else {
            parsed.operands.push(argument.clone());
        }
    }
    Ok(parsed)
}

fn long_option<'a>(
    known: &[Opt],
    text: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
) -> Result<(), UsageError> {
    let unknown = || UsageError(text.to_owned());
    let (name, inline) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let candidates: Vec<&Opt> = known
        .iter()
        .filter(|opt| !opt.long.is_empty() && opt.long.starts_with(name))
        .collect();
    let option = match known.iter().find(|opt| opt.long == name) {
        Some(exact) => exact,
        None if "help".starts_with(name) && candidates.is_empty() => {
            parsed.help = true;
            return Ok(());
        }
        None => match candidates[..] {
            [one] => one,
            _ => return Err(unknown()),
        },
    };
    let value = match (option.value, inline) {
        (true, Some(value)) => Some(value),
        (true, None) => Some(rest.next().ok_or_else(unknown)?.clone()),
        (false, None) => None,
        (false, Some(_)) => return Err(unknown()),
    };
    parsed.options.push((option.short, value));
    Ok(())
}

fn short_options<'a>(
    known: &[Opt],
    group: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
) -> Result<(), UsageError> {
    let mut letters = group.chars();
    while let Some(letter) = letters.next() {
        let Some(option) = known.iter().find(|opt| opt.short == letter) else {
            if letter == 'h' {
                parsed.help = true;
                continue;
            }
            return Err(UsageError(letter.to_string()));
        };
        if !option.value {
            parsed.options.push((letter, None));
            continue;
        }
        let attached: String = letters.collect();
        let value = if attached.is_empty() {
            rest.next()
                .ok_or_else(|| UsageError(letter.to_string()))?
                .clone()
        } else {
            attached
        };
        parsed.options.push((letter, Some(value)));
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[Opt] = &[
        flag('w', "wait"),
        flag('F', ""),
        valued('f', "defconfig"),
        flag('p', "paused"),
    ];

    fn run(line: &str) -> Result<Parsed, UsageError> {
        parse(
            KNOWN,
            &line.split(' ').map(str::to_owned).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn options_may_follow_operands() {
        let parsed = run("guest -F --wai").unwrap();
        assert_eq!(parsed.operands, ["guest"]);
        assert!(parsed.has('F') && parsed.has('w'));
    }

    #[test]
    fn values_come_attached_inline_or_next() {
        for line in [
            "-fa.cfg",
            "-f a.cfg",
            "--defconfig=a.cfg",
            "--def a.cfg",
            "-pf a.cfg",
        ] {
            assert_eq!(run(line).unwrap().value('f'), Some("a.cfg"), "{line}");
        }
    }

    #[test]
    fn two_dashes_end_the_options() {
        let parsed = run("-w -- -F").unwrap();
        assert_eq!(parsed.operands, ["-F"]);
        assert!(!parsed.has('F'));
    }

    #[test]
    fn an_unknown_option_is_named_as_xl_names_it() {
        assert_eq!(
            run("-c").unwrap_err().to_string(),
            "option `c' not supported."
        );
        assert!(run("--nosuch").is_err());
        assert!(run("-f").is_err());
    }

    #[test]
    fn help_is_always_known() {
        assert!(run("-h").unwrap().help && run("--help").unwrap().help);
    }

    proptest! {
        #[test]
        fn any_arguments_are_answered(arguments: Vec<String>) {
            let _ = parse(KNOWN, &arguments);
        }
    }
}
