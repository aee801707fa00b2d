//! Operations on resources: GET_OPERATIONS.

use tepui_proto::Message as _;
use tepui_proto::v1::Operation;
use tepui_proto::v1::master::response;

use super::Visibility;
use crate::view::View;

/// The answer to GET_OPERATIONS: the operations all of whose roles the viewer may see.
#[must_use]
pub fn get_operations(view: &View, see: &Visibility) -> response::GetOperations {
    let seen = view
        .operations
        .iter()
        .filter(|row| row.roles.iter().all(|role| see.roles.has(role.as_str())));
    response::GetOperations {
        operations: seen
            .map(|row| Operation::decode(row.bytes.clone()).expect("encoded by the state"))
            .collect(),
    }
}
