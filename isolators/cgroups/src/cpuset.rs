//! Subsystem `cpuset`: containers use the processors and memory nodes of the cgroup above.

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::prelude::*;

use crate::groups::failure;

/// The kernel gives a new cgroup none of either, and takes no process into it then.
pub(crate) fn inherit(cgroup: &Cgroup) -> Result<()> {
    let Some(above) = cgroup.path().parent().map(Cgroup::at) else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if cgroup.read(file).map_err(failure)?.trim().is_empty() {
            let value = above.read(file).map_err(failure)?;
            cgroup.write(file, value.trim()).map_err(failure)?;
        }
    }
    Ok(())
}
