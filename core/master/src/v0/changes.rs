//! The older endpoints that change something, and show it when they are read.

use tepui_http::{Method, Request, Response};
use tepui_proto::descriptor::Described;
use tepui_proto::json::{self, JsonError, Writer};
use tepui_proto::v1::offer::operation::Type;
use tepui_proto::v1::quota::QuotaRequest;
use tepui_proto::v1::{MachineId, Unavailability, WeightInfo, maintenance::Schedule};

use super::V0;
use crate::operator::{Asked, Caller};
use crate::refusal::Refusal;

/// The endpoints that change something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Teardown,
    Weights,
    Quota,
    Schedule,
    Status,
    Down,
    Up,
    Operation(Type),
}

impl Change {
    /// Each with its name below `/master`.
    pub(crate) const ALL: [(&'static str, Change); 11] = [
        ("teardown", Change::Teardown),
        ("weights", Change::Weights),
        ("quota", Change::Quota),
        ("maintenance/schedule", Change::Schedule),
        ("maintenance/status", Change::Status),
        ("machine/down", Change::Down),
        ("machine/up", Change::Up),
        ("reserve", Change::Operation(Type::Reserve)),
        ("unreserve", Change::Operation(Type::Unreserve)),
        ("create-volumes", Change::Operation(Type::Create)),
        ("destroy-volumes", Change::Operation(Type::Destroy)),
    ];

    fn methods(self) -> &'static [Method] {
        match self {
            Change::Teardown | Change::Down | Change::Up | Change::Operation(_) => &[Method::POST],
            Change::Weights => &[Method::GET, Method::PUT],
            Change::Quota => &[Method::GET, Method::POST, Method::DELETE],
            Change::Schedule => &[Method::GET, Method::POST],
            Change::Status => &[Method::GET],
        }
    }
}

impl V0 {
    /// Answers an endpoint that changes something.
    pub(crate) async fn change(&self, endpoint: Change, request: Request) -> Response {
        let methods = endpoint.methods();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let method = if reads { &Method::GET } else { &request.method };
        if !methods.contains(method) {
            return Response::method_not_allowed(methods, &request.method);
        }
        let caller = self.caller(request.subject.as_ref());
        let answered = if reads {
            read(endpoint, &caller, &request).await
        } else {
            change(endpoint, &caller, &request).await
        };
        answered.unwrap_or_else(Response::from)
    }
}

async fn read(
    endpoint: Change,
    caller: &Caller<'_>,
    request: &Request,
) -> Result<Response, Refusal> {
    let body = match endpoint {
        Change::Weights => weights_body(&caller.weights().await?),
        Change::Quota => json::from_message(&caller.quota().await?),
        Change::Schedule => schedule_body(&caller.schedule().await?),
        _ => json::from_message(&caller.maintenance_status().await?),
    };
    Ok(Response::jsonp(request, vec![body.into()]))
}

async fn change(
    endpoint: Change,
    caller: &Caller<'_>,
    request: &Request,
) -> Result<Response, Refusal> {
    let body = &request.body;
    match endpoint {
        Change::Teardown => {
            let form = request.form();
            let id = form.get("frameworkId").ok_or_else(|| {
                let text = "Missing 'frameworkId' query parameter in the request body";
                Refusal::bad_request(text)
            })?;
            caller.teardown(id.to_owned()).await
        }
        Change::Weights => {
            let weights = list::<WeightInfo>(body).map_err(|error| {
                Refusal::bad_request(match error {
                    JsonError::Syntax(why) => format!(
                        "Failed to parse update weights request JSON '{}': {why}",
                        String::from_utf8_lossy(body)
                    ),
                    JsonError::Convert(why) => {
                        format!("Failed to convert weights JSON array to protobuf: {why}")
                    }
                })
            })?;
            caller.update_weights(weights).await
        }
        Change::Quota if request.method == Method::DELETE => {
            let role = request.rest.trim_matches('/');
            if role.is_empty() {
                let text = "Failed to remove quota: expecting the path '/quota/ROLE'";
                return Err(Refusal::bad_request(text));
            }
            caller.remove_quota(role).await
        }
        Change::Quota => {
            let request = json::to_message::<QuotaRequest>(body).map_err(|error| {
                let body = String::from_utf8_lossy(body);
                let text = format!("Failed to parse set quota request JSON '{body}': {error}");
                Refusal::bad_request(text)
            })?;
            caller.set_quota(request).await
        }
        Change::Schedule => caller.update_schedule(message::<Schedule>(body)?).await,
        Change::Down => caller.machines_down(machines(body)?).await,
        Change::Up => caller.machines_up(machines(body)?).await,
        Change::Operation(kind) => caller.operate(asked(kind, request)?, "").await,
        // It takes no other method than GET.
        Change::Status => Err(Refusal::not_implemented()),
    }
}

/// The form of an operation: the agent, and resources as a JSON array.
fn asked(kind: Type, request: &Request) -> Result<Asked, Refusal> {
    let form = request.form();
    let field = |name: &str| {
        form.get(name).map(str::to_owned).ok_or_else(|| {
            let text = format!("Missing '{name}' query parameter in the request body");
            Refusal::bad_request(text)
        })
    };
    let agent = field("slaveId")?;
    let name = match kind {
        Type::Reserve | Type::Unreserve => "resources",
        _ => "volumes",
    };
    let resources = list(field(name)?.as_bytes()).map_err(|error| {
        let text =
            format!("Error in parsing '{name}' query parameter in the request body: {error}");
        Refusal::bad_request(text)
    })?;
    Ok(Asked::with(kind, agent, resources))
}

/// `[{"role":..,"weight":..}]`: keys in the order of the alphabet, as in the schedule, other than in v1.
fn weights_body(weights: &[WeightInfo]) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).array(|w| {
        for info in weights {
            w.object(|w| {
                w.key("role").str(info.role());
                w.key("weight").f64(info.weight);
            });
        }
    });
    body
}

fn schedule_body(schedule: &Schedule) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).object(|w| {
        if schedule.windows.is_empty() {
            return;
        }
        w.key("windows").array(|w| {
            for window in &schedule.windows {
                w.object(|w| {
                    w.key("machine_ids")
                        .array(|w| window.machine_ids.iter().for_each(|id| w.message(id)));
                    w.key("unavailability")
                        .object(|w| unavailability_members(w, &window.unavailability));
                });
            }
        });
    });
    body
}

fn unavailability_members(w: &mut Writer<'_>, at: &Unavailability) {
    if let Some(duration) = &at.duration {
        w.key("duration").message(duration);
    }
    w.key("start").message(&at.start);
}

fn message<M: Described>(body: &[u8]) -> Result<M, Refusal> {
    json::to_message(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

fn machines(body: &[u8]) -> Result<Vec<MachineId>, Refusal> {
    list(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// The messages of a JSON array.
fn list<M: Described>(body: &[u8]) -> Result<Vec<M>, JsonError> {
    let value = json::parse(body)?;
    let array = value
        .as_array()
        .ok_or_else(|| JsonError::Convert("Expecting a JSON array".to_owned()))?;
    array.iter().map(json::value_to_message).collect()
}
