//! What a guest had before it was saved or moved it has afterwards, and goes on with.

use anyhow::{Context, Result, ensure};

use crate::rig::{Host, deadline};
use crate::stock::Guest;

/// What lives in the guest's memory only.
const MARK: &str = "/run/mark";
/// Where the client is in dom0, and how it is stopped.
const CLIENT: &str = "/tmp/client.py";

/// Talks to an echo in a guest over one connection, without a pause that TCP does not bridge; says how often, and the longest silence in seconds.
const CLIENT_PROGRAM: &str = r"import os, socket, sys, time
name, address = sys.argv[1:]
line = socket.create_connection((address, 7), timeout=120)
count, worst, last = 0, 0.0, time.monotonic()
while not os.path.exists('/tmp/client.stop'):
    word = b'%s %08d\n' % (name.encode(), count)
    line.sendall(word)
    heard = b''
    while len(heard) < len(word):
        part = line.recv(len(word) - len(heard))
        if not part:
            sys.exit('the guest hung up')
        heard += part
    if heard != word:
        sys.exit('the guest said %r instead of %r' % (heard, word))
    now = time.monotonic()
    count, worst, last = count + 1, max(worst, now - last), now
    time.sleep(0.02)
print(count, worst)
";

/// Waits until the guest is up, and gives it something of its own in its memory, in a process and on its disk.
///
/// # Errors
/// When it does not come up or cannot do that.
pub fn begin(host: &Host, guest: &Guest) -> Result<()> {
    let inside = host.guest(&guest.name);
    inside.wait_up()?;
    inside.sh(&format!(
        "echo {name} > {MARK}; (while :; do sleep 1; done) & echo $! > /run/pid; \
         dd if=/dev/urandom of=/run/random bs=64k count=8 2>/dev/null; dd if=/run/random of=/dev/xvda bs=64k conv=fsync 2>/dev/null",
        name = guest.name
    ))?;
    Ok(())
}

/// Memory, process, disk, network and console are as they were.
///
/// # Errors
/// When one is not.
pub fn goes_on(host: &Host, guest: &Guest) -> Result<()> {
    let inside = host.guest(&guest.name);
    inside.wait_up()?;
    let name = &guest.name;
    inside.sh(&format!(
        "grep -qx {name} {MARK} && kill -0 $(cat /run/pid)"
    ))?;
    inside.sh(
        "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/xvda bs=64k count=8 2>/dev/null | cmp - /run/random && \
         dd if=/dev/urandom of=/run/random bs=64k count=8 2>/dev/null; dd if=/run/random of=/dev/xvda bs=64k conv=fsync 2>/dev/null",
    )?;
    // More than one: what arrives before the frontend is connected again is lost.
    host.wait_until(
        &format!("ping -c 1 -W 2 10.77.0.{} > /dev/null", guest.address),
        deadline::SETTLE,
    )?;
    Ok(())
}

/// A client in dom0 that talks to a guest over one TCP connection all the time.
#[derive(Debug)]
pub struct Client<'a> {
    host: &'a Host,
}

impl<'a> Client<'a> {
    /// Starts an echo in the guest, and the client.
    ///
    /// # Errors
    /// When they do not meet.
    pub fn start(host: &'a Host, guest: &Guest) -> Result<Self> {
        host.guest(&guest.name)
            .sh("(nc -ll -p 7 -e cat || nc -lk -p 7 -e cat) > /dev/null 2>&1 & sleep 0")?;
        host.write(CLIENT, CLIENT_PROGRAM.as_bytes(), 0o644)?;
        let (name, address) = (&guest.name, guest.address);
        host.sh(&format!(
            "rm -f /tmp/client.*[!y]; setsid python3 {CLIENT} {name} 10.77.0.{address} > /tmp/client.out 2> /tmp/client.err < /dev/null &"
        ))?;
        host.wait_until(
            &format!("ss -Htn state established dst 10.77.0.{address}:7 | grep -q . || test -s /tmp/client.err"),
            deadline::SETTLE,
        )?;
        Ok(Self { host })
    }

    /// Ends it: it heard every word again. Answers how many, and the longest silence in seconds.
    ///
    /// # Errors
    /// When one was lost, or the connection was.
    pub fn stop(self) -> Result<(u64, f64)> {
        self.host.sh("touch /tmp/client.stop")?;
        let ended = self.host.wait_until(
            "test -s /tmp/client.out || test -s /tmp/client.err",
            deadline::SETTLE,
        );
        let said = self
            .host
            .sh("cat /tmp/client.err /tmp/client.out; rm -f /tmp/client.*")?;
        ended.with_context(|| said.clone())?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let [count, worst] = words.as_slice() else {
            anyhow::bail!("the client failed: {said}");
        };
        let (count, worst) = (count.parse()?, worst.parse()?);
        ensure!(count > 0, "the client never heard anything");
        Ok((count, worst))
    }
}
