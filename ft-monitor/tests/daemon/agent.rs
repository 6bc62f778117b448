//! An agent that serves the real protocol on a real socket, with guests that are only entries in a table.

use parapet_wire::agent::{
    Cost, Event, Failure, FailureKind, Guest, GuestState, Heartbeat, Protection, Reply, Request,
    Watching,
};
use parapet_wire::frame::{Kind, receive, send};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

#[derive(Default)]
struct State {
    guests: Vec<Guest>,
    subscribers: Vec<UnixStream>,
    /// Requests other than greetings and looks, in order.
    asked: Vec<Request>,
    /// Restarts that made a new domain.
    restarts: u32,
    /// Restarts wait while this is set.
    held: bool,
    refuse: Option<String>,
}

/// The agent; its threads end with the process.
#[derive(Clone, Default)]
pub struct FakeAgent(Arc<(Mutex<State>, Condvar)>);

pub const UUID: Handle = Handle([7; 16]);

impl FakeAgent {
    pub fn start(socket: &Path, watching: Watching) -> Self {
        let agent = Self::default();
        agent.state().guests.push(Guest {
            uuid: UUID,
            name: "web1".into(),
            domid: Some(DomId(3)),
            state: GuestState::Running,
            protection: Protection::Restart,
            watching,
            driver_pid: Some(42),
        });
        let listener = UnixListener::bind(socket).unwrap();
        let serving = agent.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let agent = serving.clone();
                std::thread::spawn(move || agent.serve(stream));
            }
        });
        agent
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn serve(&self, mut stream: UnixStream) {
        while let Ok(request) = receive::<Request>(&mut stream, Kind::AgentRequest) {
            if request == Request::Subscribe {
                let mut state = self.state();
                let snapshot = Reply::Event(Event::Snapshot(state.guests.clone()));
                let _ = send(&mut stream, Kind::AgentReply, &snapshot);
                state.subscribers.push(stream);
                return;
            }
            let reply = self.answer(request);
            if send(&mut stream, Kind::AgentReply, &reply).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: Request) -> Reply {
        match &request {
            Request::Hello { .. } => {
                return Reply::Hello {
                    release: "fake".into(),
                    xen: "4.20".into(),
                };
            }
            Request::Guests => return Reply::Guests(self.state().guests.clone()),
            _ => self.state().asked.push(request.clone()),
        }
        self.0.1.notify_all();
        match request {
            Request::Restart { uuid, domid, .. } => self.restart(uuid, domid),
            Request::Protect {
                uuid,
                protection,
                watching,
            } => {
                let mut state = self.state();
                let guest = state
                    .guests
                    .iter_mut()
                    .find(|guest| guest.uuid == uuid)
                    .unwrap();
                guest.protection = protection;
                guest.watching = watching.unwrap_or_else(|| guest.watching.clone());
                let changed = Event::Changed(guest.clone());
                tell(&mut state, &changed);
                Reply::Done
            }
            Request::ReplaceDrivers { .. } => Reply::Status("{\"replaced\": 1}".into()),
            _ => Reply::Done,
        }
    }

    /// The guest was given to another host, which did not answer.
    pub fn give_away(&self) {
        let mut state = self.state();
        state.guests[0].state = GuestState::Leaving;
    }

    fn restart(&self, uuid: Handle, domid: Option<DomId>) -> Reply {
        let state = self.state();
        let mut state = self.0.1.wait_while(state, |state| state.held).unwrap();
        if let Some(text) = state.refuse.clone() {
            return Reply::Failed(Failure {
                kind: FailureKind::NoMemory,
                text,
            });
        }
        let guest = state
            .guests
            .iter_mut()
            .find(|guest| guest.uuid == uuid)
            .unwrap();
        if guest.domid != domid {
            return Reply::Done;
        }
        let next = DomId(domid.map_or(1, |domid| domid.0 + 1));
        guest.domid = Some(next);
        guest.state = GuestState::Running;
        let started = Event::Started(guest.clone());
        state.restarts += 1;
        tell(&mut state, &started);
        self.0.1.notify_all();
        Reply::Created {
            domid: next,
            cost: Cost::default(),
        }
    }

    /// The guest's kernel crashes.
    pub fn crash(&self) {
        let mut state = self.state();
        let reason = ShutdownReason::Crash;
        state.guests[0].state = GuestState::Down(reason);
        let domid = state.guests[0].domid.unwrap();
        tell(
            &mut state,
            &Event::ShutDown {
                uuid: UUID,
                domid,
                reason,
            },
        );
    }

    /// The guest beats.
    pub fn beat(&self, counter: u64) {
        tell(
            &mut self.state(),
            &Event::Heartbeats(vec![Heartbeat {
                uuid: UUID,
                counter,
            }]),
        );
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        !self.state().subscribers.is_empty()
    }

    /// Forgets who listens, as after a death of the other side.
    pub fn hang_up(&self) {
        self.state().subscribers.clear();
    }

    /// Restarts wait from now on.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Restarts go on.
    pub fn release(&self) {
        self.state().held = false;
        self.0.1.notify_all();
    }

    /// Restarts are refused with these words, or not any more.
    pub fn refuse(&self, text: Option<&str>) {
        self.state().refuse = text.map(str::to_owned);
    }

    pub fn restarts(&self) -> u32 {
        self.state().restarts
    }

    pub fn asked(&self) -> Vec<Request> {
        self.state().asked.clone()
    }

    pub fn domid(&self) -> Option<DomId> {
        self.state().guests[0].domid
    }
}

fn tell(state: &mut State, event: &Event) {
    let reply = Reply::Event(event.clone());
    state
        .subscribers
        .retain_mut(|stream| send(stream, Kind::AgentReply, &reply).is_ok());
}
