//! The scheduler API but SUBSCRIBE: whose call it is, and who handles it.

use std::collections::BTreeSet;

use tepui_model::allocation::{Fact, FrameworkKey, Wanted};
use tepui_model::id::Role;
use tepui_model::time::Now;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::allocator::inverse_offer_status::Status;
use tepui_proto::v1::scheduler::{self, call::Type};
use tepui_proto::{convert, v1};

use crate::counts::Count;
use crate::event::Refused;
use crate::{Effect, MasterState, Reply};

impl MasterState {
    pub(crate) fn scheduler_call(
        &mut self,
        principal: Option<String>,
        stream_id: &str,
        request: scheduler::Call,
        refused: &[Refused],
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let key = match self.caller(principal.as_deref(), stream_id, &request) {
            Ok(key) => key,
            Err(refusal) => return refusal,
        };
        self.count_call(key, request.r#type());
        match request.r#type() {
            Type::Teardown => self.remove_framework(key, now, effects),
            Type::Accept => {
                let call = request.accept.unwrap_or_default();
                self.accept(key, call, refused, now, effects);
            }
            Type::Decline => self.decline(key, &request.decline.unwrap_or_default(), now),
            Type::Revive => self.revive(key, &request.revive.unwrap_or_default().roles),
            Type::Suppress => self.suppress(key, &request.suppress.unwrap_or_default().roles),
            Type::Kill => self.kill(key, request.kill.unwrap_or_default(), now, effects),
            Type::Shutdown => {
                self.shutdown(key, request.shutdown.unwrap_or_default(), effects);
            }
            Type::Acknowledge => {
                let call = request.acknowledge.unwrap_or_default();
                self.acknowledge(key, call, now, effects);
            }
            Type::Reconcile => {
                let call = request.reconcile.unwrap_or_default();
                self.reconcile(key, &call, now, effects);
            }
            Type::ReconcileOperations => {
                let call = request.reconcile_operations.unwrap_or_default();
                self.reconcile_operations(key, call, effects);
            }
            Type::Message => self.message(key, request.message.unwrap_or_default(), effects),
            Type::UpdateFramework => {
                let call = request.update_framework.unwrap_or_default();
                return self.update_framework(key, call, now, effects);
            }
            Type::AcknowledgeOperationStatus => {
                let call = request.acknowledge_operation_status.unwrap_or_default();
                self.acknowledge_operation(key, call, effects);
            }
            Type::AcceptInverseOffers => {
                let call = request.accept_inverse_offers.unwrap_or_default();
                let (ids, filters) = (&call.inverse_offer_ids, call.filters.as_ref());
                self.answer_inverse_offers(key, ids, Status::Accept, filters, now);
            }
            Type::DeclineInverseOffers => {
                let call = request.decline_inverse_offers.unwrap_or_default();
                let (ids, filters) = (&call.inverse_offer_ids, call.filters.as_ref());
                self.answer_inverse_offers(key, ids, Status::Decline, filters, now);
            }
            Type::Request => self.request(key, request.request.unwrap_or_default()),
            Type::Subscribe | Type::Unknown => {
                return Reply::NotImplemented("501 Not Implemented.".into());
            }
        }
        Reply::Accepted
    }

    fn count_call(&self, key: FrameworkKey, kind: Type) {
        let framework = &self.frameworks[&key];
        framework.counts.call(kind);
        if let Some(principal) = &framework.info.principal {
            self.counts.principal(principal);
        }
        self.counts.add(match kind {
            Type::Teardown => Count::Teardown,
            Type::Kill => Count::Kill,
            Type::Acknowledge => Count::Acknowledge,
            Type::AcknowledgeOperationStatus => Count::AcknowledgeOperation,
            Type::Request => Count::Request,
            Type::Decline => Count::Decline,
            Type::Revive => Count::Revive,
            Type::Suppress => Count::Suppress,
            Type::Reconcile => Count::Reconcile,
            Type::ReconcileOperations => Count::ReconcileOperations,
            Type::Message => Count::ToExecutor,
            // Those that launch are counted by what they launch; the others have no number.
            _ => return,
        });
    }

    fn caller(
        &self,
        principal: Option<&str>,
        stream_id: &str,
        request: &scheduler::Call,
    ) -> Result<FrameworkKey, Reply> {
        let id = request
            .framework_id
            .as_ref()
            .map_or("", |id| id.value.as_str());
        let key = self
            .framework_ids
            .get(id)
            .ok_or_else(|| Reply::BadRequest("Framework cannot be found".into()))?;
        let framework = &self.frameworks[key];
        if let Some(principal) = principal
            && framework
                .info
                .principal
                .as_deref()
                .is_some_and(|own| own != principal)
        {
            return Err(Reply::BadRequest(format!(
                "Authenticated principal '{principal}' does not match principal '{}' set in 'FrameworkInfo'",
                framework.info.principal()
            )));
        }
        let Some(stream) = framework.stream else {
            return Err(Reply::Forbidden("Framework is not subscribed".into()));
        };
        if stream_id.is_empty() {
            let text = "All non-subscribe calls should include the 'Mesos-Stream-Id' header";
            return Err(Reply::BadRequest(text.into()));
        }
        if stream.id.to_string() != stream_id {
            return Err(Reply::BadRequest(format!(
                "The stream ID '{stream_id}' included in this request didn't match the stream ID currently associated with framework ID {id}"
            )));
        }
        Ok(*key)
    }

    /// The roles of a REVIVE or SUPPRESS: those named, or all. `None` if one is not the framework's:
    /// Mesos then ignores the call with a warning.
    fn named_roles(&self, key: FrameworkKey, roles: &[String]) -> Option<Vec<Role>> {
        let own = &self.frameworks[&key].roles;
        if roles.is_empty() {
            return Some(own.iter().cloned().collect());
        }
        let roles: BTreeSet<Role> = roles.iter().map(|role| Role::from(role.as_str())).collect();
        roles.is_subset(own).then(|| roles.into_iter().collect())
    }

    fn revive(&mut self, key: FrameworkKey, roles: &[String]) {
        let Some(named) = self.named_roles(key, roles) else {
            return;
        };
        let framework = self.touch(key);
        framework.suppressed.retain(|role| !named.contains(role));
        self.allocation.clear_filters(key, &named);
        self.allocation.tell(Fact::Revived(key, named));
        self.allocation.want_all();
    }

    fn suppress(&mut self, key: FrameworkKey, roles: &[String]) {
        let Some(named) = self.named_roles(key, roles) else {
            return;
        };
        let framework = self.touch(key);
        framework.suppressed.extend(named.iter().cloned());
        self.allocation.tell(Fact::Suppressed(key, named));
    }

    /// REQUEST is for allocators that care; those of Mesos do not. What cannot be read or names an agent that is not
    /// known is left out.
    fn request(&mut self, key: FrameworkKey, call: scheduler::call::Request) {
        let wanted = |request: &v1::Request| {
            let agent = match &request.agent_id {
                Some(id) => Some(*self.agent_ids.get(id.value.as_str())?),
                None => None,
            };
            let resources = convert::resources(&request.resources).ok()?;
            Some(Wanted { agent, resources })
        };
        let wanted = call.requests.iter().filter_map(wanted).collect();
        self.allocation.tell(Fact::Requested(key, wanted));
    }

    fn message(
        &self,
        key: FrameworkKey,
        call: scheduler::call::Message,
        effects: &mut Vec<Effect>,
    ) {
        let agent = self.agent_ids.get(call.agent_id.value.as_str());
        let reached = agent.filter(|agent| self.agent_runs[*agent].synced);
        let (good, bad) = (Count::ValidToExecutor, Count::InvalidToExecutor);
        self.counts.judge(reached.is_some(), good, bad);
        let Some(agent) = reached else { return };
        let body = Body::FrameworkMessage(link::FrameworkMessage {
            framework_id: Some(self.frameworks[&key].proto_id()),
            executor_id: Some(call.executor_id),
            data: call.data,
        });
        self.to_agent(*agent, body, effects);
    }

    fn shutdown(
        &self,
        key: FrameworkKey,
        call: scheduler::call::Shutdown,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent_ids.get(call.agent_id.value.as_str()) else {
            return;
        };
        let body = Body::ShutdownExecutor(link::ShutdownExecutor {
            framework_id: Some(self.frameworks[&key].proto_id()),
            executor_id: Some(call.executor_id),
        });
        self.to_agent(*agent, body, effects);
    }
}
