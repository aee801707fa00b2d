//! Maintenance: when which machines will not be there, and which are down now.
//!
//! A machine of the schedule is draining: offers of its agents say when it goes. Down, its agents are
//! removed and may not come back until it is up again, which takes it off the schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tepui_model::allocation::{self, AgentKey, Fact};
use tepui_model::time::{Now, Wall};
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{MachineId, MachineInfo, Unavailability, machine_info, maintenance};
use tepui_proto::{Message as _, Wire, disk, json};
use tepui_view::Maintenance;

use crate::agent::Agent;
use crate::changes::{Change, Decided};
use crate::effect::bytes_of;
use crate::event::Entry;
use crate::registry::Pending;
use crate::{Effect, MasterState, Reply, service};

const KEY: &str = "maintenance";

/// Tells machines apart: host names are compared without case.
pub(crate) type MachineKey = (String, String);

pub(crate) fn machine_key(machine: &MachineId) -> MachineKey {
    (machine.hostname().to_lowercase(), machine.ip().to_owned())
}

/// The machine of an agent: where it says that it is reached.
fn machine_at(hostname: &str, address: &str) -> MachineKey {
    let address = address.parse::<SocketAddr>();
    let ip = address.map_or(String::new(), |address| address.ip().to_string());
    (hostname.to_lowercase(), ip)
}

pub(crate) fn machine_of(agent: &Agent) -> MachineKey {
    machine_at(&agent.info.hostname, &agent.address)
}

/// A machine in the words of Mesos' refusals.
pub(crate) fn said(machine: &MachineId) -> String {
    String::from_utf8_lossy(&json::from_message(machine)).into_owned()
}

fn refused(machine: &MachineId, why: &str) -> Reply {
    Reply::BadRequest(format!("Machine '{}' {why}", said(machine)))
}

/// The machines of which there is something to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machines {
    shown: Maintenance,
    unavailable: BTreeMap<MachineKey, Unavailability>,
    down: BTreeSet<MachineKey>,
}

impl Machines {
    fn new(schedule: maintenance::Schedule, down: Vec<MachineId>) -> Self {
        let unavailable = schedule
            .windows
            .iter()
            .flat_map(|window| {
                let at = window.unavailability;
                let machines = window.machine_ids.iter();
                machines.map(move |machine| (machine_key(machine), at))
            })
            .collect();
        Self {
            unavailable,
            down: down.iter().map(machine_key).collect(),
            shown: Maintenance {
                schedule,
                down,
                ..Maintenance::default()
            },
        }
    }

    /// Without what frameworks say to it.
    pub(crate) fn shown(&self) -> Maintenance {
        self.shown.clone()
    }

    fn unavailability(&self, agent: &Agent) -> Option<&Unavailability> {
        self.unavailable.get(&machine_of(agent))
    }

    fn decided(self) -> Decided {
        let scheduled = &self.shown.schedule.windows;
        let machines = scheduled
            .iter()
            .flat_map(|window| &window.machine_ids)
            .map(|id| {
                let key = machine_key(id);
                let mode = if self.down.contains(&key) {
                    machine_info::Mode::Down
                } else {
                    machine_info::Mode::Draining
                };
                MachineInfo {
                    id: id.clone(),
                    mode: Some(mode.into()),
                    unavailability: self.unavailable.get(&key).cloned(),
                }
            })
            .collect();
        let entry = disk::Maintenance {
            schedule: Some(self.shown.schedule.clone()),
            machines,
        };
        Decided {
            puts: vec![Entry {
                key: KEY.to_owned(),
                value: bytes_of(&entry),
            }],
            deletes: Vec::new(),
            change: Change::Machines(self),
        }
    }
}

impl MasterState {
    pub(crate) fn recover_maintenance(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        let kept = disk::Maintenance::decode(entry.value.clone())?;
        let down = kept
            .machines
            .into_iter()
            .filter(|machine| machine.mode() == machine_info::Mode::Down)
            .map(|machine| machine.id)
            .collect();
        self.machines = Machines::new(kept.schedule.unwrap_or_default(), down);
        Ok(())
    }

    pub(crate) fn decide_schedule(
        &self,
        schedule: maintenance::Schedule,
    ) -> Result<Decided, Reply> {
        let down = self.machines.shown.down.clone();
        let machines = Machines::new(schedule, down);
        let dropped =
            |machine: &&MachineId| !machines.unavailable.contains_key(&machine_key(machine));
        if let Some(machine) = machines.shown.down.iter().find(dropped) {
            let why = "is in DOWN mode and cannot be removed from the schedule";
            return Err(refused(machine, why));
        }
        Ok(machines.decided())
    }

    pub(crate) fn decide_down(&self, machines: Vec<Wire<MachineId>>) -> Result<Decided, Reply> {
        let now = &self.machines;
        let mut down = now.shown.down.clone();
        for Wire(machine) in machines {
            let key = machine_key(&machine);
            if !now.unavailable.contains_key(&key) {
                return Err(refused(&machine, "is not part of a maintenance schedule"));
            }
            if now.down.contains(&key) {
                let why = "is not in DRAINING mode and cannot be brought down";
                return Err(refused(&machine, why));
            }
            down.push(machine);
        }
        Ok(Machines::new(now.shown.schedule.clone(), down).decided())
    }

    pub(crate) fn decide_up(&self, machines: Vec<Wire<MachineId>>) -> Result<Decided, Reply> {
        let now = &self.machines;
        let mut up = BTreeSet::new();
        for Wire(machine) in machines {
            let key = machine_key(&machine);
            if !now.unavailable.contains_key(&key) {
                return Err(refused(&machine, "is not part of a maintenance schedule"));
            }
            if !now.down.contains(&key) {
                return Err(refused(
                    &machine,
                    "is not in DOWN mode and cannot be brought up",
                ));
            }
            up.insert(key);
        }
        let mut shown = now.shown();
        let stays = |machine: &MachineId| !up.contains(&machine_key(machine));
        shown.down.retain(stays);
        for window in &mut shown.schedule.windows {
            window.machine_ids.retain(stays);
        }
        shown
            .schedule
            .windows
            .retain(|window| !window.machine_ids.is_empty());
        Ok(Machines::new(shown.schedule, shown.down).decided())
    }

    pub(crate) fn set_machines(&mut self, machines: Machines, now: Now, effects: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.machines, machines);
        let agents: Vec<AgentKey> = self.agent_runs.keys().collect();
        for key in agents {
            if self.take_down_if_down(key, effects) {
                continue;
            }
            let agent = &self.agent_runs[&key];
            if old.unavailability(agent) != self.machines.unavailability(agent) {
                // Open offers say something else.
                self.rescind_agent(key, now, effects);
                let unavailable = self.unavailability(key).is_some();
                self.tell_unavailability(key);
                self.set_unavailable(key, unavailable, now.mono);
                self.allocation.want(key);
            }
        }
    }

    /// Whether the machine is down: agents on it may not register.
    pub(crate) fn is_down(&self, hostname: &str, address: &str) -> bool {
        self.machines.down.contains(&machine_at(hostname, address))
    }

    /// Ends an agent whose machine is down; true if it is.
    pub(crate) fn take_down_if_down(&mut self, key: AgentKey, effects: &mut Vec<Effect>) -> bool {
        let agent = &self.agent_runs[&key];
        if !self.is_down(&agent.info.hostname, &agent.address) {
            return false;
        }
        let id = agent.id.clone();
        if !self.transitioning.insert(id.clone()) {
            return true;
        }
        let reason = "its machine goes down for maintenance".to_owned();
        let body = Body::Shutdown(link::Shutdown { reason });
        self.to_agent(key, body, effects);
        let deletes = vec![format!("agents/{id}"), service::key(&id)];
        self.store(Vec::new(), deletes, Pending::Removed { id }, effects);
        true
    }

    pub(crate) fn unavailability(&self, agent: AgentKey) -> Option<Unavailability> {
        let agent = self.agent_runs.get(&agent)?;
        self.machines.unavailability(agent).cloned()
    }

    pub(crate) fn tell_unavailability(&mut self, key: AgentKey) {
        let unavailable = self
            .unavailability(key)
            .map(|at| allocation::Unavailability {
                from: Wall(at.start.nanoseconds),
                duration: at
                    .duration
                    .map(|duration| Duration::from_nanos(duration.nanoseconds.unsigned_abs())),
            });
        self.allocation
            .tell(Fact::AgentUnavailable(key, unavailable));
    }
}
