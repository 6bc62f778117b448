//! Types one command at the shell on a guest's console and reads its answer.
//!
//! The command is wrapped so that its begin and end can be told from kernel messages and from the echo of the typing. Works with
//! any console backend that offers a terminal in dom0. Never starts or attaches a guest.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// How much of a guest's chatter is kept while looking for the end of the answer, in bytes.
const KEEP: usize = 4 * 1024 * 1024;

/// Runs `command` on the console `tty`, prints what it printed, and returns its exit code.
pub fn exec(tty: &str, seconds: &str, command: &str) -> io::Result<ExitCode> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let limit = Duration::from_secs(seconds.parse().map_err(invalid)?);
    let mut terminal = OpenOptions::new().read(true).write(true).open(tty)?;
    let mut mode = tcgetattr(&terminal)?;
    cfmakeraw(&mut mode);
    tcsetattr(&terminal, SetArg::TCSANOW, &mode)?;

    let mark = format!(
        "{:08x}",
        std::process::id() ^ Instant::now().elapsed().subsec_nanos()
    );
    // The quotes keep the echo of this line from looking like the marks themselves.
    let line = format!("\necho '<<'{mark}; ({command}); echo '>>'{mark} $?\n");
    let chunks = read_in_background(terminal.try_clone()?);
    terminal.write_all(line.as_bytes())?;

    let deadline = Instant::now() + limit;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(chunk) = chunks.recv_timeout(left) else {
            io::stderr().write_all(&seen)?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer on {tty} in {seconds} s"),
            ));
        };
        seen.extend_from_slice(&chunk);
        if seen.len() > KEEP {
            return Err(io::Error::other("the guest says too much"));
        }
        if let Some((answer, code)) = answer_in(&String::from_utf8_lossy(&seen), &mark) {
            print!("{answer}");
            return Ok(ExitCode::from(code));
        }
    }
}

fn read_in_background(mut terminal: std::fs::File) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut chunk) {
            if sender.send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What stands between the marks, and the exit code behind the second. The kernel may speak up between a mark and the end of its line.
fn answer_in(seen: &str, mark: &str) -> Option<(String, u8)> {
    let text = seen.replace('\r', "");
    let (_, after) = text.split_once(&format!("<<{mark}"))?;
    let (answer, tail) = after.split_once(&format!(">>{mark} "))?;
    let (code, _) = tail.split_once(|c: char| !c.is_ascii_digit())?;
    let answer = answer.strip_prefix('\n').unwrap_or(answer);
    Some((answer.to_owned(), code.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_behind_echo_and_kernel_messages() {
        let seen =
            "# echo '<<'ab; (ls); echo '>>'ab $?\r\n<<ab\r\nfile\r\n[ 1.0] kernel\r\n>>ab 3\r\n# ";
        assert_eq!(
            answer_in(seen, "ab"),
            Some(("file\n[ 1.0] kernel\n".to_owned(), 3))
        );
    }

    #[test]
    fn a_kernel_message_on_the_line_of_a_mark_is_no_part_of_it() {
        let seen = "<<ab[ 1.0] early\r\nfile\r\n>>ab 12[ 2.0] watchdog did not stop!\r\n";
        let found = answer_in(seen, "ab");
        assert_eq!(found, Some(("[ 1.0] early\nfile\n".to_owned(), 12)));
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(answer_in("<<ab\nfile\n>>ab", "ab"), None);
        assert_eq!(answer_in("<<ab\nfile\n>>ab 0", "ab"), None);
    }
}
