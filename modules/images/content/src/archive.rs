//! What `docker save` writes: one archive with a manifest, a configuration and the layers, by name.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Take},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tar::{Archive as Tar, EntryType};
use tepui_fetcher_base::Described;

use crate::error::{Error, Result, on_disk};
use crate::manifest::{CONFIG_BYTES, MANIFEST_BYTES};

/// An opened archive, whose files can be read in any order.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    files: BTreeMap<PathBuf, Place>,
}

#[derive(Debug)]
enum Place {
    /// Where the content begins, and how long it is.
    At(u64, u64),
    /// Another name's.
    Link(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// Most names of images that are told when the one asked for is not among them.
const NAMES: usize = 10;
/// More names than this are no image.
const FILES: usize = 10_000;

impl Archive {
    /// Reads what is where. Blocks.
    ///
    /// # Errors
    ///
    /// When it is no archive.
    pub fn open(path: &Path) -> Result<Self> {
        let broken = |error: std::io::Error| {
            Error::Refused(format!("'{}' is no archive: {error}", path.display()))
        };
        let (file, budget) = Described::new(File::open(path).map_err(on_disk("open", path))?);
        let mut tar = Tar::new(file);
        let mut files = BTreeMap::new();
        let mut entries = tar.entries_with_seek().map_err(broken)?;
        loop {
            // What lies between descriptions is not read here.
            budget.begin();
            let Some(entry) = entries.next() else { break };
            let entry = entry.map_err(broken)?;
            let name = joined(Path::new(""), &entry.path().map_err(broken)?);
            let place = match entry.header().entry_type() {
                EntryType::Regular => Place::At(entry.raw_file_position(), entry.size()),
                EntryType::Symlink | EntryType::Link => {
                    let to = entry
                        .link_name()
                        .map_err(broken)?
                        .unwrap_or_default()
                        .into_owned();
                    // A symlink is relative to where it is: `../LAYER/layer.tar`.
                    let is_symlink = entry.header().entry_type() == EntryType::Symlink;
                    let from = name
                        .parent()
                        .filter(|_| is_symlink)
                        .unwrap_or(Path::new(""));
                    Place::Link(joined(from, &to))
                }
                _ => continue,
            };
            files.insert(name, place);
            if files.len() > FILES {
                return Err(Error::Refused(format!(
                    "'{}' has too many files for an image",
                    path.display()
                )));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            files,
        })
    }

    /// The configuration of the image with this name, or of the only one if it has no name, and the names of its layers.
    /// A name in the archive may have a registry in front, as some tools write it.
    pub(crate) fn image(&self, name: &str) -> Result<(Vec<u8>, Vec<PathBuf>)> {
        let refused = |why: String| {
            Error::Refused(format!(
                "'{}' is not what docker save writes: {why}",
                self.path.display()
            ))
        };
        let manifest = self.content(Path::new("manifest.json"), MANIFEST_BYTES)?;
        let images: Vec<Saved> =
            serde_json::from_slice(&manifest).map_err(|error| refused(error.to_string()))?;
        let is_name = |tag: &String| {
            let before = tag.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        let is_called = |image: &&Saved| image.repo_tags.iter().flatten().any(is_name);
        let found = images.iter().find(is_called).or(match &*images {
            [only] if only.repo_tags.iter().flatten().next().is_none() => Some(only),
            _ => None,
        });
        let image = found.ok_or_else(|| {
            let names = images.iter().flat_map(|image| &image.repo_tags).flatten();
            let names: Vec<String> = names.take(NAMES).map(|name| format!("'{name}'")).collect();
            let names = match names.is_empty() {
                true => "images without names".to_owned(),
                false => names.join(", "),
            };
            let path = self.path.display();
            Error::Missing(format!("'{path}' has {names}, but no image '{name}'"))
        })?;
        Ok((
            self.content(&image.config, CONFIG_BYTES)?,
            image.layers.clone(),
        ))
    }

    /// A file of the archive.
    pub(crate) fn file(&self, name: &Path) -> Result<Take<File>> {
        let mut at = name.to_path_buf();
        // Links to links are no loop before this many.
        for _ in 0..8 {
            match self.files.get(&at) {
                Some(Place::At(begin, length)) => {
                    let mut file = File::open(&self.path).map_err(on_disk("open", &self.path))?;
                    file.seek(SeekFrom::Start(*begin))
                        .map_err(on_disk("read", &self.path))?;
                    return Ok(file.take(*length));
                }
                Some(Place::Link(to)) => at.clone_from(to),
                None => break,
            }
        }
        Err(Error::Refused(format!(
            "'{}' has no file '{}'",
            self.path.display(),
            name.display()
        )))
    }

    fn content(&self, name: &Path, limit: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = self.file(name)?;
        if file.limit() > limit {
            return Err(Error::Refused(format!(
                "'{}' in '{}' is too long",
                name.display(),
                self.path.display()
            )));
        }
        file.read_to_end(&mut content)
            .map_err(on_disk("read", &self.path))?;
        Ok(content)
    }
}

/// A path with its `..` worked out; names in an archive are no directories that could be links.
fn joined(from: &Path, to: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in from.join(to).components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}
