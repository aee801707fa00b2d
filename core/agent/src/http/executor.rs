//! `/api/v1/executor`: what executors with processes of their own call.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]

use tepui_http::{Media, Method, Request, Response, StatusCode, header};
use tepui_model::id::Uuid;
use tepui_proto::v1::executor::{Call, call};
use tepui_proto::v1::{TaskState, task_status::Source};
use tepui_proto::{decode, json};
use tepui_state_agent::Refusal;

use super::Endpoints;
use crate::owner::Input;

/// Answers one call.
pub(crate) async fn call(endpoints: &Endpoints, request: Request) -> Response {
    match answer(endpoints, &request).await {
        Ok(response) | Err(response) => response,
    }
}

async fn answer(endpoints: &Endpoints, request: &Request) -> Result<Response, Response> {
    let call = read(request)?;
    validate(&call).map_err(|what| {
        let text = format!("Failed to validate Executor::Call: {what}");
        Response::bad_request(text)
    })?;
    // Only a stream has a form.
    let media = Media::acceptable(&request.headers);
    if media.is_none() && call.r#type() == call::Type::Subscribe {
        let text = "Expecting 'Accept' to allow application/json or application/x-protobuf";
        return Err(Response::text(StatusCode::NOT_ACCEPTABLE, text));
    }
    let media = media.unwrap_or(Media::Json);
    // It keeps a connection open, and is taken from whomever it comes, whatever the agent does.
    if call.r#type() == call::Type::Heartbeat {
        return Ok(Response::accepted());
    }
    let unknown = call.r#type() == call::Type::Unknown;
    let asked = |answer| Input::Executor(call, media, answer);
    let answered = endpoints.handle.ask(asked).await;
    let answered = answered.ok_or_else(|| Response::unavailable("Agent is terminating"))?;
    let stream = answered.map_err(|refusal| refused(&refusal))?;
    if unknown {
        return Err(Response::standard(StatusCode::NOT_IMPLEMENTED));
    }
    Ok(match stream {
        Some(body) => Response::stream(media.content_type(), body),
        None => Response::accepted(),
    })
}

fn refused(refusal: &Refusal) -> Response {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoFramework | Refusal::NoExecutor => Response::bad_request(text),
        Refusal::NotSubscribed => Response::forbidden(text),
        Refusal::Recovering => Response::unavailable(text),
    }
}

fn read(request: &Request) -> Result<Call, Response> {
    if request.method != Method::POST {
        let allowed = [Method::POST];
        return Err(Response::method_not_allowed(&allowed, &request.method));
    }
    let Some(content_type) = request.header(header::CONTENT_TYPE.as_str()) else {
        return Err(Response::bad_request(
            "Expecting 'Content-Type' to be present",
        ));
    };
    match Media::of_content_type(content_type) {
        Some(Media::Json) => json::to_message(&request.body).map_err(|error| {
            let (what, text) = match error {
                json::JsonError::Syntax(text) => ("parse body into JSON", text),
                json::JsonError::Convert(text) => ("convert JSON into Call protobuf", text),
            };
            Response::bad_request(format!("Failed to {what}: {text}"))
        }),
        Some(Media::Protobuf) => decode(&request.body)
            .map_err(|_| Response::bad_request("Failed to parse body into Call protobuf")),
        None => {
            let text = "Expecting 'Content-Type' of application/json or application/x-protobuf";
            Err(Response::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

/// `validation::executor::call::validate` of Mesos.
fn validate(call: &Call) -> Result<(), String> {
    let needs = |part: &str| Err(format!("Expecting '{part}' to be present"));
    if call.r#type.is_none() {
        return needs("type");
    }
    match call.r#type() {
        call::Type::Subscribe if call.subscribe.is_none() => needs("subscribe"),
        call::Type::Subscribe => {
            let subscribe = call.subscribe.iter();
            let mut updates = subscribe.flat_map(|s| &s.unacknowledged_updates);
            updates.try_for_each(|update| validate_update(call, update))
        }
        call::Type::Message if call.message.is_none() => needs("message"),
        call::Type::Update => match &call.update {
            Some(update) => validate_update(call, update),
            None => needs("update"),
        },
        _ => Ok(()),
    }
}

fn validate_update(call: &Call, update: &call::Update) -> Result<(), String> {
    let status = &update.status;
    let Some(uuid) = &status.uuid else {
        return Err("Expecting 'uuid' to be present".to_owned());
    };
    if Uuid::from_slice(uuid).is_none() {
        return Err("Not a valid UUID".to_owned());
    }
    let (executor, framework) = (&call.executor_id.value, &call.framework_id.value);
    if let Some(named) = &status.executor_id
        && named.value != *executor
    {
        return Err(format!(
            "ExecutorID in Call: {executor} does not match ExecutorID in TaskStatus: {}",
            named.value
        ));
    }
    if status.source.is_none() || status.source() != Source::Executor {
        return Err(format!(
            "Received Call from executor {executor} of framework {framework} with invalid source, \
             expecting 'SOURCE_EXECUTOR'"
        ));
    }
    if status.state() == TaskState::TaskStaging {
        return Err(format!(
            "Received TASK_STAGING from executor {executor} of framework {framework} which is not \
             allowed"
        ));
    }
    Ok(())
}
