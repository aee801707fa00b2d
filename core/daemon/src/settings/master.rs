//! Settings of a master.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tepui_core_master::{RateLimit, RateLimits};
use tepui_host::HostSettings;
use tepui_host::value::parse_duration;
use tepui_proto::{json, v1};

use super::{
    CommonSettings, common, duration, number, one_of, set_in_module, single, text, together,
};
use crate::flags::{Daemon, FlagError, Values};

/// Where the registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registry {
    /// The embedded store below this work directory.
    Embedded(PathBuf),
    /// Nowhere: forgotten at exit.
    InMemory,
}

/// Settings of the master.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the flag of its name; see --help")]
pub struct MasterSettings {
    pub common: CommonSettings,
    pub cluster: Option<String>,
    pub work_dir: Option<PathBuf>,
    pub registry: Registry,
    pub registry_fetch_timeout: Duration,
    pub registry_store_timeout: Duration,
    pub agent_reregister_timeout: Duration,
    /// So many agents may be given up in so long.
    pub agent_removal_rate_limit: Option<(u32, Duration)>,
    /// As a share of 1.
    pub recovery_agent_removal_limit: f64,
    pub registry_gc_interval: Duration,
    pub registry_max_agent_age: Duration,
    pub registry_max_agent_count: usize,
    pub require_agent_domain: bool,
    pub roles: Option<Vec<String>>,
    pub whitelist: Option<PathBuf>,
    pub agent_ping_timeout: Duration,
    pub max_agent_ping_timeouts: u32,
    pub allocator: String,
    pub allocation_interval: Duration,
    pub offer_timeout: Option<Duration>,
    pub min_allocatable_resources: String,
    pub filter_gpu_resources: bool,
    /// As a share of 1.
    pub allocator_agent_recovery_factor: f64,
    pub allocator_recovery_timeout: Duration,
    /// Modules of the leader's election and detection; `standalone` where none is named.
    pub master_contender: String,
    pub master_detector: String,
    pub max_completed_frameworks: usize,
    pub max_completed_tasks_per_framework: usize,
    pub max_unreachable_tasks_per_framework: usize,
    pub max_operator_event_stream_subscribers: usize,
    pub rate_limits: RateLimits,
    /// Export metrics of each framework.
    pub publish_per_framework_metrics: bool,
}

impl MasterSettings {
    /// For the module host.
    pub fn host(&self) -> HostSettings {
        HostSettings {
            // In memory the copies of the libraries would count as the daemon's.
            runtime_dir: self.work_dir.as_ref().map(|dir| dir.join("run")),
            work_dir: self.work_dir.clone(),
            ..self.common.host("master")
        }
    }

    /// Kind and name of each module that is selected.
    pub fn modules(&self) -> Vec<(&'static str, String)> {
        let mut modules = vec![
            ("allocator", self.allocator.clone()),
            ("authorizer", self.common.authorizer.clone()),
            ("leader-contender", self.master_contender.clone()),
            ("leader-detector", self.master_detector.clone()),
        ];
        modules.extend(self.common.exporters());
        modules
    }

    /// Validates what was read.
    pub fn new(mut values: Values) -> Result<Self, FlagError> {
        debug_assert_eq!(values.daemon, Daemon::Master);
        one_of(&values, "registry", &["replicated_log", "in_memory"])?;
        let work_dir = values.path("work_dir");
        let registry = match (values.text("registry"), &work_dir) {
            (Some("in_memory"), _) => Registry::InMemory,
            (_, Some(dir)) => {
                if values.given("registry") {
                    values.notices.push(
                        "flag 'registry': the replicated log is Tepui's embedded store here".into(),
                    );
                }
                Registry::Embedded(dir.clone())
            }
            _ => {
                return Err(together(
                    "'work_dir' is needed for the registry, unless 'registry' is 'in_memory'",
                ));
            }
        };
        let contender = values.text("master_contender").map(String::from);
        let detector = values.text("master_detector").map(String::from);
        if contender.is_some() != detector.is_some() {
            return Err(together(
                "'master_contender' and 'master_detector' need each other",
            ));
        }
        let authorizer = single(&values, "authorizers")?;
        sorters(&mut values)?;
        Ok(MasterSettings {
            common: common(&mut values, authorizer)?,
            cluster: values.text("cluster").map(String::from),
            work_dir,
            registry,
            registry_fetch_timeout: duration(&values, "registry_fetch_timeout"),
            registry_store_timeout: duration(&values, "registry_store_timeout"),
            agent_reregister_timeout: duration(&values, "agent_reregister_timeout"),
            agent_removal_rate_limit: values
                .text("agent_removal_rate_limit")
                .map(rate)
                .transpose()?,
            recovery_agent_removal_limit: share(&text(&values, "recovery_agent_removal_limit"))?,
            registry_gc_interval: duration(&values, "registry_gc_interval"),
            registry_max_agent_age: duration(&values, "registry_max_agent_age"),
            registry_max_agent_count: number(&values, "registry_max_agent_count"),
            require_agent_domain: values.is("require_agent_domain"),
            roles: values.text("roles").map(roles).transpose()?,
            whitelist: values.path("whitelist"),
            agent_ping_timeout: duration(&values, "agent_ping_timeout"),
            max_agent_ping_timeouts: number(&values, "max_agent_ping_timeouts") as u32,
            allocator: text(&values, "allocator"),
            allocation_interval: duration(&values, "allocation_interval"),
            offer_timeout: values.duration("offer_timeout"),
            min_allocatable_resources: text(&values, "min_allocatable_resources"),
            filter_gpu_resources: values.is("filter_gpu_resources"),
            allocator_agent_recovery_factor: recovery_factor(&values)?,
            allocator_recovery_timeout: duration(&values, "allocator_recovery_timeout"),
            master_contender: contender.unwrap_or_else(|| "standalone".into()),
            master_detector: detector.unwrap_or_else(|| "standalone".into()),
            max_completed_frameworks: number(&values, "max_completed_frameworks"),
            max_completed_tasks_per_framework: number(&values, "max_completed_tasks_per_framework"),
            max_unreachable_tasks_per_framework: number(
                &values,
                "max_unreachable_tasks_per_framework",
            ),
            rate_limits: match values.text("rate_limits") {
                Some(text) => rate_limits(text)?,
                None => RateLimits::default(),
            },
            publish_per_framework_metrics: values.is("publish_per_framework_metrics"),
            max_operator_event_stream_subscribers: number(
                &values,
                "max_operator_event_stream_subscribers",
            ),
        })
    }
}

/// `1/20mins`: how many in how long.
fn rate(text: &str) -> Result<(u32, Duration), FlagError> {
    let read = |(count, duration): (&str, &str)| {
        let count = count
            .trim()
            .parse::<u32>()
            .ok()
            .filter(|count| *count > 0)?;
        let duration = parse_duration(duration.trim()).ok()?;
        (duration > Duration::ZERO).then_some((count, duration))
    };
    text.split_once('/').and_then(read).ok_or_else(|| {
        together(&format!(
            "'agent_removal_rate_limit': expected COUNT/DURATION such as 1/20mins, found '{text}'"
        ))
    })
}

/// Mesos' `RateLimits` message.
fn rate_limits(text: &str) -> Result<RateLimits, FlagError> {
    let wrong = |what: &str| together(&format!("'rate_limits': {what}"));
    let limits: v1::RateLimits =
        json::to_message(text.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let read = |of: &str, qps: Option<f64>, capacity: Option<u64>| {
        let Some(qps) = qps else {
            return match capacity {
                Some(_) => Err(wrong(&format!("{of} has a capacity and no qps"))),
                None => Ok(None),
            };
        };
        let interval = Duration::try_from_secs_f64(1.0 / qps).ok();
        let interval = interval
            .filter(|_| qps > 0.0)
            .ok_or_else(|| wrong(&format!("{of}: expected a qps above 0, found {qps}")))?;
        if capacity == Some(0) {
            return Err(wrong(&format!(
                "{of}: expected a capacity of at least 1, found 0"
            )));
        }
        let capacity = capacity.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        Ok(Some(RateLimit { interval, capacity }))
    };
    let mut principals = BTreeMap::new();
    for limit in limits.limits {
        let of = format!("principal '{}'", limit.principal);
        let read = read(&of, limit.qps, limit.capacity)?;
        if principals.insert(limit.principal, read).is_some() {
            return Err(wrong(&format!("{of} is named twice")));
        }
    }
    let others = read(
        "'aggregate_default_qps'",
        limits.aggregate_default_qps,
        limits.aggregate_default_capacity,
    )?;
    Ok(RateLimits { principals, others })
}

/// Flags of Mesos that are settings of its allocator, under the same names.
fn sorters(values: &mut Values) -> Result<(), FlagError> {
    const ALLOCATOR: &str = "hierarchical";
    for flag in ["role_sorter", "framework_sorter"] {
        one_of(values, flag, &["drf", "random"])?;
        let sorter = text(values, flag).into();
        set_in_module(values, flag, ALLOCATOR, flag, sorter);
    }
    let flag = "fair_sharing_excluded_resource_names";
    let names = values.list(flag);
    set_in_module(values, flag, ALLOCATOR, flag, names.into());
    Ok(())
}

fn recovery_factor(values: &Values) -> Result<f64, FlagError> {
    let factor: f64 = text(values, "allocator_agent_recovery_factor")
        .parse()
        .expect("checked when read");
    if (0.0..=1.0).contains(&factor) {
        return Ok(factor);
    }
    Err(together(&format!(
        "'allocator_agent_recovery_factor': expected a number from 0 to 1, found {factor}"
    )))
}

/// `50%` as a share of 1.
fn share(text: &str) -> Result<f64, FlagError> {
    let number = text.trim().strip_suffix('%').map(str::trim);
    let percent = number.and_then(|number| number.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| {
        together(&format!(
            "'recovery_agent_removal_limit': expected a percentage from 0% to 100%, found '{text}'"
        ))
    })
}

fn roles(text: &str) -> Result<Vec<String>, FlagError> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| match tepui_model::roles::validate(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(together(&format!("'roles': {error}"))),
        })
        .collect()
}
