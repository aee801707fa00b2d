//! What a container uses: the answers of its isolators, joined.

use std::time::SystemTime;

use prost::Message;
use tepui_proto::v1;

use crate::{Limit, Limits};
use tepui_model::resources::Resources;

/// Joins what isolators answered: a later one adds fields, as in Mesos' `MergeFrom`.
pub(crate) fn merge<M: Message + Default>(encoded: impl Iterator<Item = Vec<u8>>) -> M {
    // Concatenated messages are merged messages: that is how protobuf defines it.
    let bytes: Vec<u8> = encoded.flatten().collect();
    M::decode(&*bytes).unwrap_or_default()
}

/// Adds the limits of the container, as Mesos' containerizer does, and the time.
pub(crate) fn complete(
    statistics: &mut v1::ResourceStatistics,
    resources: &Resources,
    limits: &Limits,
) {
    let megabytes = |amount: f64| (amount * 1048576.0) as u64;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    statistics.timestamp = now.as_secs_f64();
    let cpus = resources.cpus().to_f64();
    if cpus > 0.0 {
        statistics.cpus_soft_limit = Some(cpus);
    }
    if let Some(Limit::Amount(limit)) = limits.get("cpus") {
        statistics.cpus_limit = Some(limit.to_f64());
    }
    let mem = resources.mem().to_f64();
    if mem > 0.0 {
        statistics.mem_soft_limit_bytes = Some(megabytes(mem));
        statistics.mem_limit_bytes = match limits.get("mem") {
            Some(Limit::Infinite) => None,
            Some(Limit::Amount(limit)) => Some(megabytes(limit.to_f64())),
            None => Some(megabytes(mem)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_add_up_and_limits_are_the_requests() {
        let cpu = v1::ResourceStatistics {
            cpus_user_time_secs: Some(1.5),
            ..Default::default()
        };
        let mem = v1::ResourceStatistics {
            mem_rss_bytes: Some(7),
            ..Default::default()
        };
        let mut all: v1::ResourceStatistics =
            merge([cpu.encode_to_vec(), mem.encode_to_vec()].into_iter());
        complete(&mut all, &Resources::cpus_mem(0.2, 48.0), &Limits::new());
        assert_eq!(
            (all.cpus_user_time_secs, all.mem_rss_bytes),
            (Some(1.5), Some(7))
        );
        assert_eq!((all.cpus_soft_limit, all.cpus_limit), (Some(0.2), None));
        assert_eq!(
            (all.mem_soft_limit_bytes, all.mem_limit_bytes),
            (Some(50331648), Some(50331648))
        );
    }
}
