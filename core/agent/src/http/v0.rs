//! The older endpoints that read.

use bytes::Bytes;
use tepui_http::{Request, Response, Subject};
use tepui_model::authorization::Action;
use tepui_proto::json::{Writer, from_message};
use tepui_view::encode::{About, agent, collect};

use super::read::{self, Seen};
use super::{Endpoints, pending};

pub(crate) async fn state(endpoints: &Endpoints, request: &Request) -> Result<Response, Response> {
    let subject = request.subject.as_ref();
    let snapshot = endpoints.seen_by(subject).await?;
    let roles = endpoints.roles_of(subject, &snapshot.resources).await;
    let flags = endpoints.require(subject, Action::ViewFlags).await.is_ok();
    let state = read::state(endpoints, &snapshot);
    let version = &endpoints.shared.version;
    let about = About {
        version: version.version.clone(),
        git_sha: version.git_sha.clone(),
        git_branch: None,
        git_tag: version.git_tag.clone(),
        build_date: version.build_date.clone(),
        build_time: version.build_time,
        build_user: version.build_user.clone(),
        cluster: None,
        log_dir: endpoints.settings.log_dir.clone(),
        external_log_file: endpoints.settings.external_log_file.clone(),
        flags: endpoints.settings.flags.clone(),
    };
    let body = collect(|sink| agent::state(&state, &about, &roles, flags, sink));
    Ok(answer(request, body))
}

pub(crate) async fn containers(
    endpoints: &Endpoints,
    request: &Request,
) -> Result<Response, Response> {
    let mut seen = gather(endpoints, request.subject.as_ref()).await?;
    let asked = |name: &str, value: &str| request.query.get(name).is_none_or(|only| only == value);
    seen.retain(|one| {
        asked("container_id", &one.container.to_string())
            && asked("framework_id", &one.framework)
            && asked("executor_id", &one.executor)
    });
    let body = array(&seen, |w, one| {
        w.key("container_id").str(&one.container.to_string());
        identify(w, one);
        if let Some(statistics) = &one.statistics {
            w.key("statistics").raw(&sorted(&from_message(statistics)));
        }
        if let Some(status) = &one.status {
            w.key("status").raw(&from_message(status));
        }
    });
    Ok(answer(request, body))
}

pub(crate) async fn statistics(
    endpoints: &Endpoints,
    request: &Request,
) -> Result<Response, Response> {
    endpoints.pace.turn().await.map_err(|refused| *refused)?;
    let mut seen = gather(endpoints, request.subject.as_ref()).await?;
    // A container that cannot be looked at is left out.
    seen.retain(|one| one.statistics.is_some());
    let body = array(&seen, |w, one| {
        identify(w, one);
        if let Some(statistics) = &one.statistics {
            w.key("statistics").raw(&sorted(&from_message(statistics)));
        }
    });
    Ok(answer(request, body))
}

pub(crate) async fn debug(endpoints: &Endpoints, request: &Request) -> Result<Response, Response> {
    Ok(answer(request, pending::body(&(endpoints.modules)())))
}

async fn gather(endpoints: &Endpoints, subject: Option<&Subject>) -> Result<Vec<Seen>, Response> {
    let snapshot = endpoints.containers_of(subject).await?;
    Ok(read::containers(endpoints, &snapshot).await)
}

fn answer(request: &Request, body: Vec<u8>) -> Response {
    Response::jsonp(request, vec![Bytes::from(body)])
}

fn array(seen: &[Seen], one: impl Fn(&mut Writer<'_>, &Seen)) -> Vec<u8> {
    let mut body = Vec::new();
    Writer::new(&mut body).array(|w| {
        for entry in seen {
            w.object(|w| one(w, entry));
        }
    });
    body
}

fn identify(w: &mut Writer<'_>, one: &Seen) {
    w.key("executor_id").str(&one.executor);
    w.key("executor_name").str(&one.name);
    w.key("framework_id").str(&one.framework);
    w.key("source").str(&one.source);
}

/// The same object with its keys in alphabetical order, as `JSON::Object` of Mesos prints it.
fn sorted(object: &[u8]) -> Vec<u8> {
    use std::collections::BTreeMap;
    let fields: BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(object).unwrap_or_default();
    serde_json::to_vec(&fields).unwrap_or_default()
}
