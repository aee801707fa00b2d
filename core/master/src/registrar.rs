//! `/registrar(1)/registry`: what the registry holds, in the form of Mesos' `Registry` message, whose keys are
//! sorted there. Made from the view, which says the same: what is decided holds as soon as it is written.

use serde_json::{Map, Value, json};
use tepui_model::time::Wall;
use tepui_proto::convert::{self, Format};
use tepui_proto::v1::{AgentInfo, MachineInfo, MasterInfo, TimeInfo, machine_info};
use tepui_proto::{Message as _, descriptor, json};
use tepui_view::View;

/// The body.
pub(crate) fn body(view: &View) -> Vec<u8> {
    let mut registry = registry(view);
    registry.sort_all_objects();
    registry.to_string().into_bytes()
}

fn registry(view: &View) -> Value {
    let globals = &view.globals;
    let mut registry = Map::new();
    let mut part = |key: &str, value: Value, is_empty: bool| {
        if !is_empty {
            registry.insert(key.to_owned(), value);
        }
    };
    part(
        "master",
        json!({"info": master_info(&globals.master_info)}),
        false,
    );
    let admitted = view
        .agents
        .iter()
        .map(|agent| json!({"info": agent_info(&agent.info), "deactivated": agent.deactivated}));
    let missing = globals.recovered_agents.iter().map(|agent| {
        let deactivated = globals.deactivated_agents.contains(&agent.id);
        json!({"info": agent_info(&agent.info), "deactivated": deactivated})
    });
    let slaves: Vec<Value> = admitted.chain(missing).collect();
    part("slaves", json!({"slaves": slaves}), slaves.is_empty());
    let lost = |(id, since): &(tepui_model::id::AgentId, Wall)| json!({"id": {"value": id.as_str()}, "timestamp": of(&TimeInfo::from(*since))});
    let unreachable: Vec<Value> = globals.unreachable_agents.iter().map(lost).collect();
    part(
        "unreachable",
        json!({"slaves": unreachable}),
        unreachable.is_empty(),
    );
    let gone: Vec<Value> = globals.gone_agents.iter().map(lost).collect();
    part("gone", json!({"slaves": gone}), gone.is_empty());
    let machines = machines(view);
    part(
        "machines",
        json!({"machines": machines}),
        machines.is_empty(),
    );
    let schedule = &globals.maintenance.schedule;
    part(
        "schedules",
        json!([of(schedule)]),
        schedule.windows.is_empty(),
    );
    let weights = globals.weights.iter();
    let weights: Vec<Value> = weights
        .map(|(role, weight)| json!({"info": {"role": role.as_str(), "weight": weight}}))
        .collect();
    part("weights", weights.clone().into(), weights.is_empty());
    let quotas: Vec<Value> = globals
        .quotas
        .iter()
        .filter(|(_, quota)| *quota != Default::default())
        .map(|quota| of(&crate::operator::quota_config(quota)))
        .collect();
    part("quota_configs", quotas.clone().into(), quotas.is_empty());
    registry.into()
}

/// A message as JSON.
fn of(message: &impl descriptor::Described) -> Value {
    serde_json::from_slice(&json::from_message(message)).expect("what is written is JSON")
}

/// The registry knows the name of the capability that v1 has none for.
fn master_info(info: &[u8]) -> Value {
    let mut info = of(&MasterInfo::decode(info).unwrap_or_default());
    for capability in info["capabilities"].as_array_mut().into_iter().flatten() {
        if capability["type"].is_null() {
            capability["type"] = "QUOTA_V2".into();
        }
    }
    info
}

/// An agent as Mesos keeps it: reservations in the form that older masters read.
fn agent_info(info: &[u8]) -> Value {
    let mut info = AgentInfo::decode(info).unwrap_or_default();
    if let Ok(resources) = convert::resources(&info.resources) {
        info.resources = convert::to_proto_as(&resources, Format::Pre);
    }
    let mut shown = Vec::new();
    let wire = info.encode_to_vec();
    json::from_wire(descriptor::shown_agent_info(), &wire, &mut shown)
        .ok()
        .and_then(|()| serde_json::from_slice(&shown).ok())
        .unwrap_or_default()
}

/// Machines with a mode other than UP.
fn machines(view: &View) -> Vec<Value> {
    let maintenance = &view.globals.maintenance;
    let windows = maintenance.schedule.windows.iter();
    let machines = windows.flat_map(|window| {
        let unavailability = Some(window.unavailability);
        window.machine_ids.iter().map(move |id| {
            let mode = match maintenance.is_down(id) {
                true => machine_info::Mode::Down,
                false => machine_info::Mode::Draining,
            };
            MachineInfo {
                id: id.clone(),
                mode: Some(mode.into()),
                unavailability,
            }
        })
    });
    machines.map(|info| json!({"info": of(&info)})).collect()
}
