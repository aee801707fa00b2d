//! Subsystem `perf_event`: counters of processors and kernel for each container. Mirrors `subsystems/perf_event.cpp` and
//! `src/linux/perf.cpp`.
//!
//! One run of the program `perf` samples all containers, again and again while the isolator lives. A run that fails costs
//! that sample only: a container may end between the moment it is named and the moment `perf` looks for it.

use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tepui_module_sdk::mesos::PerfStatistics;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::tokio::{self, task::AbortHandle};

use crate::Config;

const EVENTS: &str = "perf_events";
/// Occurs neither in events nor in names of cgroups.
const SEPARATOR: char = '\t';

/// A counter of `PerfStatistics`.
#[derive(Clone, Copy, Debug)]
enum Counter {
    Count(fn(&mut PerfStatistics) -> &mut Option<u64>),
    /// In milliseconds.
    Clock(fn(&mut PerfStatistics) -> &mut Option<f64>),
}

macro_rules! counts {
    ($($name:ident)*) => {
        &[
            $((stringify!($name), |statistics| &mut statistics.$name),)*
        ]
    };
}

type Count = (&'static str, fn(&mut PerfStatistics) -> &mut Option<u64>);

/// Names of events as the message has them.
const COUNTS: &[Count] = counts! {
    cycles stalled_cycles_frontend stalled_cycles_backend instructions cache_references cache_misses branches
    branch_misses bus_cycles ref_cycles page_faults minor_faults major_faults context_switches cpu_migrations
    alignment_faults emulation_faults l1_dcache_loads l1_dcache_load_misses l1_dcache_stores l1_dcache_store_misses
    l1_dcache_prefetches l1_dcache_prefetch_misses l1_icache_loads l1_icache_load_misses l1_icache_prefetches
    l1_icache_prefetch_misses llc_loads llc_load_misses llc_stores llc_store_misses llc_prefetches llc_prefetch_misses
    dtlb_loads dtlb_load_misses dtlb_stores dtlb_store_misses dtlb_prefetches dtlb_prefetch_misses itlb_loads
    itlb_load_misses branch_loads branch_load_misses node_loads node_load_misses node_stores node_store_misses
    node_prefetches node_prefetch_misses
};

/// An event as `perf` names it, with the counter it goes to.
#[derive(Clone, Debug)]
struct Event {
    name: String,
    counter: Counter,
}

/// What is sampled, and how often.
#[derive(Debug)]
pub(crate) struct Perf {
    events: Vec<Event>,
    interval: Duration,
    duration: Duration,
    /// Of each container the name of its cgroup and the last sample.
    containers: Arc<Mutex<BTreeMap<ContainerId, Sampled>>>,
    sampling: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Debug)]
struct Sampled {
    cgroup: String,
    last: PerfStatistics,
}

impl Drop for Perf {
    fn drop(&mut self) {
        let sampling = self.sampling.get_mut();
        if let Some(sampling) = sampling.unwrap_or_else(PoisonError::into_inner) {
            sampling.abort();
        }
    }
}

impl Perf {
    /// None where no events are configured: containers have a cgroup then, and nothing is counted.
    pub(crate) fn configured(config: &Config) -> Result<Option<Self>> {
        let names = config.perf_events.as_deref().unwrap_or_default();
        let names = names.split(',').map(str::trim);
        let events: Vec<Event> = names
            .filter(|name| !name.is_empty())
            .map(Event::named)
            .collect::<Result<_>>()?;
        if events.is_empty() {
            return Ok(None);
        }
        let duration = Duration::from_secs(config.perf_duration_secs);
        let interval = Duration::from_secs(config.perf_interval_secs);
        if duration.is_zero() || duration > interval {
            return Err(Failure::invalid(
                "'perf_duration_secs' must be 1 or more and not above 'perf_interval_secs'",
            )
            .setting("perf_duration_secs"));
        }
        Ok(Some(Self {
            events,
            interval,
            duration,
            containers: Arc::default(),
            sampling: Mutex::default(),
        }))
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Sampled>> {
        locked(&self.containers)
    }

    /// Begins to sample, after a trial that finds out whether `perf` is there and knows the events.
    pub(crate) async fn start(&self) -> Result<()> {
        let events = self.events.iter().map(|event| event.name.as_str());
        let events: Vec<&str> = events.collect();
        let mut trial = perf();
        trial.args(["--event", &events.join(","), "--", "true"]);
        output(trial).await?;
        let sampler = Sampler {
            events: self.events.clone(),
            duration: self.duration,
            containers: self.containers.clone(),
        };
        let mut ticks = time::interval(self.interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let sampling = tokio::spawn(async move {
            loop {
                ticks.tick().await;
                if let Err(error) = sampler.sample().await {
                    warn!(%error, "the events of containers are not counted this time");
                }
            }
        });
        let mut kept = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.replace(sampling.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    /// Samples a container from now on. Its cgroup is named as below the hierarchy's mount.
    pub(crate) fn add(&self, id: &ContainerId, cgroup: String) {
        // A duration of zero says that nothing has been counted yet.
        let last = PerfStatistics {
            timestamp: now(),
            ..PerfStatistics::default()
        };
        self.containers()
            .insert(id.clone(), Sampled { cgroup, last });
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        self.containers().remove(id);
    }

    /// The last sample of a container.
    pub(crate) fn last(&self, id: &ContainerId) -> Option<PerfStatistics> {
        self.containers().get(id).map(|sampled| sampled.last)
    }
}

fn locked(
    containers: &Mutex<BTreeMap<ContainerId, Sampled>>,
) -> MutexGuard<'_, BTreeMap<ContainerId, Sampled>> {
    containers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// What takes the samples.
struct Sampler {
    events: Vec<Event>,
    duration: Duration,
    containers: Arc<Mutex<BTreeMap<ContainerId, Sampled>>>,
}

impl Sampler {
    async fn sample(&self) -> Result<()> {
        let cgroups: BTreeMap<String, ContainerId> = locked(&self.containers)
            .iter()
            .map(|(id, sampled)| (sampled.cgroup.clone(), id.clone()))
            .collect();
        if cgroups.is_empty() {
            return Ok(());
        }
        let timestamp = now();
        let mut perf = perf();
        perf.arg("--all-cpus");
        for cgroup in cgroups.keys() {
            for event in &self.events {
                // Each cgroup is for the event before it.
                perf.args(["--event", &event.name, "--cgroup", cgroup]);
            }
        }
        let seconds = self.duration.as_secs().to_string();
        perf.args(["--", "sleep", &seconds]);
        let output = output(perf).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        for (cgroup, statistics) in parse(&text, &self.events) {
            let sampled = cgroups.get(&cgroup);
            let mut containers = locked(&self.containers);
            if let Some(sampled) = sampled.and_then(|id| containers.get_mut(id)) {
                sampled.last = PerfStatistics {
                    timestamp,
                    duration: self.duration.as_secs_f64(),
                    ..statistics
                };
            }
        }
        Ok(())
    }
}

impl Event {
    fn named(name: &str) -> Result<Self> {
        let normal = name.to_ascii_lowercase().replace('-', "_");
        let counter = match normal.as_str() {
            "cpu_clock" => Some(Counter::Clock(|statistics| &mut statistics.cpu_clock)),
            "task_clock" => Some(Counter::Clock(|statistics| &mut statistics.task_clock)),
            normal => COUNTS
                .iter()
                .find(|(known, _)| *known == normal)
                .map(|(_, count)| Counter::Count(*count)),
        };
        let counter = counter.ok_or_else(|| {
            Failure::invalid(format!(
                "'{name}' is not an event that statistics have a field for: expected those of 'perf list' such as cycles, \
                 cache-misses, LLC-loads, task-clock, context-switches"
            ))
            .setting(EVENTS)
        })?;
        Ok(Self {
            name: name.to_owned(),
            counter,
        })
    }

    /// Whether `perf` means this one: newer versions put a modifier behind it (`cycles:u`), or what counts it around it
    /// (`cpu_core/cycles/`).
    fn is_called(&self, text: &str) -> bool {
        let text = text.strip_suffix('/').map_or(text, |text| {
            text.split_once('/').map_or(text, |(_, event)| event)
        });
        let (name, _) = text.split_once(':').unwrap_or((text, ""));
        name == self.name
    }

    /// Adds what was counted: several kinds of processors count apart.
    fn add(&self, value: &str, statistics: &mut PerfStatistics) {
        let value = match value {
            // The container did nothing of the kind.
            "<not counted>" => "0",
            value => value,
        };
        // What the machine does not support is left out.
        match self.counter {
            Counter::Count(field) => {
                if let Ok(value) = value.parse::<u64>() {
                    *field(statistics).get_or_insert(0) += value;
                }
            }
            Counter::Clock(field) => {
                if let Ok(value) = value.parse::<f64>() {
                    *field(statistics).get_or_insert(0.0) += value;
                }
            }
        }
    }
}

/// What was counted for each cgroup. Lines are `value, [unit,] event, cgroup, ...`: which there are beside these depends on
/// the version of `perf`.
fn parse(text: &str, events: &[Event]) -> BTreeMap<String, PerfStatistics> {
    let mut found = BTreeMap::<String, PerfStatistics>::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(SEPARATOR).map(str::trim).collect();
        let event_at = fields.iter().skip(1).take(2).find_map(|field| {
            let event = events.iter().find(|event| event.is_called(field))?;
            Some((event, *field))
        });
        let Some((event, name)) = event_at else {
            continue;
        };
        let cgroup = fields.iter().skip_while(|field| **field != name).nth(1);
        let (Some(value), Some(cgroup)) = (fields.first(), cgroup) else {
            continue;
        };
        event.add(value, found.entry((*cgroup).to_owned()).or_default());
    }
    found
}

fn perf() -> Command {
    let mut perf = Command::new("perf");
    perf.arg("stat")
        .args(["--field-separator", &SEPARATOR.to_string()])
        .args(["--log-fd", "1"])
        // Numbers without a language's commas.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    perf
}

async fn output(mut perf: Command) -> Result<Output> {
    let output = perf.output().await.map_err(|error| {
        Failure::unavailable(format!(
            "'perf' cannot be run: {error}; it is in Debian's package linux-perf, and without '{EVENTS}' not needed"
        ))
        .setting(EVENTS)
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let failure = Failure::unavailable(format!("'perf stat' failed ({}): {said}", output.status));
    Err(failure.setting(EVENTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(names: &[&str]) -> Vec<Event> {
        names
            .iter()
            .map(|name| Event::named(name).unwrap())
            .collect()
    }

    #[test]
    fn lines_of_all_versions_of_perf_are_understood() {
        let events = events(&["cycles", "task-clock", "LLC-loads", "page-faults"]);
        let texts = [
            // Before 3.14 without a unit, then with one, then with how long it ran, and what it comes to.
            "70\tcycles\tmesos/a\n1.5\ttask-clock\tmesos/a\n<not supported>\tLLC-loads\tmesos/a\n<not counted>\tpage-faults\tmesos/a\n",
            "70\t\tcycles\tmesos/a\n1.5\tmsec\ttask-clock\tmesos/a\n<not supported>\t\tLLC-loads\tmesos/a\n<not counted>\t\tpage-faults\tmesos/a\n",
            "70\t\tcycles:u\tmesos/a\t1700\t100.00\t3.1\tGHz\n1.50\tmsec\ttask-clock\tmesos/a\t1700\t100.00\t\t\n\
             <not supported>\t\tLLC-loads\tmesos/a\t0\t100.00\t\t\n<not counted>\t\tpage-faults\tmesos/a\t0\t100.00\t\t\n",
            "# started on Mon Nov 23\n\n30\t\tcpu_core/cycles/\tmesos/a\t1\t50.00\t\t\n40\t\tcpu_atom/cycles/\tmesos/a\t1\t50.00\t\t\n\
             1.5\tmsec\ttask-clock\tmesos/a\t1\t100.00\t\t\n<not counted>\t\tpage-faults\tmesos/a\t0\t100.00\t\t\n",
        ];
        for text in texts {
            let found = parse(text, &events);
            let statistics = &found["mesos/a"];
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(statistics.cycles, Some(70), "{text}");
            assert_eq!(statistics.task_clock, Some(1.5), "{text}");
            assert_eq!(statistics.llc_loads, None, "{text}");
            assert_eq!(statistics.page_faults, Some(0), "{text}");
        }
    }

    #[test]
    fn events_are_those_that_statistics_have_fields_for() {
        let mut config: Config = serde_json::from_str("{}").unwrap();
        assert!(Perf::configured(&config).unwrap().is_none());
        for (events, duration, words) in [
            ("cycles,cups", 10, "'cups' is not an event"),
            ("cycles", 61, "not above 'perf_interval_secs'"),
            ("cycles", 0, "must be 1 or more"),
        ] {
            config.perf_events = Some(events.to_owned());
            config.perf_duration_secs = duration;
            let said = Perf::configured(&config).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
