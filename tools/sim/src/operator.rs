//! What the operator of a simulated cluster does, and what he was told is so.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::id::AgentId;
use tepui_model::resources::Name;
use tepui_proto::Wire;
use tepui_proto::v1::{self, maintenance, quota, value};
use tepui_state_master::{CallId, Event, OperatorCall, Reply};
use tepui_view::View;

use crate::simulation::Simulation;

/// A role of simulated frameworks.
pub(crate) const ROLE: &str = "a";

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Limit,
    Weight,
    Machines,
    Service(AgentId),
    Gone(AgentId),
}

impl Topic {
    /// What a leader believes of it, in words that can be compared; `None` where it knows nothing of the agent.
    fn seen(&self, view: &View) -> Option<String> {
        let globals = &view.globals;
        match self {
            Self::Limit => {
                let quota = globals
                    .quotas
                    .iter()
                    .find(|(role, _)| role.as_str() == ROLE);
                let limit = quota.and_then(|(_, quota)| {
                    quota.limits.iter().find(|(name, _)| *name == Name::CPUS)
                });
                Some(format!("{:?}", limit.map(|(_, amount)| amount.to_string())))
            }
            Self::Weight => {
                let weight = globals
                    .weights
                    .iter()
                    .find(|(role, _)| role.as_str() == ROLE);
                Some(format!("{:?}", weight.map(|(_, weight)| *weight)))
            }
            Self::Machines => Some(planned(
                &globals.maintenance.schedule,
                &globals.maintenance.down,
            )),
            Self::Service(id) => {
                let known = view.agents.iter().any(|row| row.id == *id)
                    || globals.recovered_agents.iter().any(|row| row.id == *id)
                    || globals
                        .unreachable_agents
                        .iter()
                        .any(|(known, _)| known == id);
                known.then(|| globals.deactivated_agents.contains(id).to_string())
            }
            Self::Gone(id) => {
                let gone = globals.gone_agents.iter().any(|(known, _)| known == id);
                Some(gone.to_string())
            }
        }
    }
}

impl Topic {
    /// Whether it is the end of a drain, which comes in its time.
    fn is_end(&self, seen: &str, going: &BTreeSet<AgentId>) -> bool {
        matches!(self, Self::Gone(id) if seen == "true" && going.contains(id))
    }
}

fn planned(schedule: &maintenance::Schedule, down: &[v1::MachineId]) -> String {
    let windows = schedule.windows.iter();
    let scheduled: BTreeSet<&str> = windows
        .flat_map(|window| window.machine_ids.iter().map(v1::MachineId::hostname))
        .collect();
    let down: BTreeSet<&str> = down.iter().map(v1::MachineId::hostname).collect();
    format!("{scheduled:?}, down {down:?}")
}

/// What was decided, as far as the operator knows: R4.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    open: BTreeMap<CallId, (Topic, String)>,
    /// What may be so: one state where the operator was answered, several where a master died before it answered.
    may_be: BTreeMap<Topic, BTreeSet<String>>,
    answered: u64,
    /// Machines went down, or new agents stand where others stood: those are removed, and what was decided of them with
    /// them, also when they come back.
    removed: bool,
    /// They are drained, and gone when nothing runs on them any more.
    going: BTreeSet<AgentId>,
}

impl Decisions {
    /// From now on new agents may take the places of others.
    pub(crate) fn replace_agents(&mut self) {
        self.removed = true;
    }

    pub(crate) fn answer(&mut self, call: CallId, reply: &Reply) {
        let Some((topic, state)) = self.open.remove(&call) else {
            return;
        };
        if *reply == Reply::Ok {
            self.answered += 1;
            self.may_be.insert(topic, BTreeSet::from([state]));
        }
    }

    /// The master died: what was not answered may be so or not.
    pub(crate) fn unanswered(&mut self) {
        for (topic, state) in std::mem::take(&mut self.open).into_values() {
            self.may_be.entry(topic).or_default().insert(state);
        }
    }

    /// A new leader knows all of it.
    pub(crate) fn check(&mut self, view: &View) -> Result<(), String> {
        for (topic, may_be) in &mut self.may_be {
            if self.removed && matches!(topic, Topic::Service(_)) {
                continue;
            }
            match topic.seen(view) {
                None => {}
                Some(seen) if may_be.contains(&seen) || topic.is_end(&seen, &self.going) => {
                    *may_be = BTreeSet::from([seen])
                }
                Some(seen) => {
                    return Err(format!(
                        "R4: {topic:?} is {seen} for the next leader, expected one of {may_be:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }
}

impl Simulation {
    /// Calls; `about` is what is decided if the call succeeds. One call at a time about one thing.
    pub(crate) fn operate(
        &mut self,
        about: Option<(Topic, String)>,
        request: OperatorCall,
    ) -> Result<(), String> {
        let Some(master) = &mut self.master else {
            return Ok(());
        };
        self.calls += 1;
        let call = CallId(self.calls);
        if let Some((topic, state)) = about {
            let decisions = &mut self.decisions;
            if decisions.open.values().any(|(open, _)| *open == topic) {
                return Ok(());
            }
            // Where nothing was decided before, what is so now may stay so.
            if !decisions.may_be.contains_key(&topic)
                && let Some(seen) = topic.seen(&master.state.view())
            {
                decisions
                    .may_be
                    .insert(topic.clone(), BTreeSet::from([seen]));
            }
            decisions.open.insert(call, (topic, state));
        }
        self.master_event(Event::Operator {
            call,
            principal: None,
            request,
            class: None,
        })
    }

    fn seen(&mut self) -> Option<View> {
        self.master.as_mut().map(|master| master.state.view())
    }

    /// Decides something about an agent, its machine, or a role.
    pub(crate) fn operator_acts(&mut self) -> Result<(), String> {
        let Some(view) = self
            .seen()
            .filter(|view| view.agents.iter().next().is_some())
        else {
            return Ok(());
        };
        let agents: Vec<_> = view.agents.iter().cloned().collect();
        let agent = &agents[self.rng.below(agents.len() as u64) as usize];
        let agent_id = agent.id.clone();
        let service = Topic::Service(agent_id.clone());
        match self.rng.below(20) {
            0 => self.operate(
                Some((service, true.to_string())),
                OperatorCall::Deactivate { agent_id },
            ),
            1 | 2 => {
                let mark_gone = self.rng.below(8) == 0;
                if mark_gone {
                    self.decisions.going.insert(agent_id.clone());
                }
                let config = Wire(v1::DrainConfig {
                    mark_gone: Some(mark_gone),
                    ..Default::default()
                });
                self.operate(
                    Some((service, true.to_string())),
                    OperatorCall::Drain { agent_id, config },
                )
            }
            3 | 4 => self.limit(Some(1.0)),
            5 | 6 => self.weigh(),
            7 | 8 => self.maintain(&view, &agent.hostname.clone()),
            9 if self.rng.below(4) == 0 => {
                let topic = Topic::Gone(agent_id.clone());
                let at = self.now.wall;
                self.operate(
                    Some((topic, true.to_string())),
                    OperatorCall::MarkGone { agent_id, at },
                )
            }
            9..12 => self.reactivate(agent_id),
            _ => self.operator_operates(agent, ROLE),
        }
    }

    fn reactivate(&mut self, agent_id: AgentId) -> Result<(), String> {
        let topic = Topic::Service(agent_id.clone());
        self.operate(
            Some((topic, false.to_string())),
            OperatorCall::Reactivate { agent_id },
        )
    }

    /// Limits the cpus of the first role, or does not any more.
    fn limit(&mut self, cpus: Option<f64>) -> Result<(), String> {
        let limits = cpus.map(|value| ("cpus".to_owned(), value::Scalar { value }));
        let request = OperatorCall::UpdateQuota {
            configs: vec![Wire(quota::QuotaConfig {
                role: ROLE.to_owned(),
                guarantees: Default::default(),
                limits: limits.into_iter().collect(),
            })],
            force: true,
        };
        let state = format!("{:?}", cpus.map(|value| value.to_string()));
        self.operate(Some((Topic::Limit, state)), request)
    }

    fn weigh(&mut self) -> Result<(), String> {
        let weight = 1.0 + self.rng.below(5) as f64;
        let weights = vec![Wire(v1::WeightInfo {
            role: Some(ROLE.to_owned()),
            weight,
        })];
        let state = format!("{:?}", Some(weight));
        self.operate(
            Some((Topic::Weight, state)),
            OperatorCall::UpdateWeights { weights },
        )
    }

    /// The next step in the life of a machine: on the schedule, down, up again.
    fn maintain(&mut self, view: &View, hostname: &str) -> Result<(), String> {
        let now = &view.globals.maintenance;
        let is_it = |machine: &v1::MachineId| machine.hostname() == hostname;
        let listed = |schedule: &maintenance::Schedule| {
            let windows = schedule.windows.iter();
            windows.flat_map(|window| &window.machine_ids).any(is_it)
        };
        if !now.down.is_empty() {
            return self.bring_up(view);
        }
        if listed(&now.schedule) {
            let machines: Vec<v1::MachineId> = now
                .schedule
                .windows
                .iter()
                .flat_map(|window| window.machine_ids.clone())
                .filter(is_it)
                .collect();
            let state = planned(&now.schedule, &machines);
            self.decisions.removed = true;
            return self.operate(
                Some((Topic::Machines, state)),
                OperatorCall::StartMaintenance {
                    machines: machines.into_iter().map(Wire).collect(),
                },
            );
        }
        let index: usize = hostname.trim_start_matches("host").parse().unwrap_or(0);
        let mut schedule = now.schedule.clone();
        schedule.windows.push(maintenance::Window {
            machine_ids: vec![v1::MachineId {
                hostname: Some(hostname.to_owned()),
                ip: Some(format!("10.0.0.{index}")),
            }],
            unavailability: v1::Unavailability {
                start: v1::TimeInfo {
                    nanoseconds: self.now.wall.0,
                },
                duration: None,
            },
        });
        let state = planned(&schedule, &now.down);
        self.operate(
            Some((Topic::Machines, state)),
            OperatorCall::UpdateMaintenance {
                schedule: Wire(schedule),
            },
        )
    }

    /// All machines that are down are up again, and off the schedule.
    fn bring_up(&mut self, view: &View) -> Result<(), String> {
        let now = &view.globals.maintenance;
        let mut schedule = now.schedule.clone();
        for window in &mut schedule.windows {
            window.machine_ids.retain(|machine| !now.is_down(machine));
        }
        let state = planned(&schedule, &[]);
        let machines = now.down.iter().cloned().map(Wire).collect();
        self.operate(
            Some((Topic::Machines, state)),
            OperatorCall::StopMaintenance { machines },
        )
    }

    /// After the last fault everything is in service and without limits, and frameworks whose scheduler is gone for
    /// good are ended: a new leader knows them from agents again, and keeps them until somebody does.
    pub(crate) fn clear_away(&mut self) -> Result<(), String> {
        let Some(view) = self.seen() else {
            return Ok(());
        };
        if !view.globals.maintenance.down.is_empty() {
            self.bring_up(&view)?;
        }
        let out: Vec<AgentId> = view.globals.deactivated_agents.iter().cloned().collect();
        for agent_id in out {
            self.reactivate(agent_id)?;
        }
        self.limit(None)?;
        let over: Vec<String> = self
            .schedulers
            .iter()
            .filter(|scheduler| scheduler.over)
            .filter_map(|scheduler| scheduler.framework_id())
            .collect();
        for framework_id in over {
            self.operate(None, OperatorCall::Teardown { framework_id })?;
        }
        Ok(())
    }
}
