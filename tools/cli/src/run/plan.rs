//! What `tepui run` is to run, and what of an offer it takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgGroup;
use serde_json::Value;
use tepui_http::scheduler_client::command_task;
use tepui_model::resources::Scalar;
use tepui_model::{Resource, Resources};
use tepui_proto::descriptor::Described;
use tepui_proto::v1::offer::{Operation, operation};
use tepui_proto::{convert, json, v1};

use super::fields;
use crate::resources::resources;
use crate::when::Span;

/// What Mesos' own programs give the executor of a group.
const GROUP_EXECUTOR: &str = "cpus:0.1;mem:32;disk:32";

/// What is run: a command with what it needs, or what a file says.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("what").args(["command", "task", "task_group"]).required(true)))]
pub(super) struct Wanted {
    /// Shell command to run
    #[arg(long, short, value_name = "COMMAND")]
    command: Option<String>,
    /// Run the TaskInfo of this JSON file; ids that are missing are filled in
    #[arg(long, value_name = "FILE", conflicts_with_all = COMMAND_ONLY)]
    task: Option<PathBuf>,
    /// Run the tasks of this JSON file as one group, {"tasks": [...]}: the first bad end ends them all
    #[arg(long, value_name = "FILE", conflicts_with_all = COMMAND_ONLY, conflicts_with = "instances")]
    task_group: Option<PathBuf>,
    /// CPUs for each task
    #[arg(long, default_value_t = 0.1)]
    cpus: f64,
    /// Memory for each task, in MB
    #[arg(long, default_value_t = 32.0)]
    mem: f64,
    /// More that each task needs, such as 'disk:100;gpus:1;ports:[8080-8080]'
    #[arg(long, value_parser = plain_resources)]
    resources: Option<Resources>,
    /// How much of a resource a task may use if there is more than it asks for, such as cpus=2 or mem=infinity; may be repeated
    #[arg(long = "limit", value_name = "RESOURCE=AMOUNT", value_parser = limit)]
    limits: Vec<(String, f64)>,
    /// How many tasks to run
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// Environment variable of the task; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Image to run the command in, such as alpine:3
    #[arg(long)]
    image: Option<String>,
    /// Directory or file of the agent's machine for the task; a relative one is made in the sandbox. May be repeated
    #[arg(long = "volume", value_name = "HOST_PATH:PATH[:ro]", value_parser = volume)]
    volumes: Vec<v1::Volume>,
    /// File to fetch into the sandbox; archives are unpacked. May be repeated
    #[arg(long = "uri")]
    uris: Vec<String>,
    /// Label of the tasks; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = variable)]
    labels: Vec<(String, String)>,
    /// Give the command a terminal, to which `tepui attach` leads
    #[arg(long)]
    tty: bool,
    /// How long the command may take; after that it is killed and the task has failed
    #[arg(long, value_name = "DURATION")]
    max_completion_time: Option<Span>,
}

/// What has no meaning for tasks of a file.
const COMMAND_ONLY: [&str; 9] = [
    "resources",
    "limits",
    "env",
    "image",
    "volumes",
    "uris",
    "labels",
    "tty",
    "max_completion_time",
];

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn plain_resources(text: &str) -> Result<Resources, String> {
    let all = resources(text)?;
    match all.iter().find(|resource| !resource.is_plain()) {
        Some(reserved) => Err(format!(
            "{reserved}: name amounts only, and the role by --role"
        )),
        None => Ok(all),
    }
}

fn limit(text: &str) -> Result<(String, f64), String> {
    let (name, amount) = variable(text).map_err(|_| "expected RESOURCE=AMOUNT".to_owned())?;
    match amount.parse() {
        Ok(value) if value > 0.0 => Ok((name, value)),
        _ => Err(format!("{amount:?} is not an amount above 0, or infinity")),
    }
}

fn volume(text: &str) -> Result<v1::Volume, String> {
    let mut parts = text.split(':');
    let (host, path, mode) = (parts.next(), parts.next(), parts.next());
    let mode = match (mode, parts.next()) {
        (None | Some("rw"), None) => v1::volume::Mode::Rw,
        (Some("ro"), None) => v1::volume::Mode::Ro,
        _ => return Err("expected HOST_PATH:PATH, with :ro for one that is only read".to_owned()),
    };
    match (host, path) {
        (Some(host), Some(path)) if !host.is_empty() && !path.is_empty() => Ok(v1::Volume {
            mode: mode.into(),
            container_path: path.to_owned(),
            host_path: Some(host.to_owned()),
            ..Default::default()
        }),
        _ => Err("expected HOST_PATH:PATH".to_owned()),
    }
}

impl Wanted {
    /// All that is to run, under the name of the framework.
    pub(super) fn units(&self, name: &str) -> Result<Vec<Unit>> {
        for (flag, value) in [("--cpus", self.cpus), ("--mem", self.mem)] {
            if !(value.is_finite() && value > 0.0) {
                bail!("{flag} {value}: expected a number above 0");
            }
        }
        if let Some(file) = &self.task_group {
            let group = read(file).with_context(|| format!("--task-group {}", file.display()))?;
            let tasks = group
                .get("tasks")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            if tasks.is_empty() {
                bail!(
                    "--task-group {}: expected {{\"tasks\": [...]}} with a task",
                    file.display()
                );
            }
            let tasks = tasks.into_iter().enumerate();
            let tasks = tasks.map(|(n, task)| task_info(task, &format!("{name}-{n:05}")));
            let tasks = tasks.collect::<Result<_>>();
            let tasks = tasks.with_context(|| format!("--task-group {}", file.display()))?;
            return Ok(vec![Unit {
                tasks,
                executor: Some(executor(name)?),
            }]);
        }
        let template = match &self.task {
            Some(file) => {
                let task = read(file).and_then(|task| task_info(task, name));
                task.with_context(|| format!("--task {}", file.display()))?
            }
            None => self.command_task(name),
        };
        let unit = |n: u32| {
            let mut task = template.clone();
            if self.instances > 1 {
                task.task_id.value = format!("{}-{n:05}", template.task_id.value);
            }
            Unit {
                tasks: vec![task],
                executor: None,
            }
        };
        Ok((0..self.instances).map(unit).collect())
    }

    fn command_task(&self, name: &str) -> v1::TaskInfo {
        let command = self.command.as_deref().unwrap_or_default();
        let mut task = command_task(name, command, self.cpus, self.mem);
        if let Some(more) = &self.resources {
            // What is named there counts, not the default beside it.
            let named =
                |one: &v1::Resource| more.iter().any(|more| more.name().as_str() == one.name);
            task.resources.retain(|one| !named(one));
            task.resources.extend(convert::to_proto(more));
        }
        let scalar =
            |(name, value): &(String, f64)| (name.clone(), v1::value::Scalar { value: *value });
        task.limits = self.limits.iter().map(scalar).collect();
        task.max_completion_time = self.max_completion_time.map(Span::to_proto);
        let label = |(key, value): &(String, String)| v1::Label {
            key: key.clone(),
            value: Some(value.clone()),
        };
        task.labels = (!self.labels.is_empty()).then(|| v1::Labels {
            labels: self.labels.iter().map(label).collect(),
        });
        if let Some(command) = &mut task.command {
            self.equip(command);
        }
        task.container = self.container();
        task
    }

    fn equip(&self, command: &mut v1::CommandInfo) {
        let variable = |(name, value): &(String, String)| v1::environment::Variable {
            name: name.clone(),
            value: Some(value.clone()),
            ..Default::default()
        };
        let uri = |value: &String| v1::command_info::Uri {
            value: value.clone(),
            ..Default::default()
        };
        command.uris = self.uris.iter().map(uri).collect();
        command.environment = (!self.env.is_empty()).then(|| v1::Environment {
            variables: self.env.iter().map(variable).collect(),
        });
    }

    /// A container is asked for only by what needs one.
    fn container(&self) -> Option<v1::ContainerInfo> {
        if self.image.is_none() && self.volumes.is_empty() && !self.tty {
            return None;
        }
        let image = |name: &String| v1::Image {
            r#type: v1::image::Type::Docker.into(),
            docker: Some(v1::image::Docker {
                name: name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mesos = v1::container_info::MesosInfo {
            image: self.image.as_ref().map(image),
        };
        Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            volumes: self.volumes.clone(),
            mesos: self.image.is_some().then_some(mesos),
            tty_info: self.tty.then(v1::TtyInfo::default),
            ..Default::default()
        })
    }
}

fn read(file: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}

/// A TaskInfo of a file: its agent is found later, and names may be left out.
fn task_info(mut task: Value, name: &str) -> Result<v1::TaskInfo> {
    if !task.is_object() {
        bail!("a task is a JSON object")
    }
    fields::known(&task, v1::TaskInfo::DESCRIPTOR)?;
    let fields = task.as_object_mut().expect("looked at above");
    let id = fields
        .get("task_id")
        .and_then(|id| id["value"].as_str())
        .unwrap_or(name)
        .to_owned();
    fields.entry("name").or_insert_with(|| id.clone().into());
    fields.insert("task_id".to_owned(), serde_json::json!({ "value": id }));
    fields.insert("agent_id".to_owned(), serde_json::json!({"value": ""}));
    Ok(json::to_message(task.to_string().as_bytes())?)
}

/// The default executor, which runs the tasks of a group.
fn executor(name: &str) -> Result<v1::ExecutorInfo> {
    Ok(v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Default.into()),
        executor_id: v1::ExecutorId {
            value: name.to_owned(),
        },
        resources: convert::to_proto(&Resources::parse(GROUP_EXECUTOR, "*")?),
        ..Default::default()
    })
}

/// What is launched together: a task, or a group with its executor.
pub(super) struct Unit {
    pub(super) tasks: Vec<v1::TaskInfo>,
    executor: Option<v1::ExecutorInfo>,
}

impl Unit {
    /// All that an offer must hold.
    pub(super) fn needs(&self) -> Resources {
        let executor = self
            .executor
            .iter()
            .flat_map(|executor| &executor.resources);
        let all = self
            .tasks
            .iter()
            .flat_map(|task| &task.resources)
            .chain(executor);
        convert::resources(&all.cloned().collect::<Vec<_>>()).unwrap_or_default()
    }
}

/// What is launched on an offer.
#[derive(Default)]
pub(super) struct Launch {
    tasks: Vec<v1::TaskInfo>,
    groups: Vec<operation::LaunchGroup>,
}

impl Launch {
    /// Takes what the unit needs of what is left of the offer, if that is enough.
    pub(super) fn add(
        &mut self,
        unit: &Unit,
        room: &mut Resources,
        agent: &v1::AgentId,
        framework: &v1::FrameworkId,
    ) -> bool {
        let mut left = room.clone();
        let mut fill = |resources: &mut Vec<v1::Resource>| {
            let wanted = convert::resources(resources).ok()?;
            *resources = convert::to_proto(&take(&mut left, &wanted)?);
            Some(())
        };
        let (mut tasks, mut executor) = (unit.tasks.clone(), unit.executor.clone());
        let of_tasks = tasks.iter_mut().map(|task| &mut task.resources);
        let of_executor = executor.iter_mut().map(|executor| &mut executor.resources);
        if of_executor
            .chain(of_tasks)
            .any(|resources| fill(resources).is_none())
        {
            return false;
        }
        *room = left;
        for task in &mut tasks {
            task.agent_id = agent.clone();
        }
        match executor {
            Some(mut executor) => {
                executor.framework_id = Some(framework.clone());
                let task_group = v1::TaskGroupInfo { tasks };
                self.groups.push(operation::LaunchGroup {
                    executor,
                    task_group,
                });
            }
            None => self.tasks.append(&mut tasks),
        }
        true
    }

    /// As ACCEPT has it.
    pub(super) fn operations(self) -> Vec<Operation> {
        let tasks = (!self.tasks.is_empty()).then_some(Operation {
            r#type: Some(operation::Type::Launch.into()),
            launch: Some(operation::Launch {
                task_infos: self.tasks,
            }),
            ..Default::default()
        });
        let group = |launch_group| Operation {
            r#type: Some(operation::Type::LaunchGroup.into()),
            launch_group: Some(launch_group),
            ..Default::default()
        };
        tasks
            .into_iter()
            .chain(self.groups.into_iter().map(group))
            .collect()
    }
}

/// Takes from an offer what is wanted by name: reserved resources before others. A resource that
/// is wanted as it stands in the offer, such as a volume, is taken as that.
fn take(room: &mut Resources, wanted: &Resources) -> Option<Resources> {
    let mut taken = Resources::new();
    for one in wanted.iter() {
        for part in parts(room, one)? {
            room.sub_one(&part);
            taken.push(part);
        }
    }
    Some(taken)
}

fn parts(room: &Resources, wanted: &Resource) -> Option<Vec<Resource>> {
    let mut usable: Vec<&Resource> = room
        .iter()
        .filter(|have| have.name() == wanted.name())
        .filter(|have| match wanted.is_plain() {
            true => !have.is_persistent_volume() && !have.is_revocable(),
            false => have.reservations() == wanted.reservations() && have.disk() == wanted.disk(),
        })
        .collect();
    usable.sort_by_key(|have| !have.is_reserved());
    let Some(amount) = wanted.amount() else {
        let part = |have: &&Resource| {
            let part = have.of_value(wanted.value().clone());
            have.contains(&part).then_some(part)
        };
        return Some(vec![usable.iter().find_map(part)?]);
    };
    let (mut parts, mut missing) = (Vec::new(), amount);
    for have in usable {
        let part = have.amount().unwrap_or_default().min(missing);
        if part > Scalar::ZERO {
            missing -= part;
            parts.push(have.clone().with_amount(part));
        }
    }
    (missing == Scalar::ZERO).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Resources {
        Resources::parse(text, "*").expect("resources of a test")
    }

    #[test]
    fn one_thing_to_run_is_asked_for_and_no_more() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            wanted: Wanted,
        }
        let read = |args: &[&str]| {
            let line =
                clap::Parser::try_parse_from(std::iter::once("run").chain(args.iter().copied()));
            line.map(|line: Line| line.wanted.command)
                .map_err(|error| error.to_string())
        };
        let error = read(&[]).unwrap_err();
        let all = "<--command <COMMAND>|--task <FILE>|--task-group <FILE>>";
        assert!(error.contains(all), "{error}");
        for args in [
            ["--command=true", "--task=t"],
            ["--task=t", "--task-group=g"],
            ["--task-group=g", "--instances=2"],
            ["--task=t", "--image=i"],
        ] {
            let error = read(&args).unwrap_err();
            assert!(error.contains("cannot be used with"), "{args:?}: {error}");
        }
        assert_eq!(read(&["-c", "true"]).unwrap().as_deref(), Some("true"));
    }

    fn taken(offer: &str, wanted: &str) -> Option<(String, String)> {
        let mut room = parse(offer);
        let taken = take(&mut room, &parse(wanted))?;
        Some((taken.to_string(), room.to_string()))
    }

    #[test]
    fn what_is_reserved_is_taken_first_and_volumes_are_left() {
        let both = |taken: &str, left: &str| Some((taken.to_owned(), left.to_owned()));
        let offer = "cpus:2;cpus(reservations: [(DYNAMIC,a)]):1;ports:[1-9]";
        assert_eq!(
            taken(offer, "cpus:1.5;ports:[3-4]"),
            both(
                "cpus(reservations: [(DYNAMIC,a)]):1; cpus:0.5; ports:[3-4]",
                "cpus:1.5; ports:[1-2, 5-9]"
            )
        );
        assert_eq!(taken(offer, "cpus:3.1"), None);
        assert_eq!(taken(offer, "ports:[9-10]"), None);
        assert_eq!(
            taken("disk(reservations: [(DYNAMIC,a)])[v:p]:10", "disk:1"),
            None
        );
        let volume = "disk(reservations: [(DYNAMIC,a)])[v:p]:10";
        assert_eq!(taken(volume, volume), both(volume, "{}"));
    }

    #[test]
    fn a_file_need_not_say_what_is_found_later() {
        let task = task_info(serde_json::json!({"resources": []}), "x").expect("a task");
        assert_eq!(
            (task.name.as_str(), task.task_id.value.as_str()),
            ("x", "x")
        );
        assert!(task_info(serde_json::json!({"resources": 1}), "x").is_err());
        assert!(task_info(serde_json::json!([]), "x").is_err());
    }

    #[test]
    fn volumes_and_limits_are_read() {
        let read = volume("/data:data:ro").expect("a volume");
        assert_eq!(
            (read.host_path(), read.mode()),
            ("/data", v1::volume::Mode::Ro)
        );
        for wrong in ["/data", "/data:", ":p", "/a:b:rx", "/a:b:ro:x"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
        assert_eq!(limit("mem=infinity"), Ok(("mem".to_owned(), f64::INFINITY)));
        assert!(limit("mem=0").is_err() && limit("mem").is_err() && limit("mem=nan").is_err());
    }
}
