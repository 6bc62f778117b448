//! The simulated agent: finishes what it was asked to do, whether or not the one who asked still lives.

use crate::guest::Truth;
use crate::world::{TURN, Work, World};
use ft_monitor::monitor::{Input, Order, Performed};
use ft_monitor::record::Deed;
use parapet_wire::agent::Event;

impl World {
    /// The agent finishes what it was asked to do, whether or not the one who asked still lives.
    pub fn agent_works(&mut self) {
        let now = self.now.mono;
        let (done, rest) = std::mem::take(&mut self.work)
            .into_iter()
            .partition(|w| w.ends <= now);
        self.work = rest;
        for work in done {
            let result = self.perform(&work.order);
            let answer = match work.by == self.life && self.monitor.is_some() {
                true if self.agent_back.is_some() => Performed::Unknown("hung up".into()),
                true => result,
                false => continue,
            };
            if self.monitor_stalled.is_some() {
                // It will hear of it when it runs again.
                self.work.push(Work {
                    ends: now.after(TURN),
                    ..work
                });
                continue;
            }
            self.step(Input::Performed {
                order: work.order,
                result: answer,
            });
        }
    }

    pub fn perform(&mut self, order: &Order) -> Performed {
        let Some(index) = self
            .guests
            .iter()
            .position(|g| g.uuid == order.guest && g.exists())
        else {
            return Performed::FoundDone(None);
        };
        if self.guests[index].domid != order.domid {
            return Performed::FoundDone(Some(self.guests[index].told()));
        }
        match order.deed {
            Deed::GiveUp => {
                let uuid = self.guests[index].uuid;
                self.guests[index].truth = Truth::Gone;
                self.guests[index].domid = None;
                self.tell(Event::Gone { uuid });
                Performed::Done(None)
            }
            Deed::Restart if self.chance(self.faults.agent_refusal) => {
                if self.rng.below(2) == 0 {
                    // It got as far as destroying the old domain.
                    self.guests[index].waits(self.now.mono);
                    let told = self.guests[index].told();
                    self.tell(Event::Changed(told));
                }
                Performed::Failed("not enough memory".into())
            }
            Deed::Restart => {
                self.restarts += 1;
                let at = self.now.mono;
                self.guests[index].restarted.push(at);
                self.boot(index);
                Performed::Done(self.guests[index].domid)
            }
        }
    }
}
