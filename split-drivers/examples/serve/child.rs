//! A driver process and the conversation with it.

use anyhow::{Context, bail};
use parapet_wire::driver::{Answer, Order, OrderBody, Outcome};
use parapet_wire::frame::{self, Kind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use xen_host::fdpass;

pub struct Driver {
    child: Child,
    stream: UnixStream,
    next_id: u64,
}

impl Driver {
    /// Starts a driver for `domid`.
    pub fn start(program: &PathBuf, domid: u16) -> anyhow::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("split-driver-{domid}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let child = Command::new(program)
            .args(["--domid", &domid.to_string()])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .with_context(|| format!("start of {}", program.display()))?;
        let stream = UnixStream::connect(&path)?;
        let mut driver = Self {
            child,
            stream,
            next_id: 1,
        };
        println!("driver: {:?}", driver.order(OrderBody::Hello, &[])?);
        Ok(driver)
    }

    /// Sends an order and waits for its answer.
    pub fn order(&mut self, body: OrderBody, fds: &[BorrowedFd<'_>]) -> anyhow::Result<Outcome> {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = frame::encode(Kind::DriverOrder, &Order { id, body })?;
        fdpass::send(&self.stream, &bytes, fds)?;
        loop {
            let message = fdpass::receive(&self.stream)?.context("the driver closed its socket")?;
            match frame::take(Kind::DriverAnswer, &message.bytes)?
                .context("half an answer")?
                .0
            {
                Answer::Done { id: of, result } if of == id => {
                    return result.map_err(|fault| anyhow::anyhow!(fault.text));
                }
                Answer::Done { .. } => bail!("an answer to another order"),
                Answer::Fault(fault) => println!("fault: {fault:?}"),
            }
        }
    }

    /// As [`Driver::order`], again while the driver says that it may work later.
    pub fn insist(&mut self, body: &OrderBody, fds: &[BorrowedFd<'_>]) -> anyhow::Result<Outcome> {
        let mut tries = 0;
        loop {
            match self.order(body.clone(), fds) {
                Err(error) if tries < 400 && error.to_string().contains("still") => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    /// Waits until the process ends; prints counters every `every`.
    pub fn wait(&mut self, every: Duration) -> anyhow::Result<()> {
        let mut since = Duration::ZERO;
        let tick = Duration::from_millis(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                println!("driver {} ended: {status}", self.child.id());
                return Ok(());
            }
            std::thread::sleep(tick);
            since += tick;
            if since >= every {
                since = Duration::ZERO;
                match self.order(OrderBody::Stats, &[]) {
                    Ok(stats) => println!("{stats:?}"),
                    Err(error) => println!("stats: {error}"),
                }
            }
        }
    }
}
