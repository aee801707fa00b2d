//! Calls on containers inside of containers, standalone containers and resource providers, none of
//! which an agent can have yet: what Mesos answers where there are none, and 501 for the rest.

use tepui_http::{Response, StatusCode};
use tepui_model::id::ContainerId;
use tepui_proto::v1::agent::{Call, call::Type};
use tepui_proto::v1::{self, ResourceProviderInfo};

use super::Endpoints;

/// Answers a call whose machinery is not there.
pub(super) async fn answer(endpoints: &Endpoints, call: &Call) -> Response {
    match call.r#type() {
        Type::AddResourceProviderConfig => {
            let add = call.add_resource_provider_config.as_ref();
            unknown_provider(add.map(|add| &add.info))
        }
        Type::UpdateResourceProviderConfig => {
            let update = call.update_resource_provider_config.as_ref();
            unknown_provider(update.map(|update| &update.info))
        }
        Type::RemoveResourceProviderConfig => Response::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Missing required flag --resource_provider_config_dir",
        ),
        // Nothing of an unknown provider is left to forget.
        Type::MarkResourceProviderGone => Response::empty(StatusCode::OK),
        _ => match unknown_container(call) {
            Some((id, refusal)) => match knows(endpoints, &id).await {
                Ok(true) => Response::standard(StatusCode::NOT_IMPLEMENTED),
                Ok(false) => refusal,
                Err(response) => response,
            },
            None => Response::standard(StatusCode::NOT_IMPLEMENTED),
        },
    }
}

fn unknown_provider(info: Option<&ResourceProviderInfo>) -> Response {
    let (kind, name) = info.map_or(("", ""), |info| (&info.r#type, &info.name));
    Response::bad_request(format!(
        "Failed to validate resource provider config with type '{kind}' and name '{name}': \
         Unknown local resource provider type '{kind}'"
    ))
}

/// The container that a call is about, and the answer where it is not known.
#[expect(deprecated, reason = "deprecated calls are answered all the same")]
fn unknown_container(call: &Call) -> Option<(ContainerId, Response)> {
    let waited = match call.r#type() {
        Type::WaitNestedContainer => call.wait_nested_container.as_ref().map(|c| &c.container_id),
        Type::WaitContainer => call.wait_container.as_ref().map(|c| &c.container_id),
        Type::AttachContainerOutput => {
            let attach = call.attach_container_output.as_ref();
            attach.map(|c| &c.container_id)
        }
        _ => None,
    };
    let killed = match call.r#type() {
        Type::KillNestedContainer => call.kill_nested_container.as_ref().map(|c| &c.container_id),
        Type::KillContainer => call.kill_container.as_ref().map(|c| &c.container_id),
        _ => None,
    };
    let removed = match call.r#type() {
        Type::RemoveNestedContainer => {
            let remove = call.remove_nested_container.as_ref();
            remove.map(|c| &c.container_id)
        }
        Type::RemoveContainer => call.remove_container.as_ref().map(|c| &c.container_id),
        _ => None,
    };
    let of = |id: &v1::ContainerId| ContainerId::from(id);
    let not_found = |text| Response::text(StatusCode::NOT_FOUND, text);
    if let Some(id) = waited.map(of) {
        let text = format!("Container {id} cannot be found");
        Some((id, not_found(text)))
    } else if let Some(id) = killed.map(of) {
        let text = format!("Container '{id}' cannot be found (or is already killed)");
        Some((id, not_found(text)))
    } else {
        let id = removed.map(of)?;
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Some((id, Response::text(status, "Unknown root container")))
    }
}

/// Whether the container is an executor's, or would be inside of one.
async fn knows(endpoints: &Endpoints, id: &ContainerId) -> Result<bool, Response> {
    let snapshot = endpoints.snapshot().await?;
    let mut executors = snapshot
        .frameworks
        .iter()
        .flat_map(|framework| framework.executors.iter());
    Ok(executors.any(|executor| executor.end.is_none() && executor.container == *id.root()))
}
