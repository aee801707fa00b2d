//! Questions that are answered from a view, and written once for all who ask the same.

use std::sync::Arc;

use tepui_http::answers::Encode;
use tepui_http::shared::Counter;
use tepui_http::{Answers, Media, Query};
use tepui_model::authorization::Subject;
use tepui_proto::v1::master::call::Type;
use tepui_view::View;
use tepui_view::encode::Visibility;

use crate::authorize::Authorizer;
use crate::owner::Owner;
use crate::refusal::Refusal;
use crate::v0::Read;
use crate::visibility;

/// The metric that counts questions which were answered with the answer to another, as Mesos names it.
pub(crate) const HITS: &str = "master/http_cache_hits";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// An older endpoint.
    Path(Read, Query),
    /// A call of the operator API.
    Call(Type, Media),
}

/// What readers need of a leader.
#[derive(Clone)]
pub(crate) struct Reading {
    owner: Owner,
    authorizer: Arc<dyn Authorizer>,
    /// Answers with all tasks, which may take seconds.
    pub(crate) whole: Answers<Question, Refusal>,
    /// The others, which do not wait for those.
    pub(crate) parts: Answers<Question, Refusal>,
}

impl Reading {
    pub(crate) fn new(owner: Owner, authorizer: Arc<dyn Authorizer>, hits: Counter) -> Self {
        Self {
            owner,
            authorizer,
            whole: Answers::new(hits.clone()),
            parts: Answers::new(hits),
        }
    }

    /// Takes the newest view, and decides what the subject may see of it; nothing is done before the
    /// future is polled.
    pub(crate) fn look(
        &self,
        subject: &Option<Subject>,
        encoder: impl FnOnce(Arc<View>, Visibility) -> Encode + Send + 'static,
    ) -> impl Future<Output = Result<Encode, Refusal>> + Send + 'static {
        let (owner, authorizer) = (self.owner.clone(), Arc::clone(&self.authorizer));
        let subject = subject.clone();
        async move {
            let view = owner.view().await?;
            let see = visibility::of(&*authorizer, subject.as_ref(), &view).await;
            Ok(encoder(view, see))
        }
    }
}
