//! Metrics in the text format of Prometheus (version 0.0.4), at `/metrics`.
//!
//! `master/frameworks/NAME/ID/calls/accept` becomes
//! `mesos_master_frameworks_calls_total{framework="NAME",framework_id="ID",call="accept"}`. Sums whose
//! parts are there too are left out: Prometheus adds up itself, and would count them twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::exporter::{Sample, SampleKind};

/// What Prometheus calls this form.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Settings of `prometheus`.
#[config]
pub struct Config {
    /// Path at which the daemon answers.
    #[serde(default = "default_path")]
    path: String,
    /// What every name begins with.
    #[serde(default = "default_prefix")]
    prefix: String,
    /// Series of one metric at most; what is beyond is left out, and counted as
    /// `PREFIX_exporter_series_left_out`.
    #[serde(default = "default_max_series")]
    max_series: usize,
}

fn default_path() -> String {
    "/metrics".to_owned()
}

fn default_prefix() -> String {
    "mesos".to_owned()
}

fn default_max_series() -> usize {
    10_000
}

/// See the crate.
pub struct Prometheus(Config);

impl Module for Prometheus {
    type Config = Config;
    const NAME: &'static str = "prometheus";
    const DESCRIPTION: &'static str = "metrics in the text format of Prometheus";

    fn create(config: Config, _: Context) -> Result<Self> {
        if !config.path.starts_with('/') || config.path.len() < 2 {
            let text = format!("path: expected /something, found {:?}", config.path);
            return Err(Failure::invalid(text).setting("path"));
        }
        if name_of(&config.prefix) != config.prefix
            || config.prefix.starts_with(|c: char| c.is_ascii_digit())
        {
            let text = format!(
                "prefix: expected letters, digits and _, found {:?}",
                config.prefix
            );
            return Err(Failure::invalid(text).setting("prefix"));
        }
        Ok(Self(config))
    }
}

impl Exporter for Prometheus {
    fn path(&self) -> String {
        self.0.path.clone()
    }

    async fn export(&self, samples: Vec<Sample>, _: &str) -> Result<Exported> {
        Ok(Exported {
            content_type: CONTENT_TYPE.to_owned(),
            body: self.write(&samples).into_bytes(),
        })
    }
}

/// All series of one name.
#[derive(Default)]
struct Metric<'a> {
    kind: SampleKind,
    /// Mesos' name of it.
    origin: String,
    series: Vec<&'a Sample>,
}

impl Prometheus {
    fn write(&self, samples: &[Sample]) -> String {
        let mut metrics: BTreeMap<String, Metric<'_>> = BTreeMap::new();
        for sample in samples {
            let metric = metrics.entry(self.name(sample)).or_default();
            let more = metric.series.first().map_or(0, |first| first.labels.len());
            match sample.labels.len().cmp(&more) {
                // A sum of those that are there.
                std::cmp::Ordering::Less if !metric.series.is_empty() => continue,
                std::cmp::Ordering::Greater => metric.series.clear(),
                _ => {}
            }
            if metric.series.is_empty() {
                metric.kind = sample.kind();
                metric.origin = origin(sample);
            }
            metric.series.push(sample);
        }
        let mut text = String::new();
        let mut left_out = 0;
        for (name, metric) in &metrics {
            left_out += metric.series.len().saturating_sub(self.0.max_series);
            head(
                &mut text,
                name,
                metric.kind,
                &format!("Mesos' metric {}.", metric.origin),
            );
            for sample in metric.series.iter().take(self.0.max_series) {
                series(&mut text, name, sample);
            }
        }
        let name = format!("{}_exporter_series_left_out", self.0.prefix);
        head(
            &mut text,
            &name,
            SampleKind::Gauge,
            "Series beyond max_series.",
        );
        writeln!(text, "{name} {left_out}").expect("writing to a string cannot fail");
        text
    }

    fn name(&self, sample: &Sample) -> String {
        let mut name = format!("{}_{}", self.0.prefix, name_of(&sample.family));
        if sample.kind() == SampleKind::Counter && !name.ends_with("_total") {
            name.push_str("_total");
        }
        name
    }
}

/// With `_` for what no name may have.
fn name_of(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect()
}

/// `master/frameworks/calls by {framework}, {framework_id}, {call}`: what Mesos' documents call it.
fn origin(sample: &Sample) -> String {
    let names = sample
        .labels
        .iter()
        .map(|label| format!("{{{}}}", label.name));
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        return sample.family.clone();
    }
    format!("{} by {}", sample.family, names.join(", "))
}

fn head(text: &mut String, name: &str, kind: SampleKind, help: &str) {
    let kind = match kind {
        SampleKind::Counter => "counter",
        SampleKind::Gauge => "gauge",
        SampleKind::Unspecified => "untyped",
    };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
        .expect("writing to a string cannot fail");
}

fn series(text: &mut String, name: &str, sample: &Sample) {
    text.push_str(name);
    for (at, label) in sample.labels.iter().enumerate() {
        let value = label
            .value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let begin = if at == 0 { '{' } else { ',' };
        write!(text, "{begin}{}=\"{value}\"", name_of(&label.name))
            .expect("writing to a string cannot fail");
    }
    if !sample.labels.is_empty() {
        text.push('}');
    }
    let value = sample.value;
    if value.is_infinite() {
        text.push_str(if value > 0.0 { " +Inf\n" } else { " -Inf\n" });
    } else {
        writeln!(text, " {value}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use tepui_module_sdk::proto::exporter::Label;

    use super::*;

    fn prometheus(max_series: usize) -> Prometheus {
        Prometheus(Config {
            path: default_path(),
            prefix: default_prefix(),
            max_series,
        })
    }

    fn sample(family: &str, kind: SampleKind, value: f64, labels: &[(&str, &str)]) -> Sample {
        let label = |(name, value): &(&str, &str)| Label {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        Sample {
            name: family.to_owned(),
            kind: kind.into(),
            value,
            family: family.to_owned(),
            labels: labels.iter().map(label).collect(),
        }
    }

    #[test]
    fn names_labels_and_values_are_written_as_prometheus_reads_them() {
        let odd = "a \"b\" \\ {c} = d,\né";
        let samples = [
            sample("allocator/active", SampleKind::Gauge, 2.0, &[("role", odd)]),
            sample("master/none", SampleKind::Gauge, f64::INFINITY, &[]),
            sample("master/tasks_lost", SampleKind::Counter, 3.0, &[]),
        ];
        let expected = r#"# HELP mesos_allocator_active Mesos' metric allocator/active by {role}.
# TYPE mesos_allocator_active gauge
mesos_allocator_active{role="a \"b\" \\ {c} = d,\né"} 2
# HELP mesos_master_none Mesos' metric master/none.
# TYPE mesos_master_none gauge
mesos_master_none +Inf
# HELP mesos_master_tasks_lost_total Mesos' metric master/tasks_lost.
# TYPE mesos_master_tasks_lost_total counter
mesos_master_tasks_lost_total 3
# HELP mesos_exporter_series_left_out Series beyond max_series.
# TYPE mesos_exporter_series_left_out gauge
mesos_exporter_series_left_out 0
"#;
        assert_eq!(prometheus(10).write(&samples), expected);
    }

    #[test]
    fn sums_of_what_is_there_are_left_out_and_series_are_bounded() {
        let of = |role: &str, n: f64| sample("m/calls", SampleKind::Counter, n, &[("call", role)]);
        let sum = sample("m/calls", SampleKind::Counter, 6.0, &[]);
        let samples = [sum.clone(), of("a", 1.0), of("b", 2.0), of("c", 3.0), sum];
        let text = prometheus(2).write(&samples);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "mesos_exporter_series_left_out 1",
            "mesos_m_calls_total{call=\"a\"} 1",
            "mesos_m_calls_total{call=\"b\"} 2",
        ];
        let mut sorted = series.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }
}
