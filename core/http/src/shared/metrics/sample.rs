//! One number with its name.

use std::borrow::Cow;

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric's value at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Mesos' name: `master/frameworks/spark/0-1/calls/accept`.
    pub name: Cow<'static, str>,
    /// How it moves.
    pub kind: Kind,
    /// The value.
    pub value: f64,
    /// What stays of the name when what varies is taken out: `master/frameworks/calls`. The name
    /// itself where nothing varies.
    pub family: Cow<'static, str>,
    /// What varies: `[("framework", "spark"), ("framework_id", "0-1"), ("call", "accept")]`.
    pub labels: Vec<(&'static str, String)>,
}

impl Sample {
    /// A counter's value.
    #[expect(clippy::cast_precision_loss, reason = "Mesos tells doubles")]
    pub fn counter(name: impl Into<Cow<'static, str>>, value: u64) -> Sample {
        Sample::new(name.into(), Kind::Counter, value as f64)
    }

    /// A gauge's value.
    pub fn gauge(name: impl Into<Cow<'static, str>>, value: f64) -> Sample {
        Sample::new(name.into(), Kind::Gauge, value)
    }

    fn new(name: Cow<'static, str>, kind: Kind, value: f64) -> Sample {
        Sample {
            family: name.clone(),
            name,
            kind,
            value,
            labels: Vec::new(),
        }
    }

    /// Says which part of the name varies.
    pub fn of(
        mut self,
        family: impl Into<Cow<'static, str>>,
        labels: Vec<(&'static str, String)>,
    ) -> Sample {
        self.family = family.into();
        self.labels = labels;
        self
    }
}
