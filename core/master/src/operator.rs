//! `/api/v1` of the master: the operator API.

use std::sync::Arc;

use tepui_http::answers::Encode;
use tepui_http::shared::Shared;
use tepui_http::{Media, Request, Response, StatusCode};
use tepui_model::authorization::{Action, Subject};
use tepui_proto::Message as _;
use tepui_proto::v1;
use tepui_proto::v1::master::call::Type;
use tepui_proto::v1::master::{self, response};
use tepui_view::View;
use tepui_view::encode::{self, Form, Sink, Visibility};

use crate::authorize::Authorizer;
use crate::owner::Owner;
use crate::reading::{Question, Reading};
use crate::refusal::Refusal;
use crate::{calls, operators, visibility};

mod agents;
mod caller;
mod maintenance;
mod operations;
mod quota;
mod teardown;
mod weights;

pub(crate) use caller::Caller;
pub(crate) use operations::Asked;
pub(crate) use quota::config as quota_config;

/// What the operator API needs of a leader.
#[derive(Clone)]
pub(crate) struct OperatorApi {
    pub(crate) owner: Owner,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) shared: Shared,
    pub(crate) reading: Reading,
    /// Bytes that a subscriber may be behind for long.
    pub(crate) stream_limit: usize,
}

/// One of the large answers.
type Encoder = fn(&View, &Visibility, Form, Sink<'_>);

impl OperatorApi {
    /// Answers a call. Leadership has been looked at before.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        if let Some(refused) = calls::only_post(&request) {
            return refused;
        }
        self.call(request).await.unwrap_or_else(Response::from)
    }

    async fn call(&self, request: Request) -> Result<Response, Refusal> {
        let call: master::Call = calls::read(&request)?;
        let kind = calls::operator(&call)?;
        let media = calls::acceptable(&request)?;
        let subject = request.subject.as_ref();
        match kind {
            Type::GetState => self.read(kind, encode::get_state, &request, media).await,
            Type::GetAgents => self.read(kind, encode::get_agents, &request, media).await,
            Type::GetFrameworks => {
                self.read(kind, encode::get_frameworks, &request, media)
                    .await
            }
            Type::GetExecutors => {
                self.read(kind, encode::get_executors, &request, media)
                    .await
            }
            Type::GetTasks => self.read(kind, encode::get_tasks, &request, media).await,
            Type::Subscribe => operators::subscribe(self, request.subject, media).await,
            _ => match self.small(kind, &call, subject).await? {
                Some(answer) => Ok(Response::message(&answer, media)),
                None => self.change(kind, call, subject).await,
            },
        }
    }

    /// Writes a large answer.
    async fn read(
        &self,
        kind: Type,
        encoder: Encoder,
        request: &Request,
        media: Media,
    ) -> Result<Response, Refusal> {
        let look = self.reading.look(&request.subject, move |view, see| {
            Arc::new(move |sink: Sink<'_>| encoder(&view, &see, form(media), sink)) as Encode
        });
        let answers = match kind {
            Type::GetState | Type::GetTasks => &self.reading.whole,
            _ => &self.reading.parts,
        };
        let question = Question::Call(kind, media);
        answers
            .answer(request, question, media.content_type(), look)
            .await
    }

    fn caller<'a>(&'a self, subject: Option<&'a Subject>) -> Caller<'a> {
        Caller {
            owner: &self.owner,
            authorizer: &*self.authorizer,
            subject,
        }
    }

    /// Calls that are answered with a small message; none for the others.
    async fn small(
        &self,
        kind: Type,
        call: &master::Call,
        subject: Option<&Subject>,
    ) -> Result<Option<master::Response>, Refusal> {
        let mut answer = master::Response::default();
        let caller = self.caller(subject);
        let answered = match kind {
            Type::GetHealth => {
                answer.get_health = Some(response::GetHealth { healthy: true });
                response::Type::GetHealth
            }
            Type::GetFlags => {
                caller.require(Action::ViewFlags).await?;
                answer.get_flags = Some(response::GetFlags {
                    flags: self.shared.get_flags(),
                });
                response::Type::GetFlags
            }
            Type::GetVersion => {
                answer.get_version = Some(response::GetVersion {
                    version_info: self.shared.version.to_v1(),
                });
                response::Type::GetVersion
            }
            Type::GetMetrics => {
                let timeout = call.get_metrics.as_ref().and_then(|get| get.timeout);
                let metrics = self.shared.metrics.messages(timeout).await;
                let metrics = metrics.map_err(Refusal::bad_request)?;
                answer.get_metrics = Some(response::GetMetrics { metrics });
                response::Type::GetMetrics
            }
            Type::GetLoggingLevel => {
                answer.get_logging_level = Some(response::GetLoggingLevel {
                    level: self.shared.logging.level(),
                });
                response::Type::GetLoggingLevel
            }
            Type::ListFiles => {
                let path = call.list_files.clone().unwrap_or_default().path;
                let file_infos = self.shared.list_files::<Refusal>(subject, path).await?;
                answer.list_files = Some(response::ListFiles { file_infos });
                response::Type::ListFiles
            }
            Type::ReadFile => {
                let read = call.read_file.clone().unwrap_or_default();
                let read =
                    self.shared
                        .read_file::<Refusal>(subject, read.path, read.offset, read.length);
                let (size, data) = read.await?;
                answer.read_file = Some(response::ReadFile { size, data });
                response::Type::ReadFile
            }
            Type::GetMaster => {
                answer.get_master = Some(get_master(&*self.owner.view().await?));
                response::Type::GetMaster
            }
            Type::GetRoles => {
                let view = self.owner.view().await?;
                let see = visibility::of(&*self.authorizer, subject, &view).await;
                answer.get_roles = Some(encode::get_roles(&view, &see));
                response::Type::GetRoles
            }
            Type::GetOperations => {
                let view = self.owner.view().await?;
                let see = visibility::of(&*self.authorizer, subject, &view).await;
                answer.get_operations = Some(encode::get_operations(&view, &see));
                response::Type::GetOperations
            }
            Type::GetWeights => {
                let weight_infos = caller.weights().await?;
                // Mesos leaves the whole message out when it says nothing.
                answer.get_weights =
                    (!weight_infos.is_empty()).then_some(response::GetWeights { weight_infos });
                response::Type::GetWeights
            }
            Type::GetQuota => {
                let status = caller.quota().await?;
                answer.get_quota = Some(response::GetQuota { status });
                response::Type::GetQuota
            }
            Type::GetMaintenanceStatus => {
                let status = caller.maintenance_status().await?;
                answer.get_maintenance_status = Some(response::GetMaintenanceStatus { status });
                response::Type::GetMaintenanceStatus
            }
            Type::GetMaintenanceSchedule => {
                let schedule = caller.schedule().await?;
                answer.get_maintenance_schedule =
                    Some(response::GetMaintenanceSchedule { schedule });
                response::Type::GetMaintenanceSchedule
            }
            _ => return Ok(None),
        };
        answer.r#type = Some(answered.into());
        Ok(Some(answer))
    }

    /// Calls that change something and answer without a body. Their parts are there.
    #[expect(deprecated, reason = "Mesos takes these calls still")]
    async fn change(
        &self,
        kind: Type,
        mut call: master::Call,
        subject: Option<&Subject>,
    ) -> Result<Response, Refusal> {
        let caller = self.caller(subject);
        match kind {
            Type::ReserveResources
            | Type::UnreserveResources
            | Type::CreateVolumes
            | Type::DestroyVolumes
            | Type::GrowVolume
            | Type::ShrinkVolume => {
                let asked = Asked::of(&mut call).ok_or_else(Refusal::not_implemented)?;
                caller
                    .operate(asked, "Failed to validate master::Call: ")
                    .await
            }
            Type::SetLoggingLevel => {
                let set = call.set_logging_level.unwrap_or_default();
                caller.require(Action::SetLogLevel).await?;
                let logging = &self.shared.logging;
                logging
                    .set_for(set.level, set.duration.nanoseconds)
                    .map_err(Refusal::bad_request)?;
                Ok(Response::empty(StatusCode::OK))
            }
            Type::Teardown => {
                let teardown = call.teardown.unwrap_or_default();
                caller.teardown(teardown.framework_id.value).await
            }
            Type::UpdateWeights => {
                let update = call.update_weights.unwrap_or_default();
                caller.update_weights(update.weight_infos).await
            }
            Type::UpdateQuota => {
                caller
                    .update_quota(call.update_quota.unwrap_or_default())
                    .await
            }
            Type::SetQuota => {
                let set = call.set_quota.unwrap_or_default();
                caller.set_quota(set.quota_request).await
            }
            Type::RemoveQuota => {
                let remove = call.remove_quota.unwrap_or_default();
                caller.remove_quota(&remove.role).await
            }
            Type::UpdateMaintenanceSchedule => {
                let update = call.update_maintenance_schedule.unwrap_or_default();
                caller.update_schedule(update.schedule).await
            }
            Type::StartMaintenance => {
                let start = call.start_maintenance.unwrap_or_default();
                caller.machines_down(start.machines).await
            }
            Type::StopMaintenance => {
                let stop = call.stop_maintenance.unwrap_or_default();
                caller.machines_up(stop.machines).await
            }
            Type::DeactivateAgent => {
                let deactivate = call.deactivate_agent.unwrap_or_default();
                caller.deactivate(&deactivate.agent_id).await
            }
            Type::ReactivateAgent => {
                let reactivate = call.reactivate_agent.unwrap_or_default();
                caller.reactivate(&reactivate.agent_id).await
            }
            Type::DrainAgent => caller.drain(call.drain_agent.unwrap_or_default()).await,
            Type::MarkAgentGone => {
                let gone = call.mark_agent_gone.unwrap_or_default();
                caller.mark_gone(&gone.agent_id).await
            }
            _ => Err(Refusal::not_implemented()),
        }
    }
}

fn get_master(view: &View) -> response::GetMaster {
    let globals = &view.globals;
    response::GetMaster {
        master_info: v1::MasterInfo::decode(globals.master_info.clone()).ok(),
        start_time: Some(globals.started.as_secs_f64()),
        elected_time: globals.elected.map(|elected| elected.as_secs_f64()),
    }
}

pub(crate) fn form(media: Media) -> Form {
    match media {
        Media::Json => Form::Json,
        Media::Protobuf => Form::Protobuf,
    }
}
