//! The older endpoints of the master: JSON over GET, a few changes over other methods.

mod changes;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};
use tepui_http::answers::Encode;
use tepui_http::{Query, Request, Response};
use tepui_model::authorization::Subject;
use tepui_model::id::{AgentId, FrameworkId, TaskId};
use tepui_state_master::excluded;
use tepui_view::View;
use tepui_view::encode::{self, About, Sink, TasksQuery, Visibility};

use crate::authorize::Authorizer;
use crate::operator::Caller;
use crate::owner::Owner;
use crate::reading::{Question, Reading};

pub(crate) use changes::Change;

/// What the older endpoints need of a leader.
#[derive(Clone)]
pub(crate) struct V0 {
    pub(crate) owner: Owner,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) reading: Reading,
    pub(crate) about: Arc<About>,
}

/// The endpoints that only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Read {
    State,
    StateSummary,
    Slaves,
    Frameworks,
    Tasks,
    Roles,
    /// `/allocator/offer_constraints_debug`, of another process than the others.
    OfferConstraints,
}

impl Read {
    /// Each with its name below `/master`.
    pub(crate) const ALL: [(&'static str, Read); 6] = [
        ("state", Read::State),
        ("state-summary", Read::StateSummary),
        ("slaves", Read::Slaves),
        ("frameworks", Read::Frameworks),
        ("tasks", Read::Tasks),
        ("roles", Read::Roles),
    ];
}

impl V0 {
    /// Answers a reading endpoint.
    pub(crate) async fn read(&self, endpoint: Read, request: Request) -> Response {
        let (about, query) = (Arc::clone(&self.about), request.query.clone());
        let look = self.reading.look(&request.subject, move |view, see| {
            encoder(endpoint, &query, view, see, about)
        });
        let answers = match endpoint {
            Read::State | Read::Frameworks => &self.reading.whole,
            _ => &self.reading.parts,
        };
        let question = Question::Path(endpoint, request.query.clone());
        let answered = answers.answer_jsonp(&request, question, look).await;
        answered.unwrap_or_else(Response::from)
    }

    fn caller<'a>(&'a self, subject: Option<&'a Subject>) -> Caller<'a> {
        Caller {
            owner: &self.owner,
            authorizer: &*self.authorizer,
            subject,
        }
    }
}

fn encoder(
    endpoint: Read,
    query: &Query,
    view: Arc<View>,
    see: Visibility,
    about: Arc<About>,
) -> Encode {
    let query = |name: &str| {
        query
            .get(name)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    match endpoint {
        Read::State => Arc::new(move |sink: Sink<'_>| encode::state(&view, &about, &see, sink)),
        Read::StateSummary => {
            Arc::new(move |sink: Sink<'_>| encode::state_summary(&view, &about, &see, sink))
        }
        Read::Slaves => {
            let only = query("slave_id").map(AgentId::from);
            Arc::new(move |sink: Sink<'_>| encode::slaves(&view, &see, only.as_ref(), sink))
        }
        Read::Frameworks => {
            let only = query("framework_id").map(FrameworkId::from);
            Arc::new(move |sink: Sink<'_>| encode::frameworks(&view, &see, only.as_ref(), sink))
        }
        Read::Tasks => {
            // A number that is none counts as absent, as in Mesos.
            let number = |name: &str| query(name).and_then(|text| text.parse().ok());
            let tasks = TasksQuery {
                limit: number("limit").unwrap_or(100),
                offset: number("offset").unwrap_or(0),
                ascending: query("order").as_deref() == Some("asc"),
                framework: query("framework_id").map(FrameworkId::from),
                task: query("task_id").map(TaskId::from),
            };
            Arc::new(move |sink: Sink<'_>| encode::tasks(&view, &see, &tasks, sink))
        }
        Read::Roles => Arc::new(move |sink: Sink<'_>| encode::roles(&view, &see, sink)),
        Read::OfferConstraints => {
            Arc::new(move |sink: Sink<'_>| offer_constraints(&view, &see, sink))
        }
    }
}

/// Which agents each framework excludes, by role.
fn offer_constraints(view: &View, see: &Visibility, sink: Sink<'_>) {
    let mut frameworks = Map::new();
    for (framework, excluded) in excluded(view, see) {
        let excluded: BTreeMap<&str, Vec<&str>> = excluded
            .iter()
            .map(|(role, ids)| (role.as_str(), ids.iter().map(AgentId::as_str).collect()))
            .collect();
        let shown = json!({ "excluded_by_attribute_constraints": excluded });
        frameworks.insert(framework.to_string(), shown);
    }
    let body = json!({ "frameworks": frameworks }).to_string();
    // Its only piece: there is nothing to end when the reader has gone.
    let _ = sink(body.into());
}
