//! Names of methods, for people.

use tepui_module_proto::common::CommonMethod;
use tepui_module_proto::{
    allocator, authorizer, exporter, fetcher, image_store, isolator, leader, logger,
};

/// The name of a method, as the contract calls it.
pub(crate) fn name(kinds: &[String], number: u32) -> &'static str {
    let n = number as i32;
    if number < 16 {
        return CommonMethod::try_from(n)
            .map_or("a method", |m| known(m.as_str_name(), "COMMON_METHOD_"));
    }
    let name = match kinds.first().map(String::as_str) {
        Some("allocator") => allocator::Method::try_from(n).map(|m| m.as_str_name()),
        Some("authorizer") => authorizer::Method::try_from(n).map(|m| m.as_str_name()),
        Some("exporter") => exporter::Method::try_from(n).map(|m| m.as_str_name()),
        Some("container-logger") => logger::Method::try_from(n).map(|m| m.as_str_name()),
        Some("fetcher") => fetcher::Method::try_from(n).map(|m| m.as_str_name()),
        Some("image-store") => image_store::Method::try_from(n).map(|m| m.as_str_name()),
        Some("isolator") => isolator::Method::try_from(n).map(|m| m.as_str_name()),
        Some("leader-contender" | "leader-detector") => {
            leader::Method::try_from(n).map(|m| m.as_str_name())
        }
        _ => return "a method",
    };
    name.map_or("a method", |name| known(name, "METHOD_"))
}

fn known(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}
