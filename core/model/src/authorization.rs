//! Who asks for what: the data that authorization is about.
//!
//! Actions have the numbers and names of Mesos' `mesos.authorization.Action`. What an action's value is, and
//! which call it guards, is in the documentation of each. Decisions are made by authorizer modules, not here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $text:literal,)*) => {
        /// What a subject may be allowed to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Action {
            $($(#[$doc])* $name = $number,)*
        }

        impl Action {
            /// All actions, by number.
            pub const ALL: &[Action] = &[$(Action::$name,)*];

            /// The name Mesos gives it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Action::$name => $text,)*
                }
            }

            /// The action of a number; none for one that this version does not know.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Action::$name),)*
                    _ => None,
                }
            }
        }
    };
}

actions! {
    /// Subscribe a framework in a role; value: the role.
    RegisterFramework = 1 => "REGISTER_FRAMEWORK",
    /// Launch a task; value: its user.
    RunTask = 2 => "RUN_TASK",
    /// End a framework; value: the framework's principal.
    TeardownFramework = 3 => "TEARDOWN_FRAMEWORK",
    /// Reserve; value: the role.
    ReserveResources = 4 => "RESERVE_RESOURCES",
    /// Unreserve; value: principal of the reservation.
    UnreserveResources = 5 => "UNRESERVE_RESOURCES",
    /// Create a persistent volume; value: the role.
    CreateVolume = 6 => "CREATE_VOLUME",
    /// Destroy a persistent volume; value: the principal that created it.
    DestroyVolume = 7 => "DESTROY_VOLUME",
    /// Read one of the endpoints that are authorized by path; value: the path.
    GetEndpointWithPath = 8 => "GET_ENDPOINT_WITH_PATH",
    /// See a role; value: the role.
    ViewRole = 9 => "VIEW_ROLE",
    /// Change a weight; value: the role.
    UpdateWeight = 10 => "UPDATE_WEIGHT",
    /// See a quota; value: the role.
    GetQuota = 11 => "GET_QUOTA",
    /// Set or remove a quota in the old form; value: the role.
    UpdateQuota = 12 => "UPDATE_QUOTA",
    /// See a framework; value: its user.
    ViewFramework = 13 => "VIEW_FRAMEWORK",
    /// See a task; value: its user.
    ViewTask = 14 => "VIEW_TASK",
    /// See an executor; value: its user.
    ViewExecutor = 15 => "VIEW_EXECUTOR",
    /// Read a sandbox; value: the executor's user.
    AccessSandbox = 16 => "ACCESS_SANDBOX",
    /// Read the daemon's log; no object.
    AccessMesosLog = 17 => "ACCESS_MESOS_LOG",
    /// See the flags; no object.
    ViewFlags = 18 => "VIEW_FLAGS",
    /// Launch a nested container; users of the command and of the parent.
    LaunchNestedContainer = 19 => "LAUNCH_NESTED_CONTAINER",
    /// Kill a nested container; value: the executor's user.
    KillNestedContainer = 20 => "KILL_NESTED_CONTAINER",
    /// Wait for a nested container; value: the executor's user.
    WaitNestedContainer = 21 => "WAIT_NESTED_CONTAINER",
    /// Launch a nested container with attached output; users of the command and of the parent.
    LaunchNestedContainerSession = 22 => "LAUNCH_NESTED_CONTAINER_SESSION",
    /// Attach to a container's input; value: the executor's user.
    AttachContainerInput = 23 => "ATTACH_CONTAINER_INPUT",
    /// Attach to a container's output; value: the executor's user.
    AttachContainerOutput = 24 => "ATTACH_CONTAINER_OUTPUT",
    /// See a container; value: the executor's user.
    ViewContainer = 25 => "VIEW_CONTAINER",
    /// Change the log level; no object.
    SetLogLevel = 26 => "SET_LOG_LEVEL",
    /// Remove a nested container; value: the executor's user.
    RemoveNestedContainer = 27 => "REMOVE_NESTED_CONTAINER",
    /// Register an agent; no object.
    RegisterAgent = 28 => "REGISTER_AGENT",
    /// Change the maintenance schedule; the machine.
    UpdateMaintenanceSchedule = 29 => "UPDATE_MAINTENANCE_SCHEDULE",
    /// See the maintenance schedule; the machine.
    GetMaintenanceSchedule = 30 => "GET_MAINTENANCE_SCHEDULE",
    /// Take a machine down; the machine.
    StartMaintenance = 31 => "START_MAINTENANCE",
    /// Bring a machine up; the machine.
    StopMaintenance = 32 => "STOP_MAINTENANCE",
    /// See the maintenance status; the machine.
    GetMaintenanceStatus = 33 => "GET_MAINTENANCE_STATUS",
    /// Mark an agent gone; no object.
    MarkAgentGone = 34 => "MARK_AGENT_GONE",
    /// Launch a standalone container; no object.
    LaunchStandaloneContainer = 35 => "LAUNCH_STANDALONE_CONTAINER",
    /// Kill a standalone container; no object.
    KillStandaloneContainer = 36 => "KILL_STANDALONE_CONTAINER",
    /// Wait for a standalone container; no object.
    WaitStandaloneContainer = 37 => "WAIT_STANDALONE_CONTAINER",
    /// Remove a standalone container; no object.
    RemoveStandaloneContainer = 38 => "REMOVE_STANDALONE_CONTAINER",
    /// Change a resource provider's configuration; no object.
    ModifyResourceProviderConfig = 39 => "MODIFY_RESOURCE_PROVIDER_CONFIG",
    /// See a standalone container; no object.
    ViewStandaloneContainer = 40 => "VIEW_STANDALONE_CONTAINER",
    /// Prune images; no object.
    PruneImages = 41 => "PRUNE_IMAGES",
    /// Grow or shrink a volume; value: the role.
    ResizeVolume = 42 => "RESIZE_VOLUME",
    /// Make a block disk; value: the role.
    CreateBlockDisk = 43 => "CREATE_BLOCK_DISK",
    /// Destroy a block disk; value: the role.
    DestroyBlockDisk = 44 => "DESTROY_BLOCK_DISK",
    /// Make a mount disk; value: the role.
    CreateMountDisk = 45 => "CREATE_MOUNT_DISK",
    /// Destroy a mount disk; value: the role.
    DestroyMountDisk = 46 => "DESTROY_MOUNT_DISK",
    /// See resource providers; no object.
    ViewResourceProvider = 47 => "VIEW_RESOURCE_PROVIDER",
    /// Mark a resource provider gone; no object.
    MarkResourceProviderGone = 48 => "MARK_RESOURCE_PROVIDER_GONE",
    /// Destroy a raw disk; value: the role.
    DestroyRawDisk = 49 => "DESTROY_RAW_DISK",
    /// Set a quota; value: the role.
    UpdateQuotaWithConfig = 50 => "UPDATE_QUOTA_WITH_CONFIG",
    /// Drain an agent; no object.
    DrainAgent = 51 => "DRAIN_AGENT",
    /// Deactivate an agent; no object.
    DeactivateAgent = 52 => "DEACTIVATE_AGENT",
    /// Reactivate an agent; no object.
    ReactivateAgent = 53 => "REACTIVATE_AGENT",
}

impl Action {
    /// Its number in `mesos.authorization.Action`.
    pub fn number(self) -> u32 {
        self as u32
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks, as an authenticator found it. An unauthenticated request has no subject at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The principal; absent when the authenticator gave claims only.
    pub principal: Option<String>,
    /// Further claims: group, framework id, container id, ...
    pub claims: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with a principal and no claims.
    pub fn principal(principal: impl Into<String>) -> Self {
        Self {
            principal: Some(principal.into()),
            claims: BTreeMap::new(),
        }
    }
}

/// Number of a visibility class in the table of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassKey(pub u32);

/// What authorization of a row depends on: rows of one class are visible to the same subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Principal of the framework.
    pub principal: Option<String>,
    /// User of the framework.
    pub user: String,
    /// User of the task or executor; the framework's when it names none.
    pub task_user: String,
    /// Roles that occur in the row, sorted.
    pub roles: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_read_back() {
        assert_eq!(Action::ALL.len(), 53);
        for (i, &action) in Action::ALL.iter().enumerate() {
            assert_eq!(Action::from_number(action.number()), Some(action));
            assert!(
                Action::ALL[..i]
                    .iter()
                    .all(|other| other.as_str() != action.as_str())
            );
        }
        assert_eq!(Action::from_number(0), None);
        assert_eq!(Action::UpdateQuotaWithConfig.number(), 50);
    }
}
