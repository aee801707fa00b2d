//! Calls on resource providers, none of which an agent can have yet: what Mesos answers where there are none, and 501
//! for the rest.

use tepui_http::{Response, StatusCode};
use tepui_proto::v1::ResourceProviderInfo;
use tepui_proto::v1::agent::{Call, call::Type};

/// Answers a call whose machinery is not there.
pub(super) fn answer(call: &Call) -> Response {
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
        _ => Response::standard(StatusCode::NOT_IMPLEMENTED),
    }
}

fn unknown_provider(info: Option<&ResourceProviderInfo>) -> Response {
    let (kind, name) = info.map_or(("", ""), |info| (&info.r#type, &info.name));
    Response::bad_request(format!(
        "Failed to validate resource provider config with type '{kind}' and name '{name}': \
         Unknown local resource provider type '{kind}'"
    ))
}
