//! Event channels: ports of all domains, and the descriptors of dom0's processes.
//!
//! ```text
//!             alloc_unbound                 bind_interdomain
//!   (none) ───────────────▶ Unbound ◀───────────────────────▶ Interdomain
//!                              ▲     other end closed (kept)        │ closed
//!                              └────────────────────────────────────┘ (gone)
//! ```
//!
//! A port that fired is masked until its reader unmasks it; what arrives meanwhile is remembered as one pending bit. A fresh binding is
//! pending at once, since something may have been sent before it. Sending to a port whose peer is gone succeeds and does nothing.

use crate::hypervisor::Outcome;
use crate::limits::DOM0_PORTS;
use crate::state::{ProcessId, State};
use nix::errno::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use xen_abi::ids::{DomId, Port};
use xen_host::eventfd::EventFd;
use xen_host::seam::Loopback;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Unbound { remote: DomId },
    Interdomain { remote: DomId, port: Port },
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) end: End,
    pub(crate) pending: bool,
    masked: bool,
    handle: Option<u64>,
    /// Times somebody sent to this port.
    pub(crate) received: u64,
}

#[derive(Debug)]
struct Handle {
    process: ProcessId,
    only: Option<DomId>,
    fired: VecDeque<Port>,
    fd: Arc<EventFd>,
}

/// All ports and handles.
#[derive(Debug, Default)]
pub(crate) struct EventTable {
    channels: BTreeMap<(DomId, Port), Channel>,
    handles: BTreeMap<u64, Handle>,
    next_handle: u64,
}

impl EventTable {
    pub(crate) fn open(
        &mut self,
        process: ProcessId,
        only: Option<DomId>,
        fd: Arc<EventFd>,
    ) -> u64 {
        let id = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(
            id,
            Handle {
                process,
                only,
                fired: VecDeque::new(),
                fd,
            },
        );
        id
    }

    pub(crate) fn channel(&self, domid: DomId, port: Port) -> Option<&Channel> {
        self.channels.get(&(domid, port))
    }

    /// Ports of dom0 with the process that bound them.
    pub(crate) fn dom0_ports(&self) -> Vec<(Port, End, Option<ProcessId>)> {
        self.channels
            .iter()
            .filter(|((domid, _), _)| *domid == DomId::DOM0)
            .map(|((_, port), channel)| {
                let handle = channel.handle.and_then(|id| self.handles.get(&id));
                (*port, channel.end, handle.map(|handle| handle.process))
            })
            .collect()
    }

    /// Open handles and whose they are.
    pub(crate) fn open_handles(&self) -> Vec<ProcessId> {
        self.handles.values().map(|handle| handle.process).collect()
    }

    fn free_port(&self, domid: DomId, highest: u32) -> Outcome<Port> {
        (1..=highest)
            .map(Port)
            .find(|port| !self.channels.contains_key(&(domid, *port)))
            .ok_or(Errno::ENOSPC)
    }

    /// Marks a port as hit; wakes its reader unless it is masked.
    fn hit(&mut self, domid: DomId, port: Port) {
        let Some(channel) = self.channels.get_mut(&(domid, port)) else {
            return;
        };
        channel.received += 1;
        channel.pending = true;
        self.fire(domid, port);
    }

    fn fire(&mut self, domid: DomId, port: Port) {
        let Some(channel) = self.channels.get_mut(&(domid, port)) else {
            return;
        };
        let Some(handle) = channel.handle.and_then(|id| self.handles.get_mut(&id)) else {
            return;
        };
        if channel.pending && !channel.masked {
            channel.pending = false;
            channel.masked = true;
            handle.fired.push_back(port);
            let _ = handle.fd.signal();
        }
    }

    pub(crate) fn pending(&mut self, handle: u64) -> Vec<Port> {
        self.handles
            .get_mut(&handle)
            .map_or_else(Vec::new, |handle| {
                let _ = handle.fd.take();
                handle.fired.drain(..).collect()
            })
    }

    pub(crate) fn unmask(&mut self, handle: u64, port: Port) {
        let key = (DomId::DOM0, port);
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        if channel.handle == Some(handle) && channel.masked {
            channel.masked = false;
            self.fire(DomId::DOM0, port);
        }
    }

    fn holds(&self, handle: u64, port: Port) -> bool {
        self.channels
            .get(&(DomId::DOM0, port))
            .is_some_and(|channel| channel.handle == Some(handle))
    }

    /// Closes a port; the other end becomes unbound towards this domain.
    pub(crate) fn close(&mut self, domid: DomId, port: Port) {
        let Some(channel) = self.channels.remove(&(domid, port)) else {
            return;
        };
        let handle = channel.handle.and_then(|id| self.handles.get_mut(&id));
        if let Some(handle) = handle {
            handle.fired.retain(|fired| *fired != port);
        }
        if let End::Interdomain {
            remote,
            port: other,
        } = channel.end
            && let Some(peer) = self.channels.get_mut(&(remote, other))
        {
            peer.end = End::Unbound { remote: domid };
        }
    }

    pub(crate) fn close_handle(&mut self, handle: u64) {
        let ports: Vec<Port> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.handle == Some(handle))
            .map(|((_, port), _)| *port)
            .collect();
        ports
            .into_iter()
            .for_each(|port| self.close(DomId::DOM0, port));
        self.handles.remove(&handle);
    }

    pub(crate) fn close_handles_of(&mut self, process: ProcessId) {
        let ids: Vec<u64> = self
            .handles
            .iter()
            .filter(|(_, handle)| handle.process == process)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.close_handle(id));
    }
}

impl State {
    pub(crate) fn alloc_unbound(&mut self, domid: DomId, remote: DomId) -> Outcome<Port> {
        let highest = self.living(domid)?.max_event_port;
        let port = self.events.free_port(domid, highest)?;
        let end = End::Unbound { remote };
        let channel = Channel {
            end,
            pending: false,
            masked: false,
            handle: None,
            received: 0,
        };
        self.events.channels.insert((domid, port), channel);
        Ok(port)
    }

    /// Binds a port of dom0 to `remote` in `domid`; `handle` is the descriptor that will hear of it.
    pub(crate) fn bind_interdomain(
        &mut self,
        handle: Option<u64>,
        domid: DomId,
        remote: Port,
    ) -> Outcome<Port> {
        let only = handle
            .and_then(|id| self.events.handles.get(&id))
            .and_then(|held| held.only);
        if only.is_some_and(|only| only != domid) {
            return Err(Errno::EACCES);
        }
        self.living(domid).map_err(|_| Errno::ESRCH)?;
        match self
            .events
            .channels
            .get(&(domid, remote))
            .map(|channel| channel.end)
        {
            Some(End::Unbound {
                remote: DomId::DOM0,
            }) => {}
            _ => return Err(Errno::EINVAL),
        }
        let port = self.events.free_port(DomId::DOM0, DOM0_PORTS)?;
        if let Some(peer) = self.events.channels.get_mut(&(domid, remote)) {
            peer.end = End::Interdomain {
                remote: DomId::DOM0,
                port,
            };
        }
        let end = End::Interdomain {
            remote: domid,
            port: remote,
        };
        let channel = Channel {
            end,
            pending: true,
            masked: false,
            handle,
            received: 0,
        };
        self.events.channels.insert((DomId::DOM0, port), channel);
        self.events.fire(DomId::DOM0, port);
        Ok(port)
    }

    /// Two ports of dom0 that are bound to each other, both of this descriptor.
    pub(crate) fn loopback(&mut self, handle: u64) -> Outcome<Loopback> {
        let at = self.alloc_unbound(DomId::DOM0, DomId::DOM0)?;
        if let Some(channel) = self.events.channels.get_mut(&(DomId::DOM0, at)) {
            channel.handle = Some(handle);
        }
        let bound = self.bind_interdomain(Some(handle), DomId::DOM0, at);
        let through = bound.inspect_err(|_| self.events.close(DomId::DOM0, at))?;
        Ok(Loopback { through, at })
    }

    /// Whether both ends of this port are dom0's.
    pub(crate) fn is_loopback(&self, port: Port) -> bool {
        let end = self
            .events
            .channel(DomId::DOM0, port)
            .map(|channel| channel.end);
        matches!(
            end,
            Some(End::Interdomain {
                remote: DomId::DOM0,
                ..
            })
        )
    }

    pub(crate) fn unbind(&mut self, handle: u64, port: Port) -> Outcome<()> {
        if !self.events.holds(handle, port) {
            return Err(Errno::ENOTCONN);
        }
        self.events.close(DomId::DOM0, port);
        Ok(())
    }

    pub(crate) fn notify(&mut self, handle: u64, port: Port) -> Outcome<()> {
        if !self.events.holds(handle, port) {
            return Err(Errno::ENOTCONN);
        }
        self.send(DomId::DOM0, port)
    }

    /// `EVTCHNOP_send` by any domain.
    pub(crate) fn send(&mut self, domid: DomId, port: Port) -> Outcome<()> {
        let channel = self
            .events
            .channels
            .get(&(domid, port))
            .ok_or(Errno::EINVAL)?;
        if let End::Interdomain { remote, port } = channel.end {
            self.events.hit(remote, port);
        }
        Ok(())
    }

    /// Takes the pending bit of a guest's port.
    pub(crate) fn take_pending(&mut self, domid: DomId, port: Port) -> bool {
        self.events
            .channels
            .get_mut(&(domid, port))
            .is_some_and(|channel| std::mem::take(&mut channel.pending))
    }

    pub(crate) fn close_ports_of(&mut self, domid: DomId) {
        let ports: Vec<Port> = self
            .events
            .channels
            .range((domid, Port(0))..=(domid, Port(u32::MAX)))
            .map(|((_, port), _)| *port)
            .collect();
        ports
            .into_iter()
            .for_each(|port| self.events.close(domid, port));
    }
}
