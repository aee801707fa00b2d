//! Typed clients, one a kind. Each works the same for modules in the daemon and in a child.

pub mod allocator;
pub mod authorizer;
pub mod exporter;
pub mod fetcher;
pub mod image_store;
pub mod isolator;
pub mod leader;
pub mod logger;

use prost::Message;

use crate::error::CallError;
use crate::instance::Instance;

fn decode<M: Message + Default>(
    instance: &Instance,
    method: &'static str,
    bytes: &[u8],
) -> Result<M, CallError> {
    M::decode(bytes).map_err(|error| CallError::Answer {
        module: instance.name().into(),
        method,
        message: error.to_string(),
    })
}
