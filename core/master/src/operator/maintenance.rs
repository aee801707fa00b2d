//! Maintenance of machines: its calls, `/maintenance` and `/machine`.

use tepui_http::Response;
use tepui_model::authorization::Action;
use tepui_proto::v1::MachineId;
use tepui_proto::v1::maintenance::{ClusterStatus, Schedule, cluster_status};
use tepui_state_master::{OperatorCall, validate};

use super::Caller;
use crate::authorize::Object;
use crate::refusal::Refusal;

/// The object of the maintenance actions is a machine, which has no value for ACLs.
fn object(_: &MachineId) -> Object {
    Object::default()
}

impl Caller<'_> {
    /// The schedule, as far as the caller may see its machines.
    pub(crate) async fn schedule(&self) -> Result<Schedule, Refusal> {
        let view = self.owner.view().await?;
        let mut schedule = view.globals.maintenance.schedule.clone();
        for window in &mut schedule.windows {
            let machines = std::mem::take(&mut window.machine_ids);
            let action = Action::GetMaintenanceSchedule;
            window.machine_ids = self.visible(action, machines, object).await;
        }
        schedule
            .windows
            .retain(|window| !window.machine_ids.is_empty());
        Ok(schedule)
    }

    /// Which machines drain and which are down, as far as the caller may see them.
    pub(crate) async fn maintenance_status(&self) -> Result<ClusterStatus, Refusal> {
        let view = self.owner.view().await?;
        let maintenance = &view.globals.maintenance;
        let draining = maintenance
            .schedule
            .windows
            .iter()
            .flat_map(|window| &window.machine_ids)
            .filter(|machine| !maintenance.is_down(machine))
            .cloned()
            .collect();
        let action = Action::GetMaintenanceStatus;
        let draining = self.visible(action, draining, object).await;
        let draining = draining
            .into_iter()
            .map(|id| cluster_status::DrainingMachine {
                statuses: maintenance.answers_of(&id).to_vec(),
                id,
            });
        Ok(ClusterStatus {
            draining_machines: draining.collect(),
            down_machines: self.visible(action, maintenance.down.clone(), object).await,
        })
    }

    /// Replaces the schedule.
    pub(crate) async fn update_schedule(&self, schedule: Schedule) -> Result<Response, Refusal> {
        validate::schedule(&schedule).map_err(Refusal::bad_request)?;
        let machines: Vec<Object> = schedule
            .windows
            .iter()
            .flat_map(|window| &window.machine_ids)
            .map(object)
            .collect();
        self.require_all(Action::UpdateMaintenanceSchedule, machines)
            .await?;
        let schedule = schedule.into();
        self.change(OperatorCall::UpdateMaintenance { schedule })
            .await
    }

    /// Takes machines down.
    pub(crate) async fn machines_down(
        &self,
        machines: Vec<MachineId>,
    ) -> Result<Response, Refusal> {
        self.may_turn(Action::StartMaintenance, &machines).await?;
        let machines = machines.into_iter().map(Into::into).collect();
        self.change(OperatorCall::StartMaintenance { machines })
            .await
    }

    /// Brings machines up again.
    pub(crate) async fn machines_up(&self, machines: Vec<MachineId>) -> Result<Response, Refusal> {
        self.may_turn(Action::StopMaintenance, &machines).await?;
        let machines = machines.into_iter().map(Into::into).collect();
        self.change(OperatorCall::StopMaintenance { machines })
            .await
    }

    async fn may_turn(&self, action: Action, machines: &[MachineId]) -> Result<(), Refusal> {
        validate::machines(machines).map_err(Refusal::bad_request)?;
        let objects: Vec<Object> = machines.iter().map(object).collect();
        self.require_all(action, objects).await
    }
}
