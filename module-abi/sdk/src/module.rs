//! What all modules have in common.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Context, Result};

/// A module of any kind.
pub trait Module: Sized + Send + Sync + 'static {
    /// Its settings: a struct with [`#[config]`](crate::config), or [`NoConfig`].
    type Config: DeserializeOwned + JsonSchema;

    /// Name in the configuration: `acme/group`. Printable ASCII without spaces.
    const NAME: &'static str;

    /// Other names that select the same module. One instance serves all of them that are configured;
    /// [`Context::selected`] tells which.
    const ALIASES: &'static [&'static str] = &[];

    /// Version, for display.
    const VERSION: &'static str = "";

    /// Who made it, for display.
    const AUTHOR: &'static str = "";

    /// One sentence on what it does, for display.
    const DESCRIPTION: &'static str = "";

    /// Makes an instance. Called before any other method and for trials that are thrown away, so it must have no
    /// side effects: no file is made, nothing is connected. What begins to work begins in [`Self::activate`] (or, for
    /// isolators, in `recover`). An error refuses the settings; [`Failure::setting`](crate::Failure::setting) says which.
    fn create(config: Self::Config, context: Context) -> Result<Self>;

    /// Called once, after `create` and before all methods of the kind. An error fails the start of the daemon.
    /// Allocators have nothing to begin: for them it is not called.
    fn activate(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// How the instance is. May be called at any time, beside other methods; must not wait.
    fn report(&self) -> Report {
        Report::default()
    }
}

/// How an instance is, for the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Why it is not well; none: it is.
    pub unhealthy: Option<String>,
    /// Free facts to show.
    pub facts: BTreeMap<String, String>,
}

/// Settings of a module that has none.
#[crate::config]
#[derive(Debug, Default)]
pub struct NoConfig {}
