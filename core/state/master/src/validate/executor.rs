//! Executors, as tasks and task groups name them.

use tepui_model::id;
use tepui_proto::convert;
use tepui_proto::descriptor::Described;
use tepui_proto::v1::{ExecutorInfo, TaskInfo, container_info, executor_info};

use super::{Checked, task, text};

/// All that can be wrong with an executor without the state, in Mesos' order; `framework` is its owner.
pub fn executor(info: &ExecutorInfo, framework: &str) -> Checked {
    description(info)?;
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
    resources(info)
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

/// What it says of itself but for its resources.
fn description(info: &ExecutorInfo) -> Checked {
    kind(info)?;
    id::validate(&info.executor_id.value).map_err(|error| error.to_string())?;
    let grace = info.shutdown_grace_period.as_ref();
    if grace.is_some_and(|grace| grace.nanoseconds < 0) {
        return Err("ExecutorInfo's 'shutdown_grace_period' must be non-negative".into());
    }
    task::parts(info.command.as_ref(), info.container.as_ref(), "Executor")
}

fn resources(info: &ExecutorInfo) -> Checked {
    let all = convert::resources(&info.resources).map_err(|error| error.to_string())?;
    task::consistent(&all, "Executor")?;
    if all.iter().any(|resource| resource.is_shared()) {
        return Err(format!(
            "Executor resources {all} should not contain any shared resources"
        ));
    }
    Ok(())
}

/// The container of an executor is in nobody's cgroups but its own.
fn has_own_cgroups(info: &ExecutorInfo) -> Checked {
    let linux = info.container.as_ref().and_then(|c| c.linux_info.as_ref());
    if linux.is_some_and(|linux| linux.share_cgroups == Some(true)) {
        return Err(
            "The 'share_cgroups' field cannot be set to 'true' on executor containers".into(),
        );
    }
    Ok(())
}

/// What executors of groups need for themselves, in cpus and megabytes of memory.
const LEAST_CPUS: f64 = 0.01;
const LEAST_MEM: f64 = 32.0;

/// What the executor of a group must be beyond what all are, and its tasks with it.
pub fn group_executor(info: &ExecutorInfo, tasks: &[TaskInfo]) -> Checked {
    let all = convert::resources(&info.resources).map_err(|error| error.to_string())?;
    let id = &info.executor_id.value;
    let container = info.container.as_ref();
    if container.is_some_and(|container| container.r#type() == container_info::Type::Docker) {
        return Err("Docker ContainerInfo is not supported on the executor".into());
    }
    let names = |name| info.resources.iter().any(|resource| resource.name == name);
    let said = |name, amount: String| if names(name) { amount } else { "None".into() };
    let (cpus, mem) = (all.cpus().to_f64(), all.mem().to_f64());
    if cpus < LEAST_CPUS {
        let cpus = said("cpus", cpus.to_string());
        return Err(format!(
            "Executor '{id}' uses less CPUs ({cpus}) than the minimum required ({LEAST_CPUS})"
        ));
    }
    if mem < LEAST_MEM {
        let mem = said("mem", format!("{mem}MB"));
        return Err(format!(
            "Executor '{id}' uses less memory ({mem}) than the minimum required ({LEAST_MEM}MB)"
        ));
    }
    if !names("disk") {
        return Err(format!("Executor '{id}' uses no disk"));
    }
    has_own_cgroups(info)?;
    let mut shares = tasks
        .iter()
        .map(|task| task::shares_cgroups(task.container.as_ref()));
    if let Some(first) = shares.next()
        && shares.any(|other| other != first)
    {
        return Err(
            "If set, the value of 'share_cgroups' must be the same for all tasks in each task \
             group and under a single executor"
                .into(),
        );
    }
    Ok(())
}

/// The executor of a task outside of a group: always one of its own.
pub(super) fn of_task(info: &ExecutorInfo) -> Checked {
    description(info)?;
    resources(info)?;
    if info.r#type() == executor_info::Type::Default {
        return Err("'ExecutorInfo.type' must be 'CUSTOM'".into());
    }
    if info.command.is_none() {
        return Err("'ExecutorInfo.command' must be set".into());
    }
    has_own_cgroups(info)
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
