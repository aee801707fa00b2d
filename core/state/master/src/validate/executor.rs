//! Executors, as tasks and task groups name them.

use tepui_model::id;
use tepui_proto::convert;
use tepui_proto::descriptor::Described;
use tepui_proto::v1::{ExecutorInfo, TaskInfo, container_info, executor_info};

use super::{Checked, checks, task, text};

/// All that can be wrong with an executor without the state; `framework` is its owner.
pub fn executor(info: &ExecutorInfo, framework: &str) -> Checked {
    id::validate(&info.executor_id.value).map_err(|error| error.to_string())?;
    kind(info)?;
    match &info.framework_id {
        None => return Err("'ExecutorInfo.framework_id' must be set".into()),
        Some(id) if id.value != framework => {
            return Err(format!(
                "ExecutorInfo has an invalid FrameworkID (Actual: {} vs Expected: {framework})",
                id.value
            ));
        }
        Some(_) => {}
    }
    parts(info)
}

/// What an executor must be, by its type. One of no type is custom.
fn kind(info: &ExecutorInfo) -> Checked {
    match info.r#type() {
        executor_info::Type::Default => {
            if info.command.is_some() {
                return Err("'ExecutorInfo.command' must not be set for 'DEFAULT' executor".into());
            }
            let Some(container) = &info.container else {
                return Ok(());
            };
            if container.r#type() != container_info::Type::Mesos {
                return Err(
                    "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor".into(),
                );
            }
            if container.mesos.as_ref().is_some_and(|m| m.image.is_some()) {
                return Err(
                    "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor"
                        .into(),
                );
            }
            Ok(())
        }
        executor_info::Type::Custom if info.command.is_none() => {
            Err("'ExecutorInfo.command' must be set for 'CUSTOM' executor".into())
        }
        _ => Ok(()),
    }
}

fn parts(info: &ExecutorInfo) -> Checked {
    let grace = info.shutdown_grace_period.as_ref();
    if grace.is_some_and(|grace| grace.nanoseconds < 0) {
        return Err("ExecutorInfo's 'shutdown_grace_period' must be non-negative".into());
    }
    let all = convert::resources(&info.resources).map_err(|error| error.to_string())?;
    task::consistent(&all).map_err(|error| format!("Executor uses invalid resources: {error}"))?;
    if all.iter().any(|resource| resource.is_shared()) {
        return Err("Executor resources must not be shared".into());
    }
    info.command.as_ref().map_or(Ok(()), checks::command)
}

/// What the default executor needs for itself, in cpus and megabytes of memory.
const LEAST_CPUS: f64 = 0.01;
const LEAST_MEM: f64 = 32.0;

/// What a group of tasks of the default executor must be.
pub fn default_executor(info: &ExecutorInfo, tasks: &[TaskInfo]) -> Checked {
    let all = convert::resources(&info.resources).map_err(|error| error.to_string())?;
    let id = &info.executor_id.value;
    let (cpus, mem) = (all.cpus().to_f64(), all.mem().to_f64());
    if cpus < LEAST_CPUS {
        return Err(format!(
            "Executor '{id}' uses less CPUs ({cpus}) than the minimum required ({LEAST_CPUS})"
        ));
    }
    if mem < LEAST_MEM {
        return Err(format!(
            "Executor '{id}' uses less memory ({mem}MB) than the minimum required ({LEAST_MEM}MB)"
        ));
    }
    if !info
        .resources
        .iter()
        .any(|resource| resource.name == "disk")
    {
        return Err(format!("Executor '{id}' uses no disk"));
    }
    let shares = |task: &TaskInfo| {
        let container = task.container.as_ref();
        let linux = container.and_then(|container| container.linux_info.as_ref());
        linux.is_none_or(|linux| linux.share_cgroups())
    };
    let mut others = tasks.iter().map(shares);
    if let Some(first) = others.next()
        && others.any(|other| other != first)
    {
        return Err("The tasks of a group must have the same 'share_cgroups'".into());
    }
    tasks.iter().try_for_each(task::unsupported)
}

/// The executor of a task outside of a group: always one of its own.
pub(super) fn of_task(info: &ExecutorInfo) -> Checked {
    id::validate(&info.executor_id.value).map_err(|error| error.to_string())?;
    kind(info)?;
    if info.r#type() == executor_info::Type::Default {
        return Err("'ExecutorInfo.type' must be 'CUSTOM'".into());
    }
    if info.command.is_none() {
        return Err("'ExecutorInfo.command' must be set".into());
    }
    parts(info)
}

/// The words for an executor id that is in use with another description, both given as
/// `mesos.v1.ExecutorInfo`.
pub fn incompatible_executor(running: &[u8], wanted: &[u8]) -> String {
    const LINE: &str = "------------------------------------------------------------";
    let print = |info| text::debug_string(ExecutorInfo::DESCRIPTOR, info);
    format!(
        "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID.\n\
         {LINE}\nExisting ExecutorInfo:\n{}\n{LINE}\nExecutorInfo:\n{}\n{LINE}\n",
        print(running),
        print(wanted)
    )
}
