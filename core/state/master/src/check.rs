//! The invariants, checked in tests and after every simulated event.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::id::{Role, TaskId};
use tepui_model::resources::{Quantities, Resources};

use crate::MasterState;
use crate::agent::Session;

/// Fails with a text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

impl MasterState {
    /// Checks the ledger and that the tables agree with each other. Costs a walk over everything.
    pub fn check(&self) -> Result<(), String> {
        let mut used: BTreeMap<AgentKey, Resources> = BTreeMap::new();
        let mut offered: BTreeMap<AgentKey, Resources> = BTreeMap::new();
        self.check_frameworks(&mut used)?;
        self.check_offers(&mut offered)?;
        self.check_agents(&used, &offered)?;
        self.check_sessions()
    }

    fn check_frameworks(&self, used: &mut BTreeMap<AgentKey, Resources>) -> Result<(), String> {
        ensure!(
            self.framework_ids.len() == self.frameworks.len(),
            "{} framework ids for {} frameworks",
            self.framework_ids.len(),
            self.frameworks.len()
        );
        for (key, framework) in &self.frameworks {
            ensure!(
                self.framework_ids.get(&framework.id) == Some(key),
                "framework {} is not found by its id",
                framework.id
            );
            ensure!(
                framework.is_active() == framework.stream.is_some(),
                "framework {} is active without a stream, or the other way round",
                framework.id
            );
            let mut own = Resources::new();
            for task in framework.tasks.iter() {
                self.check_task(*key, &task.id, task.agent)?;
                if !task.terminal {
                    own += task.resources.scalars();
                    *used.entry(task.agent).or_default() += &task.resources;
                }
                ensure!(
                    !framework.unreachable.contains(&task.id),
                    "task {} is known and unreachable",
                    task.id
                );
            }
            for executor in framework.executors.iter() {
                own += executor.resources.scalars();
                *used.entry(executor.agent).or_default() += &executor.resources;
            }
            ensure!(
                own == *framework.used.scalars(),
                "framework {} uses {own} but counts {}",
                framework.id,
                framework.used.scalars()
            );
            ensure!(
                framework.completed.len() <= self.settings.max_completed_tasks_per_framework,
                "framework {} keeps {} completed tasks",
                framework.id,
                framework.completed.len()
            );
        }
        Ok(())
    }

    fn check_task(
        &self,
        framework: FrameworkKey,
        id: &TaskId,
        agent: AgentKey,
    ) -> Result<(), String> {
        let listed = self
            .agent_runs
            .get(&agent)
            .is_some_and(|run| run.tasks.contains(&(framework, id.clone())));
        ensure!(listed, "task {id} is not listed with its agent");
        Ok(())
    }

    fn check_offers(&self, offered: &mut BTreeMap<AgentKey, Resources>) -> Result<(), String> {
        let mut of_frameworks = 0;
        for framework in self.frameworks.values() {
            of_frameworks += framework.offers.len();
            let mut own = Resources::new();
            for number in &framework.offers {
                let row = self.offers.get(number);
                let row = row.ok_or_else(|| format!("offer {number} is listed but not there"))?;
                own += row.resources.scalars();
            }
            ensure!(
                own == *framework.offered.scalars(),
                "framework {} is offered {own} but counts {}",
                framework.id,
                framework.offered.scalars()
            );
        }
        ensure!(
            of_frameworks == self.offers.len(),
            "frameworks list {of_frameworks} offers, there are {}",
            self.offers.len()
        );
        for row in self.offers.iter() {
            let framework = self.frameworks.get(&row.framework);
            ensure!(
                framework.is_some_and(crate::framework::Framework::is_active),
                "offer {} is of a framework that is not active",
                row.id
            );
            let agent = self.agents.get(&row.agent);
            ensure!(
                agent.is_some_and(|agent| agent.active),
                "offer {} is of an agent that is not active",
                row.id
            );
            *offered.entry(row.agent).or_default() += &row.resources;
        }
        Ok(())
    }

    fn check_agents(
        &self,
        used: &BTreeMap<AgentKey, Resources>,
        offered: &BTreeMap<AgentKey, Resources>,
    ) -> Result<(), String> {
        let none = Resources::new();
        let mut reserved: BTreeMap<Role, Quantities> = BTreeMap::new();
        for (key, run) in self.agent_runs.iter() {
            let row = self.agents.get(&key);
            let row = row.ok_or_else(|| format!("agent {} has no row", run.id))?;
            ensure!(
                self.agents_at
                    .get(&run.address)
                    .is_some_and(|there| there.contains(&key)),
                "agent {} is not found at {}",
                run.id,
                run.address
            );
            let used = used.get(&key).unwrap_or(&none);
            let offered = offered.get(&key).unwrap_or(&none);
            ensure!(
                row.used == *used,
                "agent {}: {} are used, the ledger says {}",
                run.id,
                used,
                row.used
            );
            ensure!(
                row.offered == *offered,
                "agent {}: {} are offered, the ledger says {}",
                run.id,
                offered,
                row.offered
            );
            let mut sum = run.free.clone();
            sum += row.used.unallocate().non_shared();
            sum += row.offered.unallocate().non_shared();
            // Before its first sync nothing is known of an agent.
            ensure!(
                !run.synced || sum == row.total,
                "agent {}: free {} + used {} + offered {} is not {}",
                run.id,
                run.free,
                row.used,
                row.offered,
                row.total
            );
            for (role, resources) in row.total.reserved() {
                *reserved.entry(role).or_default() += &resources.quantities();
            }
            for (framework, id) in &run.tasks {
                let there = self
                    .frameworks
                    .get(framework)
                    .and_then(|owner| owner.tasks.get(id));
                ensure!(
                    there.is_some_and(|task| task.agent == key),
                    "agent {} lists task {id} that is not there",
                    run.id
                );
            }
            for kill in run.kills.keys() {
                ensure!(
                    run.tasks.contains(kill),
                    "kill of task {} that is not there",
                    kill.1
                );
            }
        }
        let there: usize = self.agents_at.values().map(BTreeSet::len).sum();
        ensure!(
            there == self.agent_runs.len(),
            "{there} agents are at addresses"
        );
        reserved.retain(|_, sum| !sum.is_empty());
        ensure!(
            reserved == self.reserved,
            "{reserved:?} is reserved, the ledger says {:?}",
            self.reserved
        );
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), String> {
        for (session, state) in &self.sessions {
            if let Session::Open(key) = state {
                ensure!(
                    self.agent_runs
                        .get(key)
                        .is_some_and(|run| run.session == Some(*session)),
                    "session {} is not its agent's",
                    session.0
                );
            }
        }
        let queued = self.sessions.values();
        let queued = queued.filter(|state| matches!(state, Session::Queued));
        let queued = queued.count();
        ensure!(
            queued == self.queued_count,
            "{queued} sessions are queued, {} are counted",
            self.queued_count
        );
        let synced = self.agent_runs.values().filter(|run| run.synced).count();
        ensure!(
            synced == self.synced_count,
            "{synced} agents are synced, {} are counted",
            self.synced_count
        );
        Ok(())
    }
}
