//! Project quotas of XFS: which project a file belongs to, and what each project may take.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Quotas count and limit in blocks of this many bytes.
pub const QUOTA_BLOCK: u64 = 512;

/// The file system of a directory, with its project quotas.
#[derive(Debug)]
pub struct ProjectQuotas {
    directory: File,
}

/// What a project takes, and what it may; in bytes, 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Above this the kernel begins to count a time of grace.
    pub soft_limit: u64,
    /// Above this nothing can be written.
    pub hard_limit: u64,
    /// What its files take.
    pub used: u64,
}

// Numbers of `linux/quota.h` and `linux/dqblk_xfs.h`.
const PROJECT: u32 = 2;
const TURN_ON: u32 = 0x5801;
const GET: u32 = 0x5803;
const SET_LIMITS: u32 = 0x5804;
const GET_STATE: u32 = 0x5808;
const VERSION: i8 = 1;
const PROJECT_FLAG: i8 = 2;
const LIMIT_FIELDS: u16 = 1 << 2 | 1 << 3;
const ACCOUNTED: u16 = 1 << 4;
const ENFORCED: u16 = 1 << 5;

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Quota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    inode_timer: i32,
    block_timer: i32,
    inode_warnings: u16,
    block_warnings: u16,
    timers_high: [i8; 4],
    realtime_hard: u64,
    realtime_soft: u64,
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: i16,
    padding_2: [u8; 8],
}

/// `struct fs_quota_statv`, of which only the beginning is looked at.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct State {
    version: i8,
    padding: u8,
    flags: u16,
    rest: [u64; 24],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    padding: [u8; 8],
}

/// What is made in the directory belongs to its project.
const INHERITED: u32 = 0x200;

nix::ioctl_read!(get_attributes, b'X', 31, Attributes);
nix::ioctl_write_ptr!(set_attributes, b'X', 32, Attributes);

impl ProjectQuotas {
    /// Those of the file system that a directory is on.
    ///
    /// # Errors
    ///
    /// When it is not XFS, or was mounted without project quotas, in words that say so.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let shown = directory.display();
        let system = nix::sys::statfs::statfs(directory)?;
        if system.filesystem_type() != nix::sys::statfs::XFS_SUPER_MAGIC {
            return Err(io::Error::other(format!("'{shown}' is not on XFS")));
        }
        let quotas = Self {
            directory: File::open(directory)?,
        };
        if quotas.state()? & ACCOUNTED == 0 {
            return Err(io::Error::other(format!(
                "the file system of '{shown}' has no project quotas: mount it with the option prjquota, on Linux 5.14 or later"
            )));
        }
        Ok(quotas)
    }

    /// Has the kernel enforce limits, where it only counted before.
    ///
    /// # Errors
    ///
    /// When this user may not.
    pub fn enforce(&self) -> io::Result<()> {
        if self.state()? & ENFORCED != 0 {
            return Ok(());
        }
        let mut flags = u32::from(ENFORCED);
        self.call(TURN_ON, 0, &mut flags)
    }

    fn state(&self) -> io::Result<u16> {
        let mut state = State {
            version: VERSION,
            ..State::default()
        };
        match self.call(GET_STATE, 0, &mut state) {
            Ok(()) => Ok(state.flags),
            // The kernel was built without them, or is older than the call.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// What a project takes and may take; nothing is known of one that has never had files or limits.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn usage(&self, project: u32) -> io::Result<ProjectUsage> {
        let mut quota = Quota::default();
        match self.call(GET, project, &mut quota) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(ProjectUsage::default());
            }
            done => done?,
        }
        Ok(ProjectUsage {
            soft_limit: quota.block_soft * QUOTA_BLOCK,
            hard_limit: quota.block_hard * QUOTA_BLOCK,
            used: quota.blocks * QUOTA_BLOCK,
        })
    }

    /// Sets what a project may take, in bytes; 0 for no limit.
    ///
    /// # Errors
    ///
    /// When the kernel does not take it.
    pub fn limit(&self, project: u32, soft_limit: u64, hard_limit: u64) -> io::Result<()> {
        let mut quota = Quota {
            version: VERSION,
            flags: PROJECT_FLAG,
            fields: LIMIT_FIELDS,
            id: project,
            block_soft: soft_limit / QUOTA_BLOCK,
            block_hard: hard_limit / QUOTA_BLOCK,
            ..Quota::default()
        };
        self.call(SET_LIMITS, project, &mut quota)
    }

    fn call<A>(&self, command: u32, project: u32, argument: &mut A) -> io::Result<()> {
        let directory = self.directory.as_raw_fd();
        // SAFETY: the argument is the structure of this command, valid for the kernel to read and write during the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_quotactl_fd,
                directory,
                command << 8 | PROJECT,
                project,
                std::ptr::from_mut(argument),
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The project of a file or directory; 0 for none.
///
/// # Errors
///
/// When it cannot be opened, or its file system knows no projects.
pub fn project_of(path: &Path) -> io::Result<u32> {
    attributes(&open(path)?).map(|attributes| attributes.project)
}

/// Gives a directory and all below it to a project, with what is made there later. Links are not followed, nor are mounts;
/// what is removed meanwhile is left out.
///
/// # Errors
///
/// When something of it cannot be given.
pub fn give_to_project(directory: &Path, project: u32) -> io::Result<()> {
    let top = open(directory)?;
    let device = top.metadata()?.dev();
    set(&top, project, true)?;
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            // Others have no descriptor to ask by, and take no space.
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            let file = match open(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if file.metadata()?.dev() != device {
                continue;
            }
            set(&file, project, kind.is_dir())?;
            if kind.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn attributes(file: &File) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open, and the structure is that of this request.
    unsafe { get_attributes(file.as_raw_fd(), &mut attributes) }?;
    Ok(attributes)
}

fn set(file: &File, project: u32, is_directory: bool) -> io::Result<()> {
    let mut attributes = attributes(file)?;
    attributes.project = project;
    if is_directory {
        attributes.flags |= INHERITED;
    }
    // SAFETY: as above; the kernel only reads it.
    unsafe { set_attributes(file.as_raw_fd(), &attributes) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own sizes, which its headers promise not to change.
    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Quota>(), 112);
        assert_eq!(size_of::<Attributes>(), 28);
        assert!(size_of::<State>() >= 160);
    }

    #[test]
    fn what_is_not_xfs_is_named() {
        let said = ProjectQuotas::of(Path::new("/proc"))
            .unwrap_err()
            .to_string();
        assert!(said.contains("'/proc' is not on XFS"), "{said}");
    }
}
