//! ACCEPT: operations on offers, in order, on what they leave of the offered resources.
//!
//! Mirrors `Master::accept` and `Master::_accept` of Mesos 1.11. Launches are here, operations on resources in
//! [`crate::operations`].

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::id::{AgentId, ExecutorId, Role, TaskId};
use tepui_model::resources::Resources;
use tepui_model::time::Now;
use tepui_proto::convert;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::offer::{self, operation::Type};
use tepui_proto::v1::{self, ExecutorInfo, Task, TaskInfo, TaskState, scheduler, task_status};
use tepui_view::{ExecutorRow, TaskRow};

use crate::allocation::Back;
use crate::counts::{Count, Offers};
use crate::event::Refused;
use crate::status::{self, MasterStatus};
use crate::tasks::spec_of;
use crate::{Effect, MasterState, validate};

/// What an ACCEPT works on.
pub(crate) struct Accepted {
    pub(crate) framework: FrameworkKey,
    pub(crate) agent: AgentKey,
    pub(crate) role: Role,
    /// What the operations have left, in allocated form.
    pub(crate) left: Resources,
}

/// Tasks that passed all checks: one, or a group.
pub(crate) struct Launch {
    /// With what each takes.
    pub(crate) tasks: Vec<(TaskInfo, Resources)>,
    /// Their executor, where it is not the agent's to make.
    pub(crate) executor: Option<ExecutorInfo>,
    /// The executor to account, if it does not run yet.
    pub(crate) starts: Option<ExecutorRow>,
    pub(crate) group: bool,
}

impl MasterState {
    pub(crate) fn accept(
        &mut self,
        framework: FrameworkKey,
        call: scheduler::call::Accept,
        refused: &[Refused],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (agent, role) = match self.offers_for_accept(framework, &call.offer_ids) {
            Ok(target) => target,
            Err(message) => {
                return self.accept_nothing(framework, call, &message, now, effects);
            }
        };
        let mut accepted = Accepted {
            framework,
            agent,
            role,
            left: Resources::new(),
        };
        let counts = &self.frameworks[&framework].counts;
        counts.offers(Offers::Accepted, call.offer_ids.len());
        for row in self.close_own(framework, &call.offer_ids) {
            accepted.left += row.resources;
        }
        for (index, operation) in call.operations.into_iter().enumerate() {
            self.count_operation(framework, &operation);
            let refused: Vec<&Refused> = refused
                .iter()
                .filter(|refused| refused.operation as usize == index)
                .collect();
            self.perform(&mut accepted, operation, &refused, now, effects);
        }
        if !accepted.left.is_empty() {
            let back = self.refusal(call.filters.as_ref());
            self.release(framework, agent, &accepted.left, back, now);
        }
    }

    /// A LAUNCH counts by its tasks, each as soon as it is launched; an empty one is a decline.
    fn count_operation(&self, framework: FrameworkKey, operation: &offer::Operation) {
        match &operation.launch {
            Some(launch) if launch.task_infos.is_empty() => self.counts.add(Count::Decline),
            Some(_) => self.counts.add(Count::Launch),
            None => self.frameworks[&framework]
                .counts
                .operation(operation.r#type()),
        }
    }

    /// Some offer is not valid: nothing is done, the valid ones come back without a filter.
    fn accept_nothing(
        &mut self,
        framework: FrameworkKey,
        call: scheduler::call::Accept,
        message: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for row in self.close_own(framework, &call.offer_ids) {
            self.release(framework, row.agent, &row.resources, Back::Withdrawn, now);
        }
        let message = format!("Task launched with invalid offers: {message}");
        for operation in call.operations {
            let kind = operation.r#type();
            if !matches!(kind, Type::Launch | Type::LaunchGroup) {
                let message = message.replace("Task launched", "Operation attempted");
                self.refuse_operation(framework, &operation, message, effects);
            }
            for task in tasks_of(operation) {
                self.refuse_task(
                    framework,
                    &task,
                    TaskState::TaskDropped,
                    task_status::Reason::InvalidOffers,
                    message.clone(),
                    now,
                    effects,
                );
            }
        }
    }

    fn perform(
        &mut self,
        accepted: &mut Accepted,
        operation: offer::Operation,
        refused: &[&Refused],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match operation.r#type() {
            Type::Launch => {
                for (index, task) in tasks_of(operation).into_iter().enumerate() {
                    let refused = refused
                        .iter()
                        .find(|refused| refused.task as usize == index);
                    self.launch(accepted, task, refused.copied(), now, effects);
                }
            }
            Type::LaunchGroup => {
                let group = operation.launch_group.unwrap_or_default();
                self.launch_group(accepted, group, refused, now, effects);
            }
            // Mesos ignores what it does not know.
            Type::Unknown => {}
            _ => match refused.first() {
                Some(refused) => {
                    let message = refused.message.clone();
                    self.refuse_operation(accepted.framework, &operation, message, effects);
                }
                None => self.operate(accepted, operation, now, effects),
            },
        }
    }

    fn launch(
        &mut self,
        accepted: &mut Accepted,
        task: TaskInfo,
        refused: Option<&Refused>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let framework = accepted.framework;
        if let Some(refused) = refused {
            return self.refuse_task(
                framework,
                &task,
                TaskState::TaskError,
                task_status::Reason::TaskUnauthorized,
                refused.message.clone(),
                now,
                effects,
            );
        }
        let launch = match self.check_launch(accepted, task) {
            Ok(launch) => launch,
            Err((task, message)) => {
                return self.refuse_task(
                    framework,
                    &task,
                    TaskState::TaskError,
                    task_status::Reason::TaskInvalid,
                    message,
                    now,
                    effects,
                );
            }
        };
        self.start(accepted, launch, effects);
    }

    /// Everything that can be wrong with a task, in Mesos' order.
    #[expect(clippy::result_large_err, reason = "the task is needed for its update")]
    fn check_launch(
        &mut self,
        accepted: &Accepted,
        mut task: TaskInfo,
    ) -> Result<Launch, (TaskInfo, String)> {
        let owner = &self.frameworks[&accepted.framework];
        let agent = &self.agent_runs[&accepted.agent].id;
        if let Err(message) = validate::task(&task, agent.as_str()) {
            return Err((task, message));
        }
        if let Err(message) = owner.is_new_task(&task) {
            return Err((task, message));
        }
        let resources = match allocated(&mut task.resources, &accepted.role) {
            Ok(resources) => resources,
            Err(message) => return Err((task, message)),
        };
        let mut executor = None;
        if let Some(info) = &mut task.executor {
            let framework_id = self.frameworks[&accepted.framework].proto_id();
            info.framework_id.get_or_insert(framework_id);
            executor = match self.check_executor(accepted, info) {
                Ok(executor) => executor,
                Err(message) => return Err((task, message)),
            };
        }
        let mut total = resources.clone();
        if let Some(executor) = &executor {
            total += &executor.resources;
        }
        if !accepted.left.contains(&total) {
            let message = format!(
                "Total resources {total} required by task and its executor is more than available {}",
                accepted.left
            );
            return Err((task, message));
        }
        let executor_info = task.executor.clone();
        let of_executor = executor_info.as_ref().map(validate::unsupported_executor);
        if let Err(message) = of_executor
            .unwrap_or(Ok(()))
            .and_then(|()| validate::unsupported(&task))
        {
            return Err((task, message));
        }
        Ok(Launch {
            tasks: vec![(task, resources)],
            executor: executor_info,
            starts: executor,
            group: false,
        })
    }

    /// A custom executor is accounted with the first of its tasks, and must not change after that.
    pub(crate) fn check_executor(
        &mut self,
        accepted: &Accepted,
        executor: &mut ExecutorInfo,
    ) -> Result<Option<ExecutorRow>, String> {
        allocated(&mut executor.resources, &accepted.role)?;
        let id = ExecutorId::from(executor.executor_id.value.as_str());
        let row = self.executor_row(accepted.framework, accepted.agent, executor);
        let owner = &self.frameworks[&accepted.framework];
        match owner.executors.get(&(accepted.agent, id)) {
            None => Ok(Some(row)),
            Some(running) if running.info == row.info => Ok(None),
            Some(running) => Err(validate::incompatible_executor(&running.info, &row.info)),
        }
    }

    pub(crate) fn start(
        &mut self,
        accepted: &mut Accepted,
        launch: Launch,
        effects: &mut Vec<Effect>,
    ) {
        let (framework, agent) = (accepted.framework, accepted.agent);
        let executor_running = launch.executor.is_some() && launch.starts.is_none();
        if let Some(executor) = launch.starts {
            self.spend(accepted, &executor.resources);
            self.add_executor(framework, executor);
        }
        if !launch.group {
            self.frameworks[&framework].counts.operation(Type::Launch);
        }
        self.introduce(framework, agent, effects);
        let mut tasks = Vec::new();
        for (info, resources) in launch.tasks {
            self.spend(accepted, &resources);
            let row = self.task_row(accepted, &info, resources);
            effects.extend(self.operators_task_added(&row));
            self.add_task(row);
            tasks.push(info);
        }
        let body = Body::Run(link::Run {
            framework_id: Some(self.frameworks[&framework].proto_id()),
            executor: launch.executor,
            tasks,
            group: launch.group,
            resource_version: self
                .agents
                .get(&agent)
                .map_or_else(Default::default, |row| row.resource_version.clone()),
            executor_running,
        });
        self.to_agent(agent, body, effects);
    }

    /// Takes resources from what an ACCEPT has. What is shared stays there for the next task, and goes back at the
    /// end, so each of its users is told by itself.
    fn spend(&mut self, accepted: &mut Accepted, what: &Resources) {
        accepted.left -= &what.non_shared();
        self.tell_taken(accepted.framework, accepted.agent, &what.shared());
    }

    /// The agent gets a framework's info before the first command about it in a session, and again when
    /// it has nothing of it left: it forgets frameworks with their last task.
    fn introduce(&mut self, framework: FrameworkKey, agent: AgentKey, effects: &mut Vec<Effect>) {
        let run = self.agent_runs.get_mut(&agent).expect("agent of an offer");
        let known = run.has_tasks_of(framework);
        if run.told.insert(framework) || !known {
            let info = Some(self.frameworks[&framework].info.clone());
            self.to_agent(agent, Body::Framework(link::Framework { info }), effects);
        }
    }

    fn task_row(&mut self, accepted: &Accepted, info: &TaskInfo, resources: Resources) -> TaskRow {
        let user = task_user(info);
        let class = self.class_of(accepted.framework, user, accepted.role.as_str());
        let task = Task {
            name: info.name.clone(),
            task_id: info.task_id.clone(),
            framework_id: self.frameworks[&accepted.framework].proto_id(),
            executor_id: info
                .executor
                .as_ref()
                .map(|executor| executor.executor_id.clone()),
            agent_id: info.agent_id.clone(),
            state: TaskState::TaskStaging as i32,
            resources: info.resources.clone(),
            labels: info.labels.clone(),
            discovery: info.discovery.clone(),
            container: info.container.clone(),
            health_check: info.health_check.clone(),
            kill_policy: info.kill_policy,
            user: user.map(ToOwned::to_owned),
            limits: info.limits.clone(),
            ..Default::default()
        };
        TaskRow {
            id: TaskId::from(info.task_id.value.as_str()),
            framework: accepted.framework,
            agent: accepted.agent,
            executor: info
                .executor
                .as_ref()
                .map(|executor| ExecutorId::from(executor.executor_id.value.as_str())),
            class,
            state: TaskState::TaskStaging,
            resources,
            spec: spec_of(&task),
            statuses: Default::default(),
            update: None,
            terminal: false,
        }
    }

    /// An update for a task that is not launched and gets no row.
    #[expect(clippy::too_many_arguments, reason = "one sentence of a status")]
    pub(crate) fn refuse_task(
        &self,
        framework: FrameworkKey,
        task: &TaskInfo,
        state: TaskState,
        reason: task_status::Reason,
        message: String,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        let status = status::by_master(
            MasterStatus {
                task: &TaskId::from(task.task_id.value.as_str()),
                state: owner.spoken(state),
                reason,
                message,
                agent: Some(&AgentId::from(task.agent_id.value.as_str())),
            },
            now,
        );
        self.count_end(owner, status.state(), &status);
        owner.send(status::update_event(status), effects);
    }
}

/// User that a task runs as, where it or its executor names one.
fn task_user(info: &TaskInfo) -> Option<&str> {
    match (&info.command, &info.executor) {
        (Some(command), _) => command.user.as_deref(),
        (None, Some(executor)) => executor
            .command
            .as_ref()
            .and_then(|command| command.user.as_deref()),
        (None, None) => None,
    }
}

fn tasks_of(operation: offer::Operation) -> Vec<TaskInfo> {
    match operation.r#type() {
        Type::Launch => operation.launch.unwrap_or_default().task_infos,
        Type::LaunchGroup => operation.launch_group.unwrap_or_default().task_group.tasks,
        _ => Vec::new(),
    }
}

/// Resources of a request in allocated form: schedulers may leave the allocation out. The messages
/// get it, too, and otherwise stay as they are: clients are shown what was asked for.
#[expect(
    deprecated,
    reason = "reservations in the older form are brought to the newer one"
)]
pub(crate) fn allocated(
    messages: &mut Vec<v1::Resource>,
    role: &Role,
) -> Result<Resources, String> {
    let resources = convert::resources(messages).map_err(|error| error.to_string())?;
    let resources: Resources = resources
        .into_iter()
        .map(|resource| match resource.allocation_role() {
            Some(_) => resource,
            None => resource.allocated(role.clone()),
        })
        .collect();
    let old = |message: &v1::Resource| message.role.is_some() || message.reservation.is_some();
    if messages.iter().any(old) {
        *messages = convert::to_proto(&resources);
    }
    for message in messages {
        let info = message.allocation_info.get_or_insert_default();
        info.role.get_or_insert_with(|| role.to_string());
    }
    Ok(resources)
}
