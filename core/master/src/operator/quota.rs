//! Quota of roles: GET_QUOTA, UPDATE_QUOTA, the older SET_QUOTA and REMOVE_QUOTA, and `/quota`.

use tepui_http::Response;
use tepui_model::allocation::Quota;
use tepui_model::authorization::Action;
use tepui_model::id::Role;
use tepui_model::resources::{Name, Scalar};
use tepui_proto::v1::quota::{QuotaConfig, QuotaInfo, QuotaRequest, QuotaStatus};
use tepui_proto::v1::{master, value};
use tepui_state_master::{OperatorCall, validate};
use tepui_view::encode::amount_of;

use super::Caller;
use crate::authorize::Object;
use crate::refusal::Refusal;

impl Caller<'_> {
    /// The quota of the roles whose quota the caller may see.
    #[expect(deprecated, reason = "Mesos tells the older form, too")]
    pub(crate) async fn quota(&self) -> Result<QuotaStatus, Refusal> {
        let view = self.owner.view().await?;
        let quotas = view.globals.quotas.clone();
        let object = |(role, _): &(Role, Quota)| Object::value(role.as_str());
        let seen = self.visible(Action::GetQuota, quotas, object).await;
        Ok(QuotaStatus {
            infos: seen.iter().map(info).collect(),
            configs: seen.iter().map(config).collect(),
        })
    }

    /// Sets guarantees and limits of roles, of all or of none.
    pub(crate) async fn update_quota(
        &self,
        call: master::call::UpdateQuota,
    ) -> Result<Response, Refusal> {
        for config in &call.quota_configs {
            validate::quota_config(config).map_err(Refusal::bad_request)?;
        }
        let roles: Vec<Object> = call
            .quota_configs
            .iter()
            .map(|config| Object::value(&*config.role))
            .collect();
        self.require_all(Action::UpdateQuotaWithConfig, roles)
            .await?;
        let force = call.force();
        let configs = call.quota_configs.into_iter().map(Into::into).collect();
        self.change(OperatorCall::UpdateQuota { configs, force })
            .await
    }

    /// Sets the quota of a role that has none.
    pub(crate) async fn set_quota(&self, request: QuotaRequest) -> Result<Response, Refusal> {
        validate::quota_request(&request).map_err(Refusal::bad_request)?;
        let role = Object::value(request.role());
        self.require_all(Action::UpdateQuota, [role]).await?;
        let request = request.into();
        self.change(OperatorCall::SetQuota { request }).await
    }

    /// Removes the quota of a role that has one.
    pub(crate) async fn remove_quota(&self, role: &str) -> Result<Response, Refusal> {
        self.require_all(Action::UpdateQuota, [Object::value(role)])
            .await?;
        let role = Role::from(role);
        self.change(OperatorCall::RemoveQuota { role }).await
    }
}

/// The older form knows guarantees only.
fn info((role, quota): &(Role, Quota)) -> QuotaInfo {
    let guarantee = quota.guarantees.iter();
    QuotaInfo {
        role: Some(role.to_string()),
        principal: None,
        guarantee: guarantee
            .map(|(name, amount)| amount_of(name, amount))
            .collect(),
    }
}

/// The newer form: guarantees and limits by name.
pub(crate) fn config((role, quota): &(Role, Quota)) -> QuotaConfig {
    let amount = |name: &Name, amount: Scalar| {
        let value = amount.to_f64();
        (name.as_str().to_owned(), value::Scalar { value })
    };
    let guarantees = quota.guarantees.iter();
    let limits = quota.limits.iter();
    QuotaConfig {
        role: role.to_string(),
        guarantees: guarantees.map(|(name, of)| amount(name, of)).collect(),
        limits: limits.map(|(name, of)| amount(name, *of)).collect(),
    }
}
