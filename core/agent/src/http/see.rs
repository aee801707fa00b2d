//! What somebody may see of an agent, as the authorizer says.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tepui_http::authorize::{Approver, Object, require};
use tepui_http::{Response, Subject};
use tepui_model::authorization::Action;
use tepui_model::id::Role;
use tepui_model::resources::{Operation, Resources};
use tepui_proto::v1::agent::response::GetOperations;
use tepui_proto::{Message as _, convert, v1};
use tepui_state_agent::{Executor, Framework};
use tepui_view::encode::Allowed;

use super::Endpoints;
use crate::owner::Snapshot;

/// Who runs an executor, as ACLs look at it.
pub(crate) fn executor_user<'a>(
    framework: &'a v1::FrameworkInfo,
    executor: &'a v1::ExecutorInfo,
) -> &'a str {
    let command = executor.command.as_ref();
    let user = command.and_then(|command| command.user.as_deref());
    user.unwrap_or(&framework.user)
}

/// An object of a framework, with the user that ACLs look at.
pub(crate) fn object(user: &str, framework: &Bytes) -> Object {
    Object {
        framework_info: framework.clone(),
        ..Object::value(user)
    }
}

impl Endpoints {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        self.shared.authorizer.approver(subject, action).await
    }

    /// Refuses what somebody may not do.
    pub(super) async fn require(
        &self,
        subject: Option<&Subject>,
        action: Action,
    ) -> Result<(), Response> {
        self.require_for(subject, action, &Object::default()).await
    }

    /// Refuses what somebody may not do to this object.
    pub(super) async fn require_for(
        &self,
        subject: Option<&Subject>,
        action: Action,
        object: &Object,
    ) -> Result<(), Response> {
        let asked = require(&*self.shared.authorizer, subject, action, object);
        asked.await.map_err(Response::from)
    }

    /// Everything that somebody may see, as the owner has it now.
    pub(super) async fn seen_by(&self, subject: Option<&Subject>) -> Result<Snapshot, Response> {
        let mut snapshot = self.snapshot().await?;
        let eye = Eye {
            frameworks: self.approver(subject, Action::ViewFramework).await,
            executors: self.approver(subject, Action::ViewExecutor).await,
            tasks: self.approver(subject, Action::ViewTask).await,
        };
        if eye.sees_all() {
            return Ok(snapshot);
        }
        let mut seen = Vec::new();
        for framework in std::mem::take(&mut snapshot.frameworks) {
            seen.extend(eye.cut(framework).await);
        }
        snapshot.frameworks = seen;
        let mut seen = Vec::new();
        for framework in std::mem::take(&mut snapshot.completed) {
            let cut = eye.cut(Arc::unwrap_or_clone(framework)).await;
            seen.extend(cut.map(Arc::new));
        }
        snapshot.completed = seen;
        Ok(snapshot)
    }

    /// The same with those executors only whose containers somebody may see.
    pub(super) async fn containers_of(
        &self,
        subject: Option<&Subject>,
    ) -> Result<Snapshot, Response> {
        let mut snapshot = self.snapshot().await?;
        let approver = self.approver(subject, Action::ViewContainer).await;
        if approver.constant() == Some(true) {
            return Ok(snapshot);
        }
        for framework in &mut snapshot.frameworks {
            let info = Bytes::from(framework.info.encode_to_vec());
            let executors = std::mem::take(&mut framework.executors);
            for executor in executors {
                let user = executor_user(&framework.info, &executor.info);
                if approver.surely(&object(user, &info)).await {
                    framework.executors.push(executor);
                }
            }
        }
        Ok(snapshot)
    }

    /// The operations all of whose roles somebody may see.
    pub(super) async fn operations(
        &self,
        subject: Option<&Subject>,
    ) -> Result<GetOperations, Response> {
        let snapshot = self.snapshot().await?;
        let approver = self.approver(subject, Action::ViewRole).await;
        let mut operations = Vec::new();
        for operation in snapshot.operations {
            // They were converted before they were performed.
            let about = convert::operation(&operation.info).ok().flatten();
            let mut seen = true;
            for role in about.iter().flat_map(Operation::roles) {
                seen &= approver.surely(&Object::value(role.as_str())).await;
            }
            if seen {
                operations.push(operation);
            }
        }
        Ok(GetOperations { operations })
    }

    /// Roles whose reservations somebody may see.
    pub(super) async fn roles_of(
        &self,
        subject: Option<&Subject>,
        resources: &Resources,
    ) -> Allowed<Role> {
        let approver = self.approver(subject, Action::ViewRole).await;
        match approver.constant() {
            Some(true) => return Allowed::All,
            Some(false) => return Allowed::none(),
            None => {}
        }
        let mut allowed = BTreeSet::new();
        for role in resources.reserved().into_keys() {
            if approver.surely(&Object::value(role.as_str())).await {
                allowed.insert(role);
            }
        }
        Allowed::Only(allowed)
    }
}

/// Somebody's rights to see.
struct Eye {
    frameworks: Arc<dyn Approver>,
    executors: Arc<dyn Approver>,
    tasks: Arc<dyn Approver>,
}

impl Eye {
    fn sees_all(&self) -> bool {
        let all = [&self.frameworks, &self.executors, &self.tasks];
        all.iter().all(|approver| approver.constant() == Some(true))
    }

    /// What is left of a framework.
    async fn cut(&self, mut framework: Framework) -> Option<Framework> {
        let info = Bytes::from(framework.info.encode_to_vec());
        if !self
            .frameworks
            .surely(&object(&framework.info.user, &info))
            .await
        {
            return None;
        }
        for executor in std::mem::take(&mut framework.executors) {
            framework
                .executors
                .extend(self.cut_executor(&framework.info, &info, executor).await);
        }
        for executor in std::mem::take(&mut framework.completed_executors) {
            let left = self.cut_executor(&framework.info, &info, executor).await;
            framework.completed_executors.extend(left);
        }
        Some(framework)
    }

    async fn cut_executor(
        &self,
        framework: &v1::FrameworkInfo,
        info: &Bytes,
        executor: Arc<Executor>,
    ) -> Option<Arc<Executor>> {
        let own = executor_user(framework, &executor.info).to_owned();
        if !self.executors.surely(&object(&own, info)).await {
            return None;
        }
        if self.tasks.constant() == Some(true) {
            return Some(executor);
        }
        let mut executor = Arc::unwrap_or_clone(executor);
        for task in std::mem::take(&mut executor.queued) {
            let user = task
                .command
                .as_ref()
                .and_then(|command| command.user.as_deref());
            if self.tasks.surely(&object(user.unwrap_or(&own), info)).await {
                executor.queued.push(task);
            }
        }
        for task in std::mem::take(&mut executor.tasks) {
            let user = task.task.user.as_deref().unwrap_or(&framework.user);
            if self.tasks.surely(&object(user, info)).await {
                executor.tasks.push(task);
            }
        }
        for task in std::mem::take(&mut executor.completed_tasks) {
            let user = task.user.as_deref().unwrap_or(&framework.user);
            if self.tasks.surely(&object(user, info)).await {
                executor.completed_tasks.push_back(task);
            }
        }
        Some(Arc::new(executor))
    }
}
