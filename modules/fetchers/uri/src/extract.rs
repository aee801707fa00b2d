//! Unpacking: what the suffix of a name says that a file is.
//!
//! Everything is made by [`Sandbox`], which leaves no way out. Devices, FIFOs and sockets are refused; owners, set-id
//! bits and times in archives are not kept.

use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use tepui_fetcher_base::Described;
use tepui_module_sdk::{Failure, Result};

use crate::bounds::{Allowance, Bounds};
use crate::sandbox::Sandbox;

/// How an archive is packed.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
}

/// What a file is.
#[derive(Clone, Copy)]
enum Archive {
    Tar(Packing),
    Zip,
    /// One file; its name is the archive's without the suffix.
    Gzip,
}

/// Suffixes as `fetcher.cpp` has them; the longer of two that fit comes first.
const SUFFIXES: [(&str, Archive); 9] = [
    (".tar", Archive::Tar(Packing::Plain)),
    (".tgz", Archive::Tar(Packing::Gzip)),
    (".tar.gz", Archive::Tar(Packing::Gzip)),
    (".tbz2", Archive::Tar(Packing::Bzip2)),
    (".tar.bz2", Archive::Tar(Packing::Bzip2)),
    (".txz", Archive::Tar(Packing::Xz)),
    (".tar.xz", Archive::Tar(Packing::Xz)),
    (".zip", Archive::Zip),
    (".gz", Archive::Gzip),
];

fn archive(name: &str) -> Option<(&'static str, Archive)> {
    let found = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix));
    found.copied()
}

/// Whether a file of this name is unpacked.
pub(crate) fn is_archive(name: &str) -> bool {
    archive(name).is_some()
}

/// Unpacks a file into the sandbox, beside where a file of this name would be for `.gz`, and else at its top, as
/// Mesos does.
pub(crate) fn extract(
    from: impl Read + Seek,
    name: &str,
    sandbox: &Sandbox,
    bounds: &Bounds,
) -> Result<()> {
    let Some((suffix, archive)) = archive(name) else {
        return Ok(());
    };
    let from = BufReader::with_capacity(1 << 16, from);
    let allowance = &bounds.allowance();
    let unpacked = match archive {
        Archive::Tar(Packing::Plain) => tar(from, sandbox, allowance),
        Archive::Tar(Packing::Gzip) => tar(gunzip(from), sandbox, allowance),
        Archive::Tar(Packing::Bzip2) => {
            tar(bzip2::read::MultiBzDecoder::new(from), sandbox, allowance)
        }
        Archive::Tar(Packing::Xz) => tar(lzma_rust2::XzReader::new(from, true), sandbox, allowance),
        Archive::Zip => zip(from, sandbox, allowance),
        Archive::Gzip => {
            let to = &name[..name.len() - suffix.len()];
            let mut plain = allowance.content(gunzip(from));
            sandbox.act(|here| here.write(Path::new(to), 0o644, &mut plain))
        }
    };
    unpacked.map_err(|failure| {
        let message = format!("Failed to extract '{name}': {failure}");
        Failure::new(failure.code(), message)
    })
}

fn gunzip<R: io::BufRead>(from: R) -> flate2::bufread::MultiGzDecoder<R> {
    flate2::bufread::MultiGzDecoder::new(from)
}

fn tar(from: impl Read, sandbox: &Sandbox, allowance: &Allowance) -> Result<()> {
    use tar::EntryType;
    let (from, budget) = Described::new(from);
    let mut archive = tar::Archive::new(from);
    sandbox.act(|here| {
        let mut entries = archive.entries()?;
        loop {
            budget.begin();
            let Some(entry) = entries.next() else { break };
            let mut entry = entry?;
            budget.end();
            allowance.file()?;
            let path = relative(&entry.path()?)?;
            let mode = entry.header().mode()? & 0o777;
            let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
            match (entry.header().entry_type(), link) {
                // Ancient archives mark directories by a slash.
                (EntryType::Regular, _) if entry.path_bytes().ends_with(b"/") => {
                    here.directory(&path, mode)?;
                }
                (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                    here.write(&path, mode, &mut allowance.content(&mut entry))?;
                }
                (EntryType::Directory, _) => here.directory(&path, mode)?,
                (EntryType::Symlink, Some(target)) => here.symlink(&path, &target)?,
                (EntryType::Link, Some(target)) => here.hard_link(&path, &relative(&target)?)?,
                (EntryType::XGlobalHeader | EntryType::XHeader, _) => {}
                (kind, _) => return Err(refused(&path, kind)),
            }
            // What is left of it is not the next one's description.
            io::copy(&mut entry, &mut io::sink())?;
        }
        Ok(())
    })
}

fn zip(from: impl Read + Seek, sandbox: &Sandbox, allowance: &Allowance) -> Result<()> {
    let (from, budget) = Described::new(from);
    budget.begin_list();
    let mut archive = zip::ZipArchive::new(from)?;
    budget.end();
    sandbox.act(|here| {
        for number in 0..archive.len() {
            let mut entry = archive.by_index(number)?;
            allowance.file()?;
            let path = relative(Path::new(entry.name()))?;
            let mode = entry.unix_mode().unwrap_or(0o644) & 0o777;
            if entry.is_dir() {
                here.directory(&path, mode)?;
            } else if entry.is_symlink() {
                let mut target = String::new();
                entry.by_ref().take(4096).read_to_string(&mut target)?;
                here.symlink(&path, Path::new(&target))?;
            } else {
                here.write(&path, mode, &mut allowance.content(&mut entry))?;
            }
        }
        Ok(())
    })
}

/// A path of an archive, as `tar` and `unzip` take it: relative, without a slash in front. What climbs out is refused
/// before anything of it is made.
fn relative(path: &Path) -> Result<PathBuf> {
    let mut plain = PathBuf::from(".");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let message = format!("'{}' leads out of the sandbox", path.display());
                return Err(Failure::invalid(message));
            }
        }
    }
    Ok(plain)
}

fn refused(path: &Path, kind: tar::EntryType) -> Failure {
    let what = match kind {
        tar::EntryType::Block | tar::EntryType::Char => "a device",
        tar::EntryType::Fifo => "a FIFO",
        _ => "neither file, directory nor link",
    };
    Failure::invalid(format!("'{}' is {what}", path.display()))
}
