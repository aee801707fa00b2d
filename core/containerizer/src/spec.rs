//! What a supervisor is told to start.

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, path::Path};

use tepui_init::{
    Capabilities, CloneFlags, Create, Device, File, FileKind, Input, Join, LaunchSpec, Mount,
    Rlimit,
};
use tepui_module_proto::isolator::{self, LaunchPlan, Namespace, file, mount};

use tepui_proto::v1::tty_info::WindowSize;

use crate::driver::Ground;
use crate::{Class, ContainerConfig};

/// The host's PATH in Mesos' words, for a command that is given none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Joins what is asked for with what the isolators planned. The container finds its sandbox at `sandbox_inside`.
pub(crate) fn launch_spec(
    config: &ContainerConfig,
    plan: &LaunchPlan,
    ground: Ground,
    directory: &Path,
    rlimits: &[isolator::Rlimit],
    sandbox_inside: &Path,
) -> Result<LaunchSpec, String> {
    let (program, arguments) = command(config, plan);
    Ok(LaunchSpec {
        container: config.id.to_string(),
        directory: directory.to_owned(),
        die_with_agent: !config.checkpoint,
        clone_flags: clone_flags(plan)?,
        joins: plan.joins.iter().map(join).collect::<Result<_, _>>()?,
        cgroups: plan
            .cgroups
            .iter()
            .map(|join| {
                Path::new(&join.path).join(if join.subsystem.is_empty() {
                    "cgroup.procs"
                } else {
                    "tasks"
                })
            })
            .collect(),
        own_cgroup: plan
            .cgroups
            .iter()
            .find(|join| join.own)
            .map(|join| join.path.clone().into()),
        mounts: plan.mounts.iter().flat_map(mounts).collect(),
        files: plan.files.iter().map(new_file).collect(),
        devices: plan.devices.iter().map(device).collect::<Result<_, _>>()?,
        masked_paths: plan.masked_paths.iter().map(Into::into).collect(),
        read_only_paths: plan.read_only_paths.iter().map(Into::into).collect(),
        rootfs: plan.rootfs.as_ref().map(Into::into),
        input: input(config),
        stdout: ground.stdout,
        stderr: ground.stderr,
        sandboxes: ground.sandboxes,
        working_directory: plan
            .working_directory
            .as_ref()
            .map_or_else(|| sandbox_inside.to_owned(), Into::into),
        program,
        arguments,
        environment: environment(config, plan, sandbox_inside),
        user: in_groups(ground.user, &plan.supplementary_groups)?,
        oom_score_adj: plan.oom_score_adj,
        // The later of two wins.
        rlimits: rlimits
            .iter()
            .chain(&plan.rlimits)
            .map(rlimit)
            .collect::<Result<_, _>>()?,
        capabilities: plan.capabilities.as_ref().map(capabilities).transpose()?,
        no_new_privileges: plan.no_new_privileges.unwrap_or(false),
        seccomp: plan.seccomp.clone(),
    })
}

/// A terminal has the usual size until somebody says otherwise.
fn input(config: &ContainerConfig) -> Input {
    let terminal = config.container.as_ref().and_then(|info| info.tty_info);
    let Some(terminal) = terminal else {
        return if config.stdin {
            Input::Pipe
        } else {
            Input::Nothing
        };
    };
    let size = terminal.window_size.unwrap_or(WindowSize {
        rows: 24,
        columns: 80,
    });
    let side = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
    Input::Terminal {
        rows: side(size.rows),
        columns: side(size.columns),
    }
}

fn capabilities(sets: &isolator::Capabilities) -> Result<Capabilities, String> {
    let mask = |numbers: &[u32]| {
        numbers.iter().try_fold(0, |mask, number| {
            let bit = 1u64
                .checked_shl(*number)
                .ok_or_else(|| format!("capability {number} is unknown"))?;
            Ok::<u64, String>(mask | bit)
        })
    };
    Ok(Capabilities {
        effective: mask(&sets.effective)?,
        permitted: mask(&sets.permitted)?,
        inheritable: mask(&sets.inheritable)?,
        bounding: mask(&sets.bounding)?,
        ambient: mask(&sets.ambient)?,
    })
}

fn command(config: &ContainerConfig, plan: &LaunchPlan) -> (OsString, Vec<OsString>) {
    let (shell, value, arguments) = match (&plan.command, &config.command) {
        (Some(command), _) => (command.shell, &command.value, &command.arguments),
        (None, Some(command)) => (command.shell, &command.value, &command.arguments),
        (None, None) => return (OsString::new(), Vec::new()),
    };
    if shell {
        (
            "/bin/sh".into(),
            vec!["sh".into(), "-c".into(), value.into()],
        )
    } else if arguments.is_empty() {
        (value.into(), vec![value.into()])
    } else {
        (value.into(), arguments.iter().map(Into::into).collect())
    }
}

/// The later of two entries with one name wins; the command's own are later than the isolators'.
fn environment(config: &ContainerConfig, plan: &LaunchPlan, sandbox: &Path) -> Vec<OsString> {
    let planned = plan
        .environment
        .iter()
        .map(|variable| (&variable.name, &variable.value));
    let mut variables: BTreeMap<&str, &str> = BTreeMap::from([("PATH", DEFAULT_PATH)]);
    for (name, value) in planned.chain(config.environment.iter().map(|(name, value)| (name, value)))
    {
        variables.insert(name, value);
    }
    // Where the container sees it, which only the containerizer knows. Whoever looks into one is told of that one's.
    let inside = sandbox.to_string_lossy();
    if config.class != Class::Debug
        && let Some(told) = variables.get_mut("MESOS_SANDBOX")
    {
        *told = &inside;
    }
    variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}").into())
        .collect()
}

/// A user who is in more groups than those of the host's database.
fn in_groups(
    user: Option<tepui_init::User>,
    more: &[u32],
) -> Result<Option<tepui_init::User>, String> {
    match user {
        Some(mut user) => {
            user.groups.extend(more);
            Ok(Some(user))
        }
        None if more.is_empty() => Ok(None),
        None => Err("supplementary groups need a user to switch to".to_owned()),
    }
}

fn clone_flags(plan: &LaunchPlan) -> Result<CloneFlags, String> {
    let mut flags = plan.namespaces.iter().map(|namespace| kind(*namespace));
    flags.try_fold(CloneFlags(0), |all, flag| Ok(CloneFlags(all.0 | flag?.0)))
}

fn join(join: &isolator::NamespaceJoin) -> Result<Join, String> {
    Ok(Join {
        kind: kind(join.namespace)?,
        path: (&join.path).into(),
    })
}

fn kind(namespace: i32) -> Result<CloneFlags, String> {
    let flag = match Namespace::try_from(namespace) {
        Ok(Namespace::Mount) => libc::CLONE_NEWNS,
        Ok(Namespace::Pid) => libc::CLONE_NEWPID,
        Ok(Namespace::Network) => libc::CLONE_NEWNET,
        Ok(Namespace::Uts) => libc::CLONE_NEWUTS,
        Ok(Namespace::Ipc) => libc::CLONE_NEWIPC,
        Ok(Namespace::Cgroup) => libc::CLONE_NEWCGROUP,
        Ok(Namespace::User | Namespace::Unspecified) | Err(_) => {
            return Err(format!("namespace {namespace} is not supported yet"));
        }
    };
    Ok(CloneFlags(u64::from(flag.unsigned_abs())))
}

/// A mount, and the change of propagation that follows it; a bind mount that is shared with the host is one from the
/// start.
fn mounts(mount: &isolator::Mount) -> Vec<Mount> {
    let is_bind = mount.flags & libc::MS_BIND != 0;
    let shared = is_bind && mount.propagation & libc::MS_SHARED != 0;
    let mut mounts = vec![Mount {
        source: (&mount.source).into(),
        source_root: (&mount.source_root).into(),
        target: (&mount.target).into(),
        outside: mount.outside,
        fstype: (&mount.fstype).into(),
        flags: mount.flags,
        data: (&mount.options).into(),
        directory: (&mount.directory).into(),
        create: match mount.create() {
            mount::Create::Nothing => Create::Nothing,
            mount::Create::Directory => Create::Directory,
            mount::Create::File => Create::File,
        },
        shared,
        optional: mount.optional,
    }];
    if mount.propagation != 0 && !shared {
        mounts.push(Mount {
            target: (&mount.target).into(),
            outside: mount.outside,
            flags: mount.propagation,
            optional: mount.optional,
            ..Mount::default()
        });
    }
    mounts
}

fn new_file(planned: &isolator::File) -> File {
    File {
        path: (&planned.path).into(),
        kind: match planned.r#type() {
            file::Type::Regular => FileKind::Regular(planned.content.clone()),
            file::Type::Directory => FileKind::Directory,
            file::Type::Symlink => FileKind::Symlink(OsString::from_vec(planned.content.clone())),
        },
        mode: planned.mode,
        uid: planned.uid,
        gid: planned.gid,
    }
}

fn device(planned: &isolator::Device) -> Result<Device, String> {
    let is_block = match planned.r#type.as_str() {
        "b" => true,
        "c" => false,
        unknown => return Err(format!("'{unknown}' is no type of a device: b or c")),
    };
    Ok(Device {
        path: (&planned.path).into(),
        is_block,
        major: planned.major,
        minor: planned.minor,
        mode: planned.mode,
    })
}

fn rlimit(limit: &isolator::Rlimit) -> Result<Rlimit, String> {
    let resource = match limit.r#type.as_str() {
        "AS" => libc::RLIMIT_AS,
        "CORE" => libc::RLIMIT_CORE,
        "CPU" => libc::RLIMIT_CPU,
        "DATA" => libc::RLIMIT_DATA,
        "FSIZE" => libc::RLIMIT_FSIZE,
        "LOCKS" => libc::RLIMIT_LOCKS,
        "MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "NICE" => libc::RLIMIT_NICE,
        "NOFILE" => libc::RLIMIT_NOFILE,
        "NPROC" => libc::RLIMIT_NPROC,
        "RSS" => libc::RLIMIT_RSS,
        "RTPRIO" => libc::RLIMIT_RTPRIO,
        "RTTIME" => libc::RLIMIT_RTTIME,
        "SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "STACK" => libc::RLIMIT_STACK,
        unknown => return Err(format!("resource limit {unknown} is unknown")),
    };
    Ok(Rlimit {
        resource,
        soft: limit.soft.unwrap_or(u64::MAX),
        hard: limit.hard.unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use tepui_model::{id::ContainerId, resources::Resources};

    fn config(command: Command) -> ContainerConfig {
        ContainerConfig {
            id: ContainerId::new("c"),
            user: None,
            class: Class::Task,
            stdin: false,
            sandbox: "/s".into(),
            command: Some(command),
            environment: vec![
                ("A".to_owned(), "1".to_owned()),
                ("A".to_owned(), "2".to_owned()),
                ("MESOS_SANDBOX".to_owned(), "/s".to_owned()),
            ],
            secrets: Vec::new(),
            uris: Vec::new(),
            resources: Resources::default(),
            limits: BTreeMap::new(),
            container: None,
            share_cgroups: true,
            is_command_task: true,
            checkpoint: true,
        }
    }

    #[test]
    fn arguments_and_environment_are_what_the_framework_gave() {
        let shell = config(Command {
            shell: true,
            value: "a  b".to_owned(),
            arguments: vec!["x".to_owned()],
        });
        let plan = LaunchPlan::none().env("A", "planned").env("B", "planned");
        let ground = Ground::default;
        let spec = launch_spec(
            &shell,
            &plan,
            ground(),
            Path::new("/r"),
            &[],
            Path::new("/s"),
        )
        .unwrap();
        assert_eq!(
            (spec.program, spec.arguments),
            (
                "/bin/sh".into(),
                vec!["sh".into(), "-c".into(), "a  b".into()]
            )
        );
        assert_eq!(
            spec.environment,
            [
                "A=2".into(),
                "B=planned".into(),
                "MESOS_SANDBOX=/s".into(),
                OsString::from(format!("PATH={DEFAULT_PATH}"))
            ]
        );
        let direct = config(Command {
            shell: false,
            value: "/bin/x".to_owned(),
            arguments: vec!["zero".to_owned(), String::new(), "*".to_owned()],
        });
        let spec = launch_spec(
            &direct,
            &LaunchPlan::none(),
            ground(),
            Path::new("/r"),
            &[],
            Path::new("/in"),
        )
        .unwrap();
        assert_eq!(
            spec.arguments,
            ["zero".into(), "".into(), OsString::from("*")]
        );
        assert_eq!(spec.program, "/bin/x");
        let spec = launch_spec(
            &direct,
            &plan,
            ground(),
            Path::new("/r"),
            &[],
            Path::new("/in"),
        )
        .unwrap();
        assert!(spec.environment.contains(&"MESOS_SANDBOX=/in".into()));
        assert_eq!(spec.working_directory, Path::new("/in"));
    }
}
