//! Back ends: how layers become one tree.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tepui_module_proto::isolator::Mount;

use super::copy;

/// A way to make one tree of layers, as in Mesos' `--image_provisioner_backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// overlayfs: the layers are shared, what the container writes is its own.
    Overlay,
    /// The only layer itself, which cannot be written.
    Bind,
    /// A copy of all layers.
    Copy,
}

/// A root, and what has to be mounted for it in the container's namespace.
pub(super) struct Made {
    pub(super) root: PathBuf,
    pub(super) mounts: Vec<Mount>,
}

impl Backend {
    /// The one that is asked for, or the best that works here.
    pub(super) fn choose(asked: Option<&str>, dir: &Path) -> Result<Self, String> {
        let overlay = || try_overlay(dir);
        let backend = match asked {
            None => match overlay() {
                Ok(()) => {
                    tracing::info!("image back end: overlay (works below '{}')", dir.display());
                    Self::Overlay
                }
                Err(why) => {
                    tracing::warn!(
                        "image back end: copy, which is slow and takes much disk: overlay does not work below '{}': {why}",
                        dir.display()
                    );
                    Self::Copy
                }
            },
            Some("overlay") => {
                overlay().map_err(|why| {
                    format!(
                        "--image_provisioner_backend: overlay does not work below '{}': {why}",
                        dir.display()
                    )
                })?;
                Self::Overlay
            }
            Some("bind") => Self::Bind,
            Some("copy") => Self::Copy,
            Some(unknown) => {
                return Err(format!(
                    "--image_provisioner_backend: '{unknown}' is not one of overlay, bind, copy"
                ));
            }
        };
        Ok(backend)
    }

    /// Its name, which is that of its directories.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Bind => "bind",
            Self::Copy => "copy",
        }
    }

    /// Makes the root of a container's n-th image below the back end's directory. Blocks.
    pub(super) fn make(
        self,
        dir: &Path,
        number: usize,
        layers: &[PathBuf],
    ) -> Result<Made, String> {
        let number = number.to_string();
        let root = dir.join("rootfses").join(&number);
        let links = dir.join("layers").join(&number);
        create(&root)?;
        create(&links)?;
        // The top layer first, as overlayfs has them.
        for (index, layer) in layers.iter().rev().enumerate() {
            let link = links.join(index.to_string());
            symlink(layer, &link).map_err(failed("link", &link))?;
        }
        let mounts = match (self, layers) {
            (_, []) => return Err("the image has no layers".to_owned()),
            (Self::Overlay, _) => {
                let scratch = dir.join("scratch").join(&number);
                let (upper, work) = (scratch.join("upperdir"), scratch.join("workdir"));
                create(&upper)?;
                create(&work)?;
                same_root(layers, &upper)?;
                vec![overlay(&root, &links, layers.len(), Some((&upper, &work)))]
            }
            (Self::Bind, [only]) => {
                let flags = libc::MS_BIND | libc::MS_REC | libc::MS_RDONLY | libc::MS_NODEV;
                vec![bind(only, &root, flags)]
            }
            (Self::Bind, more) => {
                return Err(format!(
                    "the back end 'bind' takes images of one layer, and this one has {}",
                    more.len()
                ));
            }
            (Self::Copy, _) => {
                for layer in layers {
                    copy::onto(layer, &root).map_err(|error| {
                        format!("failed to copy '{}': {error}", layer.display())
                    })?;
                }
                vec![bind(
                    &root,
                    &root,
                    libc::MS_BIND | libc::MS_REC | libc::MS_NODEV,
                )]
            }
        };
        Ok(Made { root, mounts })
    }
}

fn create(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

fn failed(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("failed to {what} '{}': {error}", path.display())
}

/// The root of the tree is that of the top layer; here it is the container's own directory, made like it.
fn same_root(layers: &[PathBuf], upper: &Path) -> Result<(), String> {
    let Some(top) = layers.last() else {
        return Ok(());
    };
    let mode = fs::metadata(top)
        .map_err(failed("read", top))?
        .permissions();
    fs::set_permissions(upper, mode).map_err(failed("set the mode of", upper))
}

/// The layers are named relative to the directory of their links: all options together may take one page.
fn overlay(root: &Path, links: &Path, layers: usize, own: Option<(&Path, &Path)>) -> Mount {
    let lower: Vec<String> = (0..layers).map(|index| index.to_string()).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = own {
        options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
    }
    Mount {
        source: "overlay".to_owned(),
        target: root.to_string_lossy().into_owned(),
        fstype: "overlay".to_owned(),
        flags: libc::MS_NODEV,
        options,
        outside: true,
        directory: links.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}

fn bind(source: &Path, target: &Path, flags: u64) -> Mount {
    Mount {
        source: source.to_string_lossy().into_owned(),
        target: target.to_string_lossy().into_owned(),
        flags,
        outside: true,
        ..Mount::default()
    }
}

/// Tries overlayfs below a directory: mounts one in a namespace of a child, so that nothing of it is left whatever
/// happens. The error says why it does not work.
pub fn try_overlay(dir: &Path) -> Result<(), String> {
    let probe = dir.join(format!(".overlay-probe-{}", std::process::id()));
    let made = ["lower", "upper", "work", "root"].map(|name| probe.join(name));
    let tried = made
        .iter()
        .try_for_each(|path| create(path))
        .and_then(|()| mount_overlay(made.map(|path| path.to_string_lossy().into_owned())));
    let _ = fs::remove_dir_all(&probe);
    tried
}

fn mount_overlay([lower, upper, work, root]: [String; 4]) -> Result<(), String> {
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let mount = ["mount", "-t", "overlay", "-o", &options, "overlay", &root];
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(mount)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("it cannot be tried: unshare: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
