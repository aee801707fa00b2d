//! Containers of one agent: performs what `tepui-state-container` decides.
//!
//! A [`Containerizer`] owns the records of its containers (`<meta_dir>/<container id>/{launch.pb,events.log}`), their
//! runtime directories, the conversations with their supervisors and the order of isolator calls. One task per
//! container runs its state machine; containers may be nested in others, which they never outlive; an agent that was killed finds everything again with [`Containerizer::recover`].
//!
//! It deliberately does not know tasks, executors or frameworks, makes no status updates, and decides no policy:
//! what a termination means for a task is the agent's business.

pub mod checkpoint;
mod config;
mod containerizer;
mod driver;
mod error;
mod isolation;
pub mod leaks;
mod limits;
mod nested;
mod os;
mod provisioner;
mod records;
mod recovery;
mod requests;
mod sandbox;
mod services;
mod spec;
mod usage;

pub use config::{
    Class, Command, ContainerConfig, Launched, Limit, Limits, Listed, Recovered, RunningContainer,
    Settings,
};
pub use containerizer::Containerizer;
pub use error::{Error, LaunchError};
pub use isolation::{Called, Images, Isolator, loaded};
pub use provisioner::{Backend, Provisioner, try_overlay};
pub use sandbox::Sandbox;
pub use services::{Counts, FetchCounts, Fetcher, Logger, fetcher, logger};
pub use tepui_state_container::{Exit, Limitation, Termination};
