//! Pictures for readers.

use std::sync::Arc;

use tepui_model::time::Wall;
use tepui_proto::Message as _;
use tepui_proto::v1::MasterInfo;
use tepui_view::{Classes, FrameworkView, Globals, Maintenance, RecoveredAgentRow, View};

use crate::MasterState;
use crate::effect::bytes_of;
use crate::framework::Framework;

/// What was published last and is shared while it does not change.
#[derive(Debug, Default)]
pub(crate) struct Published {
    classes: Arc<Classes>,
    globals: Arc<Globals>,
    /// Sizes that tell whether the globals changed: recovered and unreachable agents, election.
    globals_of: Option<(u64, Option<Wall>)>,
}

impl MasterState {
    /// Picture of everything for readers, as of the last event. Shares all rows.
    pub fn view(&mut self) -> View {
        if self.published.classes.list.len() != self.classes.len() {
            self.published.classes = Arc::new(Classes {
                list: self.classes.clone(),
            });
        }
        let globals_of = (self.globals_version, self.elected);
        if self.published.globals_of != Some(globals_of) {
            self.published.globals = Arc::new(self.globals());
            self.published.globals_of = Some(globals_of);
        }
        let mut frameworks = Vec::with_capacity(self.frameworks.len());
        let mut table = std::mem::take(&mut self.frameworks);
        for framework in table.values_mut() {
            frameworks.push(self.framework_view(framework));
        }
        self.frameworks = table;
        View {
            version: self.applied,
            agents: self.agents.publish(),
            frameworks,
            completed_frameworks: self.completed.iter().cloned().collect(),
            offers: self.offers.publish(),
            operations: self.operation_rows.publish(),
            classes: Arc::clone(&self.published.classes),
            globals: Arc::clone(&self.published.globals),
        }
    }

    /// Picture of one framework; the last one while nothing changed.
    pub(crate) fn framework_view(&self, framework: &mut Framework) -> Arc<FrameworkView> {
        // Tables are changed in many places; their own versions cannot be forgotten.
        let newest = framework.version
            + framework.tasks.version()
            + framework.unreachable.version()
            + framework.completed.version()
            + framework.executors.version();
        if let Some((version, view)) = &framework.published
            && *version == newest
        {
            return Arc::clone(view);
        }
        let view = Arc::new(FrameworkView {
            row: framework.row(),
            tasks: framework.tasks.publish(),
            unreachable: framework.unreachable.publish(),
            completed: framework.completed.publish(),
            executors: framework.executors.publish(),
        });
        framework.published = Some((newest, Arc::clone(&view)));
        view
    }

    fn globals(&self) -> Globals {
        let mut info = MasterInfo::decode(self.settings.master_info.clone()).unwrap_or_default();
        info.id = self.master_id.clone();
        Globals {
            master_id: self.master_id.clone(),
            master_info: bytes_of(&info),
            started: self.settings.started,
            elected: self.elected,
            recovered_agents: self
                .recovered
                .iter()
                .map(|(id, agent)| RecoveredAgentRow {
                    id: id.clone(),
                    info: agent.info.clone(),
                })
                .collect(),
            weights: self
                .weights
                .iter()
                .map(|(role, weight)| (role.clone(), *weight))
                .collect(),
            // The newest first: Mesos' hash table lists them so.
            quotas: self
                .quotas
                .iter()
                .rev()
                .map(|(role, quota)| (role.clone(), quota.clone()))
                .collect(),
            maintenance: Maintenance {
                inverse_offers: self.inverse_offers(),
                answers: self.inverse_answers(),
                ..self.machines.shown()
            },
            gone_agents: self
                .gone
                .iter()
                .map(|(id, since)| (id.clone(), *since))
                .collect(),
            deactivated_agents: self.out_of_service.keys().cloned().collect(),
            unreachable_agents: self
                .unreachable
                .iter()
                .map(|(id, since)| (id.clone(), *since))
                .collect(),
        }
    }
}
