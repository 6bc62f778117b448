//! Counts what a command asks of Xen and of xenstore. Unlike times, these carry over to hardware.
//!
//! Hypercalls are the privcmd ioctls of the command and, where the agent does the work, of the agent and its workers; xenstore
//! requests are those that xenstored's own log shows from dom0, its kernel's included. Guests' are left out.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::rig::Host;

/// What one command cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Hypercalls through privcmd.
    pub hypercalls: u32,
    /// Requests to xenstored.
    pub xenstore: u32,
}

/// `strace -D` leaves the command the shell's own child, so that waiting for it does not wait for a daemon that it starts; `-I2` lets it be
/// ended while that daemon runs.
const SCRIPT: &str = r#"
log=/dev/shm/xs.log; calls=/dev/shm/calls
rm -f $log $calls.*
agent=$(pgrep -x dom0-agent)
xenstore-control logfile $log > /dev/null && xenstore-control log on > /dev/null
if [ -n "$agent" ]; then
    strace -f -qq -e trace=ioctl -o $calls.agent -p $agent &
    while grep -q '^TracerPid:[[:space:]]*0$' /proc/$agent/task/*/status; do sleep 0.1; done
fi
: > $log
strace -D -I2 -f --seccomp-bpf -qq -e trace=ioctl -o $calls.command "$@" > /dev/null
code=$?
requests=$(grep -c ' IN .*(d0)' $log)
pkill -INT -x strace
looks=0
while pgrep -x strace > /dev/null; do
    looks=$((looks + 1)); [ $looks -lt 300 ] || { echo "strace does not end" >&2; exit 1; }
    sleep 0.1
done
xenstore-control log off > /dev/null
echo $(cat $calls.* | grep -c '_IOC(_IOC_NONE, 0x50, 0, ') $requests
exit $code
"#;

/// Runs `argv` once, under observation.
///
/// # Errors
/// When the command fails or dom0 cannot observe it.
pub fn cost(host: &Host, argv: &[String]) -> Result<Cost> {
    let mut line = vec!["sh", "-c", SCRIPT, "count"];
    line.extend(argv.iter().map(String::as_str));
    let output = host.run(&line)?;
    ensure!(
        output.code == 0,
        "`{}` exited with {}: {}",
        argv.join(" "),
        output.code,
        output.errors().trim()
    );
    let text = output.text();
    read(&text).with_context(|| format!("malformed count {text:?}: {}", output.errors().trim()))
}

fn read(text: &str) -> Option<Cost> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(Cost {
        hypercalls: numbers.next()?.ok()?,
        xenstore: numbers.next()?.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_a_cost_and_less_is_none() {
        assert_eq!(
            read("21 1\n"),
            Some(Cost {
                hypercalls: 21,
                xenstore: 1
            })
        );
        assert_eq!(read("21\n"), None);
        assert_eq!(read("x y"), None);
    }
}
