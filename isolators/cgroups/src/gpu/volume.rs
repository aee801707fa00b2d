//! Programs and libraries of NVIDIA's driver, for images that are made without them. They have to be those of the host's
//! driver; so the agent gathers them in a directory once, which containers see at `/usr/local/nvidia`. Mirrors
//! `isolators/gpu/volume.cpp`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The driver's programs.
const PROGRAMS: [&str; 5] = [
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-smi",
];

/// What the names of the driver's libraries begin with, up to `.so`.
const LIBRARIES: [&str; 16] = [
    "libnvidia-ml",
    "libnvidia-cfg",
    "libnvidia-opencl",
    "libnvidia-ptxjitcompiler",
    "libnvidia-fatbinaryloader",
    "libnvidia-compiler",
    "libnvidia-encode",
    "libnvidia-eglcore",
    "libnvidia-glcore",
    "libnvidia-tls",
    "libnvidia-glsi",
    "libnvidia-fbc",
    "libnvidia-ifr",
    "libcuda",
    "libvdpau_nvidia",
    "libnvcuvid",
];

/// Libraries of others have these names, too, unless `nvidia` is in them.
const GRAPHICS: [&str; 3] = ["libGL", "libEGL", "libGLES"];

/// A library as `ldconfig -p` lists it: `libcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1`.
#[derive(Debug, PartialEq, Eq)]
struct Library<'a> {
    name: &'a str,
    is_64: bool,
    path: &'a Path,
}

fn driver_library(line: &str) -> Option<Library<'_>> {
    let (head, path) = line.trim().split_once(" => ")?;
    let (name, kind) = head.split_once(' ')?;
    let (stem, _) = name.split_once(".so")?;
    let is_graphics = GRAPHICS.iter().any(|start| stem.starts_with(start));
    let is_ours = LIBRARIES.contains(&stem) || is_graphics && stem.contains("nvidia");
    is_ours.then_some(Library {
        name,
        is_64: kind.contains("x86-64") || kind.contains("AArch64"),
        path: Path::new(path),
    })
}

/// Fills a directory with `bin`, `lib` and `lib64`, unless that was done before: it is there only when it is complete.
/// `listed` is what `ldconfig -p` says, `programs` where programs are looked for.
pub(super) fn make(volume: &Path, listed: &str, programs: &[PathBuf]) -> io::Result<()> {
    if volume.is_dir() {
        return Ok(());
    }
    let half = volume.with_extension("new");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    for part in ["bin", "lib", "lib64"] {
        fs::create_dir_all(half.join(part))?;
    }
    for name in PROGRAMS {
        if let Some(found) = programs.iter().find(|at| at.join(name).is_file()) {
            take(&found.join(name), &half.join("bin").join(name))?;
        }
    }
    for library in listed.lines().filter_map(driver_library) {
        let part = half.join(if library.is_64 { "lib64" } else { "lib" });
        // Listed by a link, `libcuda.so.1`; the file behind it has the driver's version in its name.
        let Ok(file) = library.path.canonicalize() else {
            continue;
        };
        let Some(real) = file.file_name() else {
            continue;
        };
        let copy = part.join(real);
        if !copy.exists() {
            take(&file, &copy)?;
        }
        let link = part.join(library.name);
        if !link.exists() {
            symlink(real, link)?;
        }
    }
    fs::rename(half, volume)
}

/// A second name on the same file system, else a copy.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    // A program may be a link itself.
    let from = from.canonicalize()?;
    fs::hard_link(&from, to).or_else(|_| fs::copy(&from, to).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_files_are_gathered_once() {
        let at = tempfile::tempdir().unwrap();
        let host = at.path().join("host");
        fs::create_dir(&host).unwrap();
        for file in [
            "libcuda.so.550.1",
            "libGLX_nvidia.so.0",
            "libGLX_mesa.so.0",
            "libm.so.6",
            "nvidia-smi",
        ] {
            fs::write(host.join(file), file).unwrap();
        }
        symlink("libcuda.so.550.1", host.join("libcuda.so.1")).unwrap();
        let listed = |name: &str, kind: &str| {
            format!("\t{name} ({kind}) => {}\n", host.join(name).display())
        };
        let cache = [
            "2 libs found in cache `/etc/ld.so.cache'\n".to_owned(),
            listed("libcuda.so.1", "libc6,x86-64"),
            listed("libGLX_nvidia.so.0", "libc6"),
            listed("libGLX_mesa.so.0", "libc6,x86-64"),
            listed("libm.so.6", "libc6,x86-64, OS ABI: Linux 3.2.0"),
            listed("libnvidia-ml.so.1", "libc6,x86-64"),
        ];
        let volume = at.path().join("nvidia_550.1");
        let programs = [at.path().join("none"), host.clone()];
        make(&volume, &cache.concat(), &programs).unwrap();
        let names = |part: &str| {
            let entries = fs::read_dir(volume.join(part)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("bin"), ["nvidia-smi"]);
        assert_eq!(names("lib64"), ["libcuda.so.1", "libcuda.so.550.1"]);
        assert_eq!(names("lib"), ["libGLX_nvidia.so.0"]);
        let read = fs::read_to_string(volume.join("lib64/libcuda.so.1"));
        assert_eq!(read.unwrap(), "libcuda.so.550.1");
        // There already.
        make(&volume, "", &[]).unwrap();
        assert_eq!(names("bin"), ["nvidia-smi"]);
    }
}
