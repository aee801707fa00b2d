//! The kinds of ACLs: the fields of the message `mesos.ACLs`.

use tepui_module_sdk::prelude::Action::{self, *};

use Objects::{Paths, Roles, Unnamed, Values};

/// What the objects of a kind of ACLs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// Roles; `a/%` stands for all below `a`.
    Roles,
    /// Users or principals.
    Values,
    /// Paths of endpoints that are authorized by path.
    Paths,
    /// Nothing that could be named: the entity has to be `ANY` or `NONE`.
    Unnamed,
}

/// A kind of ACLs.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The field of `mesos.ACLs`.
    pub(crate) field: &'static str,
    /// The field of one ACL that names the objects.
    pub(crate) object: &'static str,
    pub(crate) objects: Objects,
    /// Decided by these ACLs.
    pub(crate) actions: &'static [Action],
}

const fn kind(
    field: &'static str,
    object: &'static str,
    objects: Objects,
    actions: &'static [Action],
) -> Kind {
    Kind {
        field,
        object,
        objects,
        actions,
    }
}

/// All kinds that decide alone.
#[rustfmt::skip]
pub(crate) const KINDS: &[Kind] = &[
    kind("register_frameworks", "roles", Roles, &[RegisterFramework]),
    kind("run_tasks", "users", Values, &[RunTask]),
    kind("reserve_resources", "roles", Roles, &[ReserveResources]),
    kind("unreserve_resources", "reserver_principals", Values, &[UnreserveResources]),
    kind("create_volumes", "roles", Roles, &[CreateVolume]),
    kind("destroy_volumes", "creator_principals", Values, &[DestroyVolume]),
    kind("teardown_frameworks", "framework_principals", Values, &[TeardownFramework]),
    kind("update_weights", "roles", Roles, &[UpdateWeight]),
    kind("get_endpoints", "paths", Paths, &[GetEndpointWithPath]),
    kind("get_quotas", "roles", Roles, &[GetQuota]),
    kind("update_quotas", "roles", Roles, &[UpdateQuota, UpdateQuotaWithConfig]),
    kind("view_frameworks", "users", Values, &[ViewFramework]),
    kind("view_tasks", "users", Values, &[ViewTask]),
    kind("view_executors", "users", Values, &[ViewExecutor]),
    kind("access_sandboxes", "users", Values, &[AccessSandbox]),
    kind("access_mesos_logs", "logs", Unnamed, &[AccessMesosLog]),
    kind("view_roles", "roles", Roles, &[ViewRole]),
    kind("view_flags", "flags", Unnamed, &[ViewFlags]),
    kind("kill_nested_containers", "users", Values, &[KillNestedContainer]),
    kind("wait_nested_containers", "users", Values, &[WaitNestedContainer]),
    kind("attach_containers_input", "users", Values, &[AttachContainerInput]),
    kind("attach_containers_output", "users", Values, &[AttachContainerOutput]),
    kind("view_containers", "users", Values, &[ViewContainer]),
    kind("set_log_level", "level", Unnamed, &[SetLogLevel]),
    kind("remove_nested_containers", "users", Values, &[RemoveNestedContainer]),
    kind("register_agents", "agents", Unnamed, &[RegisterAgent]),
    kind("update_maintenance_schedules", "machines", Unnamed, &[UpdateMaintenanceSchedule]),
    kind("get_maintenance_schedules", "machines", Unnamed, &[GetMaintenanceSchedule]),
    kind("start_maintenances", "machines", Unnamed, &[StartMaintenance]),
    kind("stop_maintenances", "machines", Unnamed, &[StopMaintenance]),
    kind("get_maintenance_statuses", "machines", Unnamed, &[GetMaintenanceStatus]),
    kind("drain_agents", "agents", Unnamed, &[DrainAgent]),
    kind("deactivate_agents", "agents", Unnamed, &[DeactivateAgent]),
    kind("reactivate_agents", "agents", Unnamed, &[ReactivateAgent]),
    kind("mark_agents_gone", "agents", Unnamed, &[MarkAgentGone]),
    kind("launch_standalone_containers", "users", Unnamed, &[LaunchStandaloneContainer]),
    kind("kill_standalone_containers", "users", Unnamed, &[KillStandaloneContainer]),
    kind("wait_standalone_containers", "users", Unnamed, &[WaitStandaloneContainer]),
    kind("remove_standalone_containers", "users", Unnamed, &[RemoveStandaloneContainer]),
    kind("view_standalone_containers", "users", Unnamed, &[ViewStandaloneContainer]),
    kind("modify_resource_provider_configs", "resource_providers", Unnamed, &[ModifyResourceProviderConfig]),
    kind("mark_resource_providers_gone", "resource_providers", Unnamed, &[MarkResourceProviderGone]),
    kind("view_resource_providers", "resource_providers", Unnamed, &[ViewResourceProvider]),
    kind("prune_images", "images", Unnamed, &[PruneImages]),
    kind("resize_volumes", "roles", Roles, &[ResizeVolume]),
    kind("create_block_disks", "roles", Roles, &[CreateBlockDisk]),
    kind("destroy_block_disks", "roles", Roles, &[DestroyBlockDisk]),
    kind("create_mount_disks", "roles", Roles, &[CreateMountDisk]),
    kind("destroy_mount_disks", "roles", Roles, &[DestroyMountDisk]),
    kind("destroy_raw_disks", "roles", Roles, &[DestroyRawDisk]),
];

/// A kind that decides together with another: see [`of_nested_launch`].
const fn one_of_two(field: &'static str) -> Kind {
    kind(field, "users", Values, &[])
}

/// Who may be launched inside of a container: by the user of what is launched.
static CONTAINERS_AS_USER: Kind = one_of_two("launch_nested_containers_as_user");
/// The same by the user of the executor around it.
static CONTAINERS_UNDER_PARENT: Kind =
    one_of_two("launch_nested_containers_under_parent_with_user");
/// Whose sessions may be launched: by the user of the session.
static SESSIONS_AS_USER: Kind = one_of_two("launch_nested_container_sessions_as_user");
/// The same by the user of the executor around it.
static SESSIONS_UNDER_PARENT: Kind =
    one_of_two("launch_nested_container_sessions_under_parent_with_user");

/// The two kinds that decide on what is launched inside of a container, and both have to allow it.
pub(crate) fn of_nested_launch(action: Action) -> Option<[&'static Kind; 2]> {
    match action {
        LaunchNestedContainer => Some([&CONTAINERS_AS_USER, &CONTAINERS_UNDER_PARENT]),
        LaunchNestedContainerSession => Some([&SESSIONS_AS_USER, &SESSIONS_UNDER_PARENT]),
        _ => None,
    }
}

/// The kinds of [`of_nested_launch`], each with its action.
pub(crate) fn of_pairs() -> impl Iterator<Item = (Action, &'static Kind)> {
    let actions = [LaunchNestedContainer, LaunchNestedContainerSession];
    actions.into_iter().flat_map(|action| {
        let pair = of_nested_launch(action).into_iter().flatten();
        pair.map(move |kind| (action, kind))
    })
}

/// The kind of a field of `mesos.ACLs`.
pub(crate) fn of_field(field: &str) -> Option<&'static Kind> {
    let mut all = KINDS.iter().chain(of_pairs().map(|(_, kind)| kind));
    all.find(|kind| kind.field == field)
}

/// The endpoints that `get_endpoints` can be about.
pub(crate) const PATHS: &[&str] = &[
    "/containers",
    "/containerizer/debug",
    "/files/debug",
    "/logging/toggle",
    "/metrics/snapshot",
    "/monitor/statistics",
    "/tepui/v1/modules",
];

/// The ACLs that decide about an action.
pub(crate) fn of_action(action: Action) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.actions.contains(&action))
}
