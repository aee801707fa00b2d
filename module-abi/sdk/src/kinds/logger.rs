//! Kind `container-logger`: where the output of containers goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Message;
use tepui_module_proto::isolator::ContainerConfig;
use tepui_module_proto::logger::{
    CleanupReply, CleanupRequest, Method, PrepareReply, PrepareRequest, RecoverReply,
    RecoverRequest,
};
use tepui_proto::v1;

use super::{common_call, common_start, decode};
use crate::export::Made;
use crate::failure::undecodable;
use crate::instance::{Service, Started};
use crate::{Module, Result};

/// A container whose output is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Its id: the values from the root to the container, joined by periods.
    pub id: String,
    /// Its sandbox, on the host. It is there.
    pub sandbox: PathBuf,
    /// Whom the sandbox belongs to, user and group; none means the agent's own.
    pub owner: Option<(u32, u32)>,
    /// The environment of its command, without secrets.
    pub environment: BTreeMap<String, String>,
}

/// Where output goes: a file, FIFO or device that the container's first process opens to append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output; none for the file `stdout` of the sandbox.
    pub stdout: Option<PathBuf>,
    /// Standard error; none for the file `stderr` of the sandbox.
    pub stderr: Option<PathBuf>,
}

/// Says where output goes. Mirrors `mesos::slave::ContainerLogger`.
///
/// The agent holds no end of a container's output, so that containers outlive it. A logger that works on the output
/// starts a program of its own, which outlives the agent as well and ends with what writes to it.
pub trait ContainerLogger: Module {
    /// Called first: which containers run on. What is left of others may go.
    fn recover(&self, running: Vec<String>) -> impl Future<Output = Result<()>> + Send {
        let _ = running;
        async { Ok(()) }
    }

    /// A container is about to be started. A failure fails its launch.
    fn prepare(&self, container: Logged) -> impl Future<Output = Result<Output>> + Send;

    /// A container is over, or was never started. Also for containers that the logger does not know.
    fn cleanup(&self, container: &str) -> impl Future<Output = Result<()>> + Send {
        let _ = container;
        async { Ok(()) }
    }
}

pub(crate) struct LoggerService<M>(Arc<M>);

impl<M: ContainerLogger> LoggerService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: ContainerLogger> Service for LoggerService<M> {
    fn call(&self, method: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        let module = self.0.clone();
        match Method::try_from(i32::try_from(method).ok()?) {
            Ok(Method::Recover) => Some(decode::<RecoverRequest>(request).map(|request| {
                Started::new(async move {
                    module.recover(request.running).await?;
                    Ok(RecoverReply {}.encode_to_vec())
                })
            })),
            Ok(Method::Prepare) => Some(decode::<PrepareRequest>(request).and_then(|request| {
                let container = logged(request)?;
                Ok(Started::about(container.id.clone(), async move {
                    let output = module.prepare(container).await?;
                    let text = |path: Option<PathBuf>| {
                        path.unwrap_or_default().to_string_lossy().into_owned()
                    };
                    Ok(PrepareReply {
                        stdout: text(output.stdout),
                        stderr: text(output.stderr),
                    }
                    .encode_to_vec())
                }))
            })),
            Ok(Method::Cleanup) => Some(decode::<CleanupRequest>(request).map(|request| {
                Started::about(request.container.clone(), async move {
                    module.cleanup(&request.container).await?;
                    Ok(CleanupReply {}.encode_to_vec())
                })
            })),
            Ok(Method::Unspecified) | Err(_) => common_start(module, method),
        }
    }
}

fn logged(request: PrepareRequest) -> Result<Logged> {
    let ContainerConfig {
        id,
        sandbox,
        command_info,
        ..
    } = request.config.unwrap_or_default();
    let command = v1::CommandInfo::decode(&*command_info).map_err(|error| undecodable(&error))?;
    let variables = command.environment.into_iter().flat_map(|e| e.variables);
    Ok(Logged {
        id,
        sandbox: sandbox.into(),
        owner: request.uid.zip(request.gid),
        environment: variables
            .filter_map(|variable| Some((variable.name, variable.value?)))
            .collect(),
    })
}
