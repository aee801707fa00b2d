//! LAUNCH_GROUP: tasks that are launched together, or not at all.
//!
//! Mirrors `validation::task::group::validate` and the LAUNCH_GROUP case of `Master::_accept` of
//! Mesos 1.11.

use std::collections::BTreeSet;

use tepui_model::resources::Resources;
use tepui_model::time::Now;
use tepui_proto::v1::{ExecutorInfo, TaskInfo, TaskState, executor_info, offer, task_status};
use tepui_view::ExecutorRow;

use crate::accept::{Accepted, Launch, allocated};
use crate::event::Refused;
use crate::{Effect, MasterState, validate};

impl MasterState {
    pub(crate) fn launch_group(
        &mut self,
        accepted: &mut Accepted,
        group: offer::operation::LaunchGroup,
        refused: &[&Refused],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let mut executor = group.executor;
        let mut tasks = group.task_group.tasks;
        let checked = match refused.first() {
            Some(refused) => Err((
                task_status::Reason::TaskGroupUnauthorized,
                refused.message.clone(),
            )),
            None => self
                .check_group(accepted, &mut executor, &mut tasks)
                .map_err(|message| (task_status::Reason::TaskGroupInvalid, message)),
        };
        match checked {
            Ok((resources, starts)) => {
                for task in &mut tasks {
                    // Executors find themselves in each task, as in those that are launched alone.
                    task.executor = Some(executor.clone());
                }
                let launch = Launch {
                    tasks: tasks.into_iter().zip(resources).collect(),
                    executor: Some(executor),
                    starts,
                    group: true,
                };
                self.start(accepted, launch, effects);
            }
            Err((reason, message)) => {
                for task in &tasks {
                    let (state, message) = (TaskState::TaskError, message.clone());
                    let framework = accepted.framework;
                    self.refuse_task(framework, task, state, reason, message, now, effects);
                }
            }
        }
    }

    /// Everything that can be wrong with a group. Answers what each task takes, and the executor
    /// to account, if it does not run yet.
    fn check_group(
        &mut self,
        accepted: &Accepted,
        executor: &mut ExecutorInfo,
        tasks: &mut [TaskInfo],
    ) -> Result<(Vec<Resources>, Option<ExecutorRow>), String> {
        let owner = &self.frameworks[&accepted.framework];
        let agent = &self.agent_runs[&accepted.agent].id;
        let mut ids = BTreeSet::new();
        for task in tasks.iter() {
            let id = task.task_id.value.as_str();
            validate::group_task(task, agent.as_str())
                .and_then(|()| owner.is_new_task(task))
                .and_then(|()| match ids.insert(id) {
                    true => Ok(()),
                    false => Err(format!("Task has duplicate ID: {id}")),
                })
                .map_err(|message| format!("Task '{id}' is invalid: {message}"))?;
        }
        let framework = owner.proto_id();
        validate::executor(executor, &framework.value)?;
        if executor.r#type.is_none() {
            return Err("'ExecutorInfo.type' must be set".to_owned());
        }
        validate::group_executor(executor, tasks)?;
        let starts = self.check_executor(accepted, executor)?;
        let mut total = Resources::new();
        let mut each = Vec::new();
        for task in tasks.iter_mut() {
            let resources = allocated(&mut task.resources, &accepted.role)?;
            total += &resources;
            each.push(resources);
        }
        if let Some(executor) = &starts {
            total += &executor.resources;
        }
        if !accepted.left.contains(&total) {
            return Err(format!(
                "Total resources {total} required by task group and its executor are more than available {}",
                accepted.left
            ));
        }
        validate::unsupported_executor(executor)?;
        if executor.r#type() == executor_info::Type::Default {
            // What a task needs that is not there; other executors may know what to do with it.
            tasks.iter().try_for_each(validate::unsupported)?;
        }
        Ok((each, starts))
    }
}
