//! Weights of roles: GET_WEIGHTS, UPDATE_WEIGHTS and `/weights`.

use tepui_http::Response;
use tepui_model::authorization::Action;
use tepui_model::id::Role;
use tepui_proto::v1::WeightInfo;
use tepui_state_master::{OperatorCall, validate};

use super::Caller;
use crate::authorize::Object;
use crate::refusal::Refusal;

impl Caller<'_> {
    /// The weights of the roles that the caller may see, by role.
    pub(crate) async fn weights(&self) -> Result<Vec<WeightInfo>, Refusal> {
        let view = self.owner.view().await?;
        let weights = view.globals.weights.clone();
        let object = |(role, _): &(Role, f64)| Object::value(role.as_str());
        let seen = self.visible(Action::ViewRole, weights, object).await;
        let info = |(role, weight): (Role, f64)| WeightInfo {
            weight,
            role: Some(role.to_string()),
        };
        Ok(seen.into_iter().map(info).collect())
    }

    /// Gives roles weights.
    pub(crate) async fn update_weights(
        &self,
        weights: Vec<WeightInfo>,
    ) -> Result<Response, Refusal> {
        validate::weights(&weights).map_err(Refusal::bad_request)?;
        let roles: Vec<Object> = weights
            .iter()
            .map(|info| Object::value(info.role()))
            .collect();
        self.require_all(Action::UpdateWeight, roles).await?;
        let weights = weights.into_iter().map(Into::into).collect();
        self.change(OperatorCall::UpdateWeights { weights }).await
    }
}
