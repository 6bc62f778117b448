//! Keys whose value is one word out of a few. A wrong word ends the reading, in stock's wording.

use super::diag::Fatal;
use super::domain::DomainKind;
use super::keys;
use super::number::c_long;
use super::view::View;

/// What a choice accepts beside its words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Nothing.
    Refused,
    /// The place of the word in the list.
    Accepted,
    /// The same, with a warning that the word is wanted.
    Deprecated,
    /// Any number, as a switch.
    Switch,
}

struct Choice {
    key: &'static str,
    words: &'static [&'static str],
    numbers: Numbers,
    /// The message, `%` standing for the value.
    refusal: &'static str,
    exit_3: bool,
}

const CHOICES: &[Choice] = &[
    Choice {
        key: "passthrough",
        words: &["default", "disabled", "enabled", "sync_pt", "share_pt"],
        numbers: Numbers::Refused,
        refusal: "ERROR: unknown passthrough option '%'",
        exit_3: false,
    },
    Choice {
        key: "timer_mode",
        words: &[
            "delay_for_missed_ticks",
            "no_delay_for_missed_ticks",
            "no_missed_ticks_pending",
            "one_missed_tick_pending",
        ],
        numbers: Numbers::Deprecated,
        refusal: "ERROR: invalid value \"%\" for \"timer_mode\"",
        exit_3: false,
    },
    Choice {
        key: "bios",
        words: &["unknown", "rombios", "seabios", "ovmf"],
        numbers: Numbers::Refused,
        refusal: "ERROR: invalid value \"%\" for \"bios\"",
        exit_3: false,
    },
    Choice {
        key: "altp2m",
        words: &["disabled", "mixed", "external", "limited"],
        numbers: Numbers::Accepted,
        refusal: "ERROR: invalid value \"%\" for \"altp2m\"",
        exit_3: false,
    },
    Choice {
        key: "ms_vm_genid",
        words: &["generate", "none"],
        numbers: Numbers::Refused,
        refusal: "ERROR: \"ms_vm_genid\" option must be \"generate\" or \"none\"",
        exit_3: false,
    },
    Choice {
        key: "device_model_version",
        words: &["qemu-xen-traditional", "qemu-xen"],
        numbers: Numbers::Refused,
        refusal: "Unknown device_model_version \"%\" specified",
        exit_3: false,
    },
    Choice {
        key: "vga",
        words: &["stdvga", "cirrus", "none", "qxl"],
        numbers: Numbers::Refused,
        refusal: "Unknown vga \"%\" specified",
        exit_3: false,
    },
    Choice {
        key: "hdtype",
        words: &["ide", "ahci"],
        numbers: Numbers::Refused,
        refusal: "ERROR: invalid value \"%\" for \"hdtype\"",
        exit_3: false,
    },
    Choice {
        key: "gfx_passthru",
        words: &["default", "igd"],
        numbers: Numbers::Switch,
        refusal: "ERROR: invalid value \"%\" for \"gfx_passthru\"",
        exit_3: false,
    },
    Choice {
        key: "vendor_device",
        words: &["none", "xenserver"],
        numbers: Numbers::Refused,
        refusal: "xl: unknown vendor_device '%'",
        exit_3: true,
    },
];

/// Checks every choice that a guest of this kind reads.
pub(super) fn check(view: &mut View<'_>, kind: DomainKind) -> Result<(), Fatal> {
    if kind == DomainKind::Pv && view.text("timer_mode").is_some() {
        let text = "ERROR: \"timer_mode\" option is not supported for PV guests.";
        return Err(Fatal::new(view.pos("timer_mode"), text).exiting_3());
    }
    for choice in CHOICES {
        if keys::find(choice.key).is_some_and(|key| key.scope.covers(kind)) {
            check_one(view, choice)?;
        }
    }
    Ok(())
}

fn check_one(view: &mut View<'_>, choice: &Choice) -> Result<(), Fatal> {
    let Some(value) = view.text(choice.key) else {
        return Ok(());
    };
    let pos = view.pos(choice.key);
    let known = match (choice.numbers, c_long(value)) {
        (Numbers::Refused, _) | (_, None) => choice
            .words
            .iter()
            .any(|word| word.eq_ignore_ascii_case(value)),
        (Numbers::Switch, Some(_)) => true,
        (numbers, Some(number)) => {
            let word = usize::try_from(number)
                .ok()
                .and_then(|n| choice.words.get(n));
            if numbers == Numbers::Deprecated {
                let key = choice.key;
                let example = word
                    .map(|w| format!("e.g. {key}=\"{w}\""))
                    .unwrap_or_default();
                let text = format!(
                    "WARNING: specifying \"{key}\" as an integer is deprecated. \
                     Please use the named parameter variant. {example}"
                );
                view.report.warn(pos, text);
            }
            word.is_some()
        }
    };
    if known {
        return Ok(());
    }
    let fatal = Fatal::new(pos, choice.refusal.replace('%', value));
    Err(if choice.exit_3 {
        fatal.exiting_3()
    } else {
        fatal
    })
}
