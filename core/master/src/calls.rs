//! v1 calls from requests: the checks that need no state, in Mesos' order and words.
//!
//! Mirrors `Master::Http::api`, `Master::Http::scheduler` and `validation::{master,scheduler}::call`
//! of Mesos 1.11.

use http::header::CONTENT_TYPE;
use tepui_http::{Media, Method, Request, Response, StatusCode};
use tepui_proto::descriptor::Described;
use tepui_proto::json::{self, JsonError};
use tepui_proto::v1::{self, master, scheduler};

use crate::refusal::Refusal;

/// Why a call of an API cannot be served at all: the first check.
pub(crate) fn only_post(request: &Request) -> Option<Response> {
    (request.method != Method::POST)
        .then(|| Response::method_not_allowed(&[Method::POST], &request.method))
}

/// Reads the call in the body.
pub(crate) fn read<C: Described>(request: &Request) -> Result<C, Refusal> {
    let content_type = request.headers.get(CONTENT_TYPE);
    let content_type = content_type
        .ok_or_else(|| Refusal::bad_request("Expecting 'Content-Type' to be present"))?;
    match content_type.to_str().ok().and_then(Media::of_content_type) {
        Some(Media::Json) => json::to_message(&request.body).map_err(|error| {
            Refusal::bad_request(match error {
                JsonError::Syntax(text) => format!("Failed to parse body into JSON: {text}"),
                JsonError::Convert(text) => {
                    format!("Failed to convert JSON into Call protobuf: {text}")
                }
            })
        }),
        Some(Media::Protobuf) => tepui_proto::decode(&request.body)
            .map_err(|_| Refusal::bad_request("Failed to parse body into Call protobuf")),
        None => {
            let text = "Expecting 'Content-Type' of application/json or application/x-protobuf";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

/// The form of the answer.
pub(crate) fn acceptable(request: &Request) -> Result<Media, Refusal> {
    Media::acceptable(&request.headers).ok_or_else(|| {
        let text = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'";
        Refusal::new(StatusCode::NOT_ACCEPTABLE, text)
    })
}

/// Checks an operator's call; its type is known afterwards.
pub(crate) fn operator(call: &master::Call) -> Result<master::call::Type, Refusal> {
    use master::call::Type;
    let refused =
        |text: String| Refusal::bad_request(format!("Failed to validate master::Call: {text}"));
    let absent = |part: &str| refused(format!("Expecting '{part}' to be present"));
    let kind = call
        .r#type
        .and_then(|number| Type::try_from(number).ok())
        .ok_or_else(|| absent("type"))?;
    #[expect(deprecated, reason = "Mesos takes these calls still")]
    let (part, present) = match kind {
        Type::GetMetrics => ("get_metrics", call.get_metrics.is_some()),
        Type::SetLoggingLevel => ("set_logging_level", call.set_logging_level.is_some()),
        Type::ListFiles => ("list_files", call.list_files.is_some()),
        Type::ReadFile => ("read_file", call.read_file.is_some()),
        Type::UpdateWeights => ("update_weights", call.update_weights.is_some()),
        Type::ReserveResources => ("reserve_resources", call.reserve_resources.is_some()),
        Type::UnreserveResources => ("unreserve_resources", call.unreserve_resources.is_some()),
        Type::CreateVolumes => ("create_volumes", call.create_volumes.is_some()),
        Type::DestroyVolumes => ("destroy_volumes", call.destroy_volumes.is_some()),
        Type::GrowVolume => ("grow_volume", call.grow_volume.is_some()),
        Type::ShrinkVolume => ("shrink_volume", call.shrink_volume.is_some()),
        Type::UpdateMaintenanceSchedule => (
            "update_maintenance_schedule",
            call.update_maintenance_schedule.is_some(),
        ),
        Type::StartMaintenance => ("start_maintenance", call.start_maintenance.is_some()),
        Type::StopMaintenance => ("stop_maintenance", call.stop_maintenance.is_some()),
        Type::DrainAgent => ("drain_agent", call.drain_agent.is_some()),
        Type::DeactivateAgent => ("deactivate_agent", call.deactivate_agent.is_some()),
        Type::ReactivateAgent => ("reactivate_agent", call.reactivate_agent.is_some()),
        Type::UpdateQuota => ("update_quota", call.update_quota.is_some()),
        Type::SetQuota => ("set_quota", call.set_quota.is_some()),
        Type::RemoveQuota => ("remove_quota", call.remove_quota.is_some()),
        Type::Teardown => ("teardown", call.teardown.is_some()),
        Type::MarkAgentGone => ("mark_agent_gone", call.mark_agent_gone.is_some()),
        _ => return Ok(kind),
    };
    if present { Ok(kind) } else { Err(absent(part)) }
}

/// Checks a scheduler's call; its type is known afterwards.
pub(crate) fn scheduler(
    call: &scheduler::Call,
    principal: Option<&str>,
) -> Result<scheduler::call::Type, Refusal> {
    scheduler_call(call, principal)
        .map_err(|text| Refusal::bad_request(format!("Failed to validate scheduler::Call: {text}")))
}

fn scheduler_call(
    call: &scheduler::Call,
    principal: Option<&str>,
) -> Result<scheduler::call::Type, String> {
    use scheduler::call::Type;
    let absent = |part: &str| format!("Expecting '{part}' to be present");
    let kind = call
        .r#type
        .and_then(|number| Type::try_from(number).ok())
        .ok_or_else(|| absent("type"))?;
    if kind == Type::Subscribe {
        let subscribe = call.subscribe.as_ref().ok_or_else(|| absent("subscribe"))?;
        return framework(call, &subscribe.framework_info, "subscribe", principal).map(|()| kind);
    }
    if call.framework_id.is_none() {
        return Err(absent("framework_id"));
    }
    let (part, present) = match kind {
        Type::Accept => ("accept", call.accept.is_some()),
        Type::Decline => ("decline", call.decline.is_some()),
        Type::AcceptInverseOffers => (
            "accept_inverse_offers",
            call.accept_inverse_offers.is_some(),
        ),
        Type::DeclineInverseOffers => (
            "decline_inverse_offers",
            call.decline_inverse_offers.is_some(),
        ),
        Type::Kill => ("kill", call.kill.is_some()),
        Type::Shutdown => ("shutdown", call.shutdown.is_some()),
        Type::Acknowledge => ("acknowledge", call.acknowledge.is_some()),
        Type::AcknowledgeOperationStatus => (
            "acknowledge_operation_status",
            call.acknowledge_operation_status.is_some(),
        ),
        Type::Reconcile => ("reconcile", call.reconcile.is_some()),
        Type::ReconcileOperations => ("reconcile_operations", call.reconcile_operations.is_some()),
        Type::Message => ("message", call.message.is_some()),
        Type::Request => ("request", call.request.is_some()),
        Type::UpdateFramework => ("update_framework", call.update_framework.is_some()),
        _ => return Ok(kind),
    };
    if !present {
        return Err(absent(part));
    }
    let acknowledged = call
        .acknowledge
        .as_ref()
        .map(|acknowledge| &acknowledge.uuid);
    let operation = call
        .acknowledge_operation_status
        .as_ref()
        .map(|acknowledge| &acknowledge.uuid);
    let uuid = match kind {
        Type::Acknowledge => acknowledged,
        Type::AcknowledgeOperationStatus => operation,
        _ => None,
    };
    if uuid.is_some_and(|uuid| uuid.len() != 16) {
        return Err("Not a valid UUID".to_owned());
    }
    if let (Type::UpdateFramework, Some(update)) = (kind, &call.update_framework) {
        framework(call, &update.framework_info, "update_framework", principal)?;
    }
    Ok(kind)
}

/// A FrameworkInfo inside a call must name the caller.
fn framework(
    call: &scheduler::Call,
    info: &v1::FrameworkInfo,
    part: &str,
    principal: Option<&str>,
) -> Result<(), String> {
    let id =
        |id: &Option<v1::FrameworkId>| id.as_ref().map_or(String::new(), |id| id.value.clone());
    if id(&info.id) != id(&call.framework_id) {
        return Err(format!(
            "'framework_id' differs from '{part}.framework_info.id'"
        ));
    }
    if let (Some(principal), Some(named)) = (principal, &info.principal)
        && principal != named
    {
        return Err(format!(
            "Authenticated principal '{principal}' does not match principal '{named}' set in `FrameworkInfo`"
        ));
    }
    Ok(())
}
