//! The control socket: one agent at a time, the newest wins; the guest is served whether one is there or not.
//!
//! A message is a frame of [`parapet_wire::frame`] in an envelope of [`xen_host::fdpass`] that carries the descriptors. The agent is trusted, yet bounded:
//! it has [`CONTROL_TIMEOUT`] to finish a message it has begun, and a message that makes no sense ends the connection, not the driver.

use super::driver::Driver;
use crate::limits::CONTROL_TIMEOUT;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parapet_wire::driver::{Answer, MAX_FDS, Order};
use parapet_wire::frame::{self, FrameError, Kind};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use xen_host::error::Error;
use xen_host::fdpass;

/// Why the socket is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Waiting failed.
    #[error("poll: {0}")]
    Poll(#[from] Errno),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed")]
    Closed,
    #[error(transparent)]
    Socket(#[from] Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0} descriptors in one order")]
    Descriptors(usize),
    #[error("half an order")]
    Half,
}

/// Serves orders until the driver is told to finish.
///
/// # Errors
/// The socket cannot be waited for.
pub fn serve(listener: &UnixListener, driver: &mut Driver) -> Result<(), ServerError> {
    let mut agent: Option<UnixStream> = None;
    while !driver.is_finished() {
        let ready = wait(listener, driver, agent.as_ref())?;
        if ready.fault {
            report_faults(driver, &mut agent);
        }
        if ready.order
            && let Some(stream) = &agent
            && let Err(why) = one_order(stream, driver)
        {
            tracing::info!(%why, "agent disconnected");
            agent = None;
            driver.agent_left();
        }
        if ready.connection
            && let Some(newer) = accept(listener)
        {
            agent = Some(newer);
            driver.agent_left();
        }
    }
    Ok(())
}

struct Ready {
    connection: bool,
    fault: bool,
    order: bool,
}

fn wait(
    listener: &UnixListener,
    driver: &Driver,
    agent: Option<&UnixStream>,
) -> Result<Ready, Errno> {
    let mut fds = vec![
        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        PollFd::new(driver.bell().as_fd(), PollFlags::POLLIN),
    ];
    if let Some(agent) = agent {
        fds.push(PollFd::new(agent.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or(false));
    Ok(Ready {
        connection: ready(0),
        fault: ready(1),
        order: ready(2),
    })
}

fn accept(listener: &UnixListener) -> Option<UnixStream> {
    let bounded = |stream: &UnixStream| {
        stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
        stream.set_write_timeout(Some(CONTROL_TIMEOUT))
    };
    match listener.accept() {
        Ok((stream, _)) => match bounded(&stream) {
            Ok(()) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, "connection refused");
                None
            }
        },
        Err(error) => {
            tracing::warn!(%error, "no connection");
            None
        }
    }
}

fn one_order(stream: &UnixStream, driver: &mut Driver) -> Result<(), Ended> {
    let message = fdpass::receive(stream)?.ok_or(Ended::Closed)?;
    if message.fds.len() > MAX_FDS {
        return Err(Ended::Descriptors(message.fds.len()));
    }
    let (order, used): (Order, usize) =
        frame::take(Kind::DriverOrder, &message.bytes)?.ok_or(Ended::Half)?;
    if used != message.bytes.len() {
        return Err(Ended::Half);
    }
    let id = order.id;
    let result = driver.obey(order, message.fds);
    if let Err(error) = &result {
        tracing::warn!(%error, "order failed");
    }
    answer(stream, &Answer::Done { id, result })
}

fn report_faults(driver: &mut Driver, agent: &mut Option<UnixStream>) {
    for fault in driver.take_faults() {
        if let Some(stream) = agent
            && answer(stream, &Answer::Fault(fault)).is_err()
        {
            *agent = None;
            driver.agent_left();
        }
    }
}

fn answer(stream: &UnixStream, answer: &Answer) -> Result<(), Ended> {
    let bytes = frame::encode(Kind::DriverAnswer, answer)?;
    Ok(fdpass::send(stream, &bytes, &[])?)
}
