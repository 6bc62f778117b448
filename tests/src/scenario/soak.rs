//! Hundreds of moves of one guest under load, to the host it is on; many of them are cut at a place that a seed draws.
//!
//! ```text
//!   xl migrate ──▶ cut.py: so many bytes there, so many back, then the line is gone ──▶ xl migrate-receive        the agent may be killed meanwhile
//!   after each: one copy, and it runs; it still says that memory and disk hold what it wrote; its client hears every word
//! ```

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use crate::product::{self, PARAPET, XL};
use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind};

use super::continuity::Client;

/// The guest.
const NAME: &str = "soak";
/// Where the line is in dom0.
const CUT: &str = "/tmp/cut.py";
/// So many bytes may go before a line is cut on the way there: more than the guest has, so that some cuts come too late.
const MOST_THERE: u64 = 150 << 20;
/// And on the way back: the words of the handshake are fewer.
const MOST_BACK: u64 = 160;
/// Longest time after which the agent is killed, in milliseconds: a move takes about as long.
const MOST_TO_LIVE_MS: u64 = 6000;

/// Carries a command's input and output until so many bytes went there or back (-1: all of them), and then hangs up on both ends without a word.
const CUT_PROGRAM: &str = r"import os, subprocess, sys, threading
there, back = (int(word) for word in sys.argv[1:3])
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def carry(source, sink, left):
    while left != 0:
        part = os.read(source, 65536 if left < 0 else min(65536, left))
        if not part:
            return
        at = 0
        while at < len(part):
            at += os.write(sink, part[at:])
        if left > 0:
            left -= len(part)
    os._exit(1)
def onward():
    carry(0, child.stdin.fileno(), there)
    child.stdin.close()
threading.Thread(target=onward, daemon=True).start()
carry(child.stdout.fileno(), 1, back)
sys.exit(child.wait())
";

/// Fills memory and disk with what it can check, again and again; what is wrong is told in a file.
const LOAD: &str = "dd if=/dev/urandom of=/run/a bs=64k count=64 2>/dev/null; sha1sum < /run/a > /run/sum; echo 0 > /run/rounds; \
    (n=0; while :; do cp /run/a /run/b; dd if=/run/b of=/dev/xvda bs=64k conv=fsync 2>/dev/null; \
    sha1sum < /run/b | cmp -s - /run/sum || echo memory >> /run/bad; \
    dd if=/dev/xvda bs=64k count=64 2>/dev/null | sha1sum | cmp -s - /run/sum || echo disk >> /run/bad; \
    n=$((n+1)); echo $n > /run/rounds; done) > /dev/null 2>&1 &";

/// What is done to one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    CutThere(u64),
    CutBack(u64),
    AgentDies { after_ms: u64 },
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("whole"),
            Self::CutThere(bytes) => write!(f, "cut after {bytes} bytes"),
            Self::CutBack(bytes) => write!(f, "cut after {bytes} bytes of answers"),
            Self::AgentDies { after_ms } => write!(f, "agent killed after {after_ms} ms"),
        }
    }
}

/// The one source of chance.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn harm(&mut self) -> Harm {
        match self.below(10) {
            0..4 => Harm::None,
            4..6 => Harm::CutThere(self.below(MOST_THERE)),
            6..9 => Harm::CutBack(self.below(MOST_BACK)),
            _ => Harm::AgentDies {
                after_ms: self.below(MOST_TO_LIVE_MS),
            },
        }
    }
}

/// What became of the moves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// It runs in another domain.
    pub moved: u32,
    /// It runs on in the one it was in.
    pub stayed: u32,
    /// Of these, so many times an operator had to say which copy is the guest.
    pub settled: u32,
    /// Words that its client sent and heard again.
    pub words: u64,
    /// Rounds of writing and checking in the guest.
    pub rounds: u64,
    /// Longest silence towards the client, in seconds of the host's clock.
    pub silence: f64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} moves: {} arrived, {} stayed ({} settled by hand); one copy after each; {} rounds of checked data; \
             {} words of a client, longest silence {:.2} s",
            self.moved + self.stayed,
            self.moved,
            self.stayed,
            self.settled,
            self.rounds,
            self.words,
            self.silence
        )
    }
}

/// Moves a guest `count` times. Agent and monitor run already.
///
/// # Errors
/// What must not be, with the move after which it was seen.
pub fn moves(host: &Host, count: u32, seed: u64) -> Result<Tally> {
    let guest = Guest::minimal(NAME, Kind::Pvh, 70);
    product::create(host, &guest, "")?;
    host.write(CUT, CUT_PROGRAM.as_bytes(), 0o755)?;
    let inside = host.guest(NAME);
    inside.wait_up()?;
    inside.sh(LOAD)?;
    let client = Client::start(host, &guest)?;
    let mut chance = Chance(seed);
    let mut tally = Tally::default();
    for number in 1..=count {
        let harm = chance.harm();
        let one = one_move(host, harm, &mut tally);
        one.with_context(|| format!("move {number} of seed {seed}: {harm}"))?;
        eprintln!("move {number}: {harm}; {tally}");
    }
    let (words, silence) = client.stop()?;
    (tally.words, tally.silence) = (words, silence);
    product::destroy(host, &guest)?;
    host.sh(&format!("rm -f {CUT}"))?;
    Ok(tally)
}

fn one_move(host: &Host, harm: Harm, tally: &mut Tally) -> Result<()> {
    let before = host.guest(NAME).domid()?;
    let (there, back) = match harm {
        Harm::CutThere(bytes) => (bytes.to_string(), "-1".to_owned()),
        Harm::CutBack(bytes) => ("-1".to_owned(), bytes.to_string()),
        Harm::None | Harm::AgentDies { .. } => ("-1".to_owned(), "-1".to_owned()),
    };
    let death = match harm {
        Harm::AgentDies { after_ms } => format!(
            "(sleep {}.{:03}; pkill -KILL -x dom0-agent) > /dev/null 2>&1 &",
            after_ms / 1000,
            after_ms % 1000
        ),
        _ => String::new(),
    };
    let said = host.sh(&format!(
        "{death} {XL} migrate -s '' {NAME} 'python3 {CUT} {there} {back} {XL} migrate-receive' 2>&1; echo \"exit $?\"; wait"
    ))?;
    if matches!(harm, Harm::AgentDies { .. }) {
        // It may have been quicker than the kill.
        host.sh("pkill -KILL -x dom0-agent; while pgrep -x dom0-agent > /dev/null; do :; done")?;
        product::start_agent(host)?;
    }
    let whole = said.trim_end().ends_with("exit 0");
    ensure!(whole || harm != Harm::None, "it failed: {said}");
    settle(host, tally).with_context(|| said.clone())?;
    check(host, tally)?;
    if host.guest(NAME).domid()? == before {
        tally.stayed += 1;
        ensure!(!whole, "it said that it moved: {said}");
    } else {
        tally.moved += 1;
    }
    Ok(())
}

/// Waits until what was not accepted is gone, and says what nobody can know where that is needed.
fn settle(host: &Host, tally: &mut Tally) -> Result<()> {
    product::gone(host, &format!("{NAME}--incoming"))?;
    let away = format!("{NAME}--migratedaway");
    if host.run(&[XL, "domid", &away])?.code != 0 {
        return Ok(());
    }
    let arrived = host.run(&[XL, "domid", NAME])?.code == 0;
    let place = if arrived { "there" } else { "here" };
    host.ok(&[PARAPET, "settle", &away, place])?;
    tally.settled += 1;
    product::gone(host, &away)
}

/// One copy, which runs, and found nothing wrong with its memory and its disk.
fn check(host: &Host, tally: &mut Tally) -> Result<()> {
    let names = host.sh(&format!("{XL} list | grep '^{NAME}'; true"))?;
    let lines: Vec<&str> = names.lines().collect();
    let [line] = lines.as_slice() else {
        bail!("not one copy:\n{names}");
    };
    ensure!(
        line.starts_with(&format!("{NAME} ")) && !line.contains("p-") && !line.contains("-s-"),
        "it does not run: {line}"
    );
    host.wait_until("ping -c 1 -W 2 10.77.0.70 > /dev/null", deadline::SETTLE)?;
    let said = host
        .guest(NAME)
        .sh("cat /run/bad 2>/dev/null; cat /run/rounds")?;
    let rounds: u64 = said
        .trim()
        .parse()
        .with_context(|| format!("it found something wrong: {said}"))?;
    ensure!(rounds >= tally.rounds, "it went back in time: {rounds}");
    tally.rounds = rounds;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_every_harm_and_draws_it_again() {
        let draw = |seed| {
            let mut chance = Chance(seed);
            (0..200).map(|_| chance.harm()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let harms = draw(7);
        let count = |wanted: fn(&Harm) -> bool| harms.iter().filter(|harm| wanted(harm)).count();
        assert!(count(|harm| *harm == Harm::None) > 50);
        assert!(count(|harm| matches!(harm, Harm::CutThere(_))) > 20);
        assert!(count(|harm| matches!(harm, Harm::CutBack(_))) > 30);
        assert!(count(|harm| matches!(harm, Harm::AgentDies { .. })) > 5);
    }
}
