//! `/api/v1`: the agent's operator API.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]

use tepui_http::media::RECORDIO;
use tepui_http::{Media, Method, Request, Response, StatusCode, Subject};
use tepui_model::authorization::Action;
use tepui_proto::json::{self, Writer};
use tepui_proto::v1::agent::{Call, Response as Answer, call, response};
use tepui_proto::{decode, v1};
use tepui_state_agent::Framework;

use super::forms::{self, Form};
use super::{Endpoints, absent, attach, containers, read, validate};
use crate::owner::Snapshot;

/// Answers one call.
pub(crate) async fn call(endpoints: &Endpoints, request: Request) -> Response {
    if request.method != Method::POST {
        return Response::method_not_allowed(&[Method::POST], &request.method);
    }
    let forms = forms::of_call(&request).and_then(|form| Ok((form, forms::of_answer(&request)?)));
    let answered = match forms {
        Ok((Form::Records(media), answer)) => {
            attach::input(endpoints, request, media, answer).await
        }
        Ok((Form::Messages(media), form)) => answer(endpoints, &request, media, form).await,
        Err(refusal) => Err(refusal),
    };
    match answered {
        Ok(response) | Err(response) => response,
    }
}

#[expect(deprecated, reason = "deprecated calls are answered all the same")]
async fn answer(
    endpoints: &Endpoints,
    request: &Request,
    media: Media,
    form: Form,
) -> Result<Response, Response> {
    let call = read_call(request, media)?;
    let kind = call.r#type();
    if kind == call::Type::AttachContainerInput {
        let text = format!(
            "Expecting 'Content-Type' to be {RECORDIO} for {} call",
            kind.as_str_name()
        );
        return Err(Response::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let subject = request.subject.as_ref();
    let media = match kind {
        call::Type::AttachContainerOutput => {
            return attach::output(endpoints, subject, form, &call).await;
        }
        call::Type::LaunchNestedContainerSession => {
            return attach::session(endpoints, subject, form, &call).await;
        }
        _ => whole(kind, form)?,
    };
    match kind {
        call::Type::GetState
        | call::Type::GetTasks
        | call::Type::GetExecutors
        | call::Type::GetFrameworks => {
            let snapshot = endpoints.seen_by(subject).await?;
            Ok(rows(kind, &snapshot, media))
        }
        call::Type::SetLoggingLevel => {
            endpoints.require(subject, Action::SetLogLevel).await?;
            let set = call.set_logging_level.unwrap_or_default();
            let logging = &endpoints.shared.logging;
            logging
                .set_for(set.level, set.duration.nanoseconds)
                .map_err(Response::bad_request)?;
            Ok(Response::empty(StatusCode::OK))
        }
        call::Type::PruneImages => {
            endpoints.require(subject, Action::PruneImages).await?;
            let keep = call.prune_images.unwrap_or_default().excluded_images;
            let pruned = endpoints.containers.prune_images(keep, false).await;
            pruned.map_err(|error| Response::text(StatusCode::INTERNAL_SERVER_ERROR, error))?;
            Ok(Response::empty(StatusCode::OK))
        }
        call::Type::LaunchNestedContainer
        | call::Type::WaitNestedContainer
        | call::Type::KillNestedContainer
        | call::Type::RemoveNestedContainer
        | call::Type::LaunchContainer
        | call::Type::WaitContainer
        | call::Type::KillContainer
        | call::Type::RemoveContainer => containers::answer(endpoints, subject, &call, media).await,
        _ => {
            let answer = simple(endpoints, subject, &call).await?;
            Ok(Response::message(&answer, media))
        }
    }
}

/// The form of an answer that is no stream.
pub(super) fn whole(kind: call::Type, form: Form) -> Result<Media, Response> {
    match form {
        Form::Messages(media) => Ok(media),
        Form::Records(_) => {
            let name = kind.as_str_name();
            let text = format!("Streaming response is not supported for {name} call");
            Err(Response::text(StatusCode::NOT_ACCEPTABLE, text))
        }
    }
}

fn read_call(request: &Request, media: Media) -> Result<Call, Response> {
    let call: Call = match media {
        Media::Json => json::to_message(&request.body).map_err(|error| {
            let text = match error {
                json::JsonError::Syntax(text) => format!("Failed to parse body into JSON: {text}"),
                json::JsonError::Convert(text) => text,
            };
            Response::bad_request(text)
        })?,
        Media::Protobuf => decode(&request.body)
            .map_err(|_| Response::bad_request("Failed to parse body into a protobuf object"))?,
    };
    validate::check(&call)?;
    Ok(call)
}

/// Calls whose answer is one message.
async fn simple(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    call: &Call,
) -> Result<Answer, Response> {
    use call::Type;
    let mut answer = Answer::default();
    let kind = match call.r#type() {
        Type::GetHealth => {
            answer.get_health = Some(response::GetHealth { healthy: true });
            response::Type::GetHealth
        }
        Type::GetFlags => {
            endpoints.require(subject, Action::ViewFlags).await?;
            answer.get_flags = Some(response::GetFlags {
                flags: endpoints.shared.get_flags(),
            });
            response::Type::GetFlags
        }
        Type::GetVersion => {
            answer.get_version = Some(response::GetVersion {
                version_info: endpoints.shared.version.to_v1(),
            });
            response::Type::GetVersion
        }
        Type::GetMetrics => {
            let timeout = call.get_metrics.as_ref().and_then(|get| get.timeout);
            let metrics = endpoints.shared.metrics.messages(timeout).await;
            let metrics = metrics.map_err(Response::bad_request)?;
            answer.get_metrics = Some(response::GetMetrics { metrics });
            response::Type::GetMetrics
        }
        Type::GetLoggingLevel => {
            answer.get_logging_level = Some(response::GetLoggingLevel {
                level: endpoints.shared.logging.level(),
            });
            response::Type::GetLoggingLevel
        }
        Type::ListFiles => {
            let path = call.list_files.clone().unwrap_or_default().path;
            let listed = endpoints.shared.list_files::<Response>(subject, path);
            let file_infos = listed.await?;
            answer.list_files = Some(response::ListFiles { file_infos });
            response::Type::ListFiles
        }
        Type::ReadFile => {
            let read = call.read_file.clone().unwrap_or_default();
            let read = endpoints.shared.read_file::<Response>(
                subject,
                read.path,
                read.offset,
                read.length,
            );
            let (size, data) = read.await?;
            answer.read_file = Some(response::ReadFile { size, data });
            response::Type::ReadFile
        }
        Type::GetContainers => {
            let asked = call.get_containers.unwrap_or_default();
            answer.get_containers = get_containers(endpoints, subject, asked).await?;
            response::Type::GetContainers
        }
        Type::GetOperations => {
            answer.get_operations = Some(endpoints.operations(subject).await?);
            response::Type::GetOperations
        }
        Type::GetAgent => {
            let snapshot = endpoints.snapshot().await?;
            answer.get_agent = Some(response::GetAgent {
                agent_info: Some(snapshot.info),
                ..response::GetAgent::default()
            });
            response::Type::GetAgent
        }
        Type::GetResourceProviders => {
            answer.get_resource_providers = Some(response::GetResourceProviders::default());
            response::Type::GetResourceProviders
        }
        _ => return Err(absent::answer(call)),
    };
    answer.r#type = Some(kind.into());
    Ok(answer)
}

/// The answers that are written row by row: their lists are there even when they are empty.
fn rows(kind: call::Type, snapshot: &Snapshot, media: Media) -> Response {
    let mut answer = Answer::default();
    match kind {
        call::Type::GetTasks => {
            answer.r#type = Some(response::Type::GetTasks.into());
            answer.get_tasks = Some(tasks(snapshot));
        }
        call::Type::GetExecutors => {
            answer.r#type = Some(response::Type::GetExecutors.into());
            answer.get_executors = Some(executors(snapshot));
        }
        call::Type::GetFrameworks => {
            answer.r#type = Some(response::Type::GetFrameworks.into());
            answer.get_frameworks = Some(frameworks(snapshot));
        }
        _ => {
            answer.r#type = Some(response::Type::GetState.into());
            answer.get_state = Some(response::GetState {
                get_tasks: Some(tasks(snapshot)),
                get_executors: Some(executors(snapshot)),
                get_frameworks: Some(frameworks(snapshot)),
            });
        }
    }
    if media != Media::Json {
        return Response::message(&answer, media);
    }
    let mut body = Vec::new();
    Writer::new(&mut body).object(|w| {
        w.key("type").str(answer.r#type().as_str_name());
        if let Some(tasks) = &answer.get_tasks {
            write_tasks(w, tasks);
        }
        if let Some(executors) = &answer.get_executors {
            write_executors(w, executors);
        }
        if let Some(frameworks) = &answer.get_frameworks {
            write_frameworks(w, frameworks);
        }
        if let Some(state) = &answer.get_state {
            w.key("get_state").object(|w| {
                write_tasks(w, &state.get_tasks.clone().unwrap_or_default());
                write_executors(w, &state.get_executors.clone().unwrap_or_default());
                write_frameworks(w, &state.get_frameworks.clone().unwrap_or_default());
            });
        }
    });
    Response::full(StatusCode::OK, media.content_type(), body)
}

fn every(snapshot: &Snapshot) -> impl Iterator<Item = &Framework> {
    let completed = snapshot.completed.iter().map(AsRef::as_ref);
    snapshot.frameworks.iter().chain(completed)
}

fn tasks(snapshot: &Snapshot) -> response::GetTasks {
    let mut all = response::GetTasks::default();
    for framework in every(snapshot) {
        for executor in &framework.executors {
            let queued = executor.queued.iter();
            let queued = queued.map(|info| read::queued_task(info, framework, executor));
            all.queued_tasks.extend(queued);
            let live = read::live_tasks(executor).map(|task| task.task.0.clone());
            all.launched_tasks.extend(live);
            let ended = read::unacknowledged_tasks(executor).map(|task| task.task.0.clone());
            all.terminated_tasks.extend(ended);
        }
        let executors = framework.executors.iter();
        for executor in executors.chain(&framework.completed_executors) {
            let completed = executor.completed_tasks.iter().map(|task| task.0.clone());
            all.completed_tasks.extend(completed);
        }
    }
    all
}

fn executors(snapshot: &Snapshot) -> response::GetExecutors {
    let mut all = response::GetExecutors::default();
    let entry = |info: &v1::ExecutorInfo| response::get_executors::Executor {
        executor_info: info.clone(),
    };
    for framework in every(snapshot) {
        all.executors
            .extend(framework.executors.iter().map(|e| entry(&e.info)));
        let completed = framework.completed_executors.iter();
        all.completed_executors
            .extend(completed.map(|e| entry(&e.info)));
    }
    all
}

fn frameworks(snapshot: &Snapshot) -> response::GetFrameworks {
    let entry = |info: &v1::FrameworkInfo| response::get_frameworks::Framework {
        framework_info: info.clone(),
    };
    let live = snapshot.frameworks.iter().filter(|f| read::shown(f));
    response::GetFrameworks {
        frameworks: live.map(|f| entry(&f.info)).collect(),
        completed_frameworks: snapshot.completed.iter().map(|f| entry(&f.info)).collect(),
    }
}

fn write_tasks(w: &mut Writer<'_>, tasks: &response::GetTasks) {
    let lists = [
        ("pending_tasks", &tasks.pending_tasks),
        ("queued_tasks", &tasks.queued_tasks),
        ("launched_tasks", &tasks.launched_tasks),
        ("terminated_tasks", &tasks.terminated_tasks),
        ("completed_tasks", &tasks.completed_tasks),
    ];
    w.key("get_tasks").object(|w| {
        for (name, list) in lists {
            w.key(name)
                .array(|w| list.iter().for_each(|task| w.message(task)));
        }
    });
}

fn write_executors(w: &mut Writer<'_>, all: &response::GetExecutors) {
    w.key("get_executors").object(|w| {
        w.key("executors")
            .array(|w| all.executors.iter().for_each(|one| w.message(one)));
        w.key("completed_executors").array(|w| {
            all.completed_executors
                .iter()
                .for_each(|one| w.message(one))
        });
    });
}

fn write_frameworks(w: &mut Writer<'_>, all: &response::GetFrameworks) {
    w.key("get_frameworks").object(|w| {
        w.key("frameworks")
            .array(|w| all.frameworks.iter().for_each(|one| w.message(one)));
        w.key("completed_frameworks").array(|w| {
            all.completed_frameworks
                .iter()
                .for_each(|one| w.message(one))
        });
    });
}

async fn get_containers(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    asked: call::GetContainers,
) -> Result<Option<response::GetContainers>, Response> {
    let snapshot = endpoints.containers_of(subject).await?;
    let seen = read::containers(endpoints, &snapshot).await;
    let others = containers::list(endpoints, subject, &snapshot, asked).await;
    if seen.is_empty() && others.is_empty() {
        return Ok(None);
    }
    let containers = seen
        .into_iter()
        .map(|one| response::get_containers::Container {
            framework_id: Some(v1::FrameworkId {
                value: one.framework,
            }),
            executor_id: Some(v1::ExecutorId {
                value: one.executor,
            }),
            executor_name: Some(one.name),
            container_id: (&one.container).into(),
            container_status: one.status,
            resource_statistics: one.statistics,
        });
    Ok(Some(response::GetContainers {
        containers: containers.chain(others).collect(),
    }))
}
