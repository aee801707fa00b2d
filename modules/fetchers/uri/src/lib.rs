//! Fetcher `uri`: by HTTP, from files of the machine, and by other programs (`hadoop`, `curl`); with a cache.
//!
//! Mirrors `src/slave/containerizer/fetcher.cpp` and `src/launcher/fetcher.cpp`: what a URI is called in the sandbox,
//! which suffixes are unpacked, what the cache keeps. Otherwise on purpose:
//! - sources are read with the agent's rights, as in Mesos, but everything in a sandbox is done with the rights of
//!   its user and beneath it ([`sandbox`]), so that no archive, link or running parent leads out of it;
//! - the name of a file from an `http` URI is without query and fragment;
//! - a failure says what the server said.

mod bounds;
mod cache;
mod extract;
mod http;
mod sandbox;
mod source;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tepui_fetcher_base::Program;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::fetcher::Uri;

use bounds::Bounds;
use cache::{Cache, Claim, Kept};
use http::{Download, Http};
use sandbox::Sandbox;
use source::Source;

/// Settings of `uri`, named as Mesos' flags.
#[config]
pub struct Config {
    /// Where fetched files are kept for later: a directory of this agent's own is made in it, and emptied at each
    /// start. By default it lies in the work directory.
    #[serde(default)]
    fetcher_cache_dir: Option<PathBuf>,
    /// Bytes that are kept at most. What no container uses any more goes first that was used longest ago.
    #[serde(default = "two_gigabytes")]
    fetcher_cache_size: u64,
    /// Seconds without a byte after which a download is given up.
    #[serde(default = "minute")]
    fetcher_stall_timeout_secs: u64,
    /// Most bytes that one URI may have, as it is fetched.
    #[serde(default = "max_bytes")]
    max_download_bytes: u64,
    /// Most bytes that one archive may unpack to.
    #[serde(default = "max_bytes")]
    max_unpacked_bytes: u64,
    /// Most files, directories and links that one archive may have.
    #[serde(default = "max_files")]
    max_unpacked_files: u64,
    /// What relative paths in URIs are relative to.
    #[serde(default)]
    frameworks_home: Option<PathBuf>,
    /// Hadoop's directory, whose `bin/hadoop` fetches what nothing else does. By default the one that HADOOP_HOME
    /// names, else the `hadoop` of the PATH.
    #[serde(default)]
    hadoop_home: Option<PathBuf>,
    /// Scheme of a URI -> program and arguments that fetch it; `{uri}` and `{path}` in them stand for what to fetch
    /// and the file to write. They come before the ones that are there: `ftp` and `ftps` by `curl`, all else by
    /// `hadoop`.
    #[serde(default)]
    programs: BTreeMap<String, Vec<String>>,
}

fn two_gigabytes() -> u64 {
    2 << 30
}

fn max_bytes() -> u64 {
    64 << 30
}

fn max_files() -> u64 {
    4_000_000
}

fn minute() -> u64 {
    60
}

/// See the crate.
pub struct UriFetcher {
    cache: Arc<Cache>,
    http: Http,
    /// By the scheme of what they fetch.
    programs: BTreeMap<String, Program>,
    /// For any other scheme.
    hadoop: Program,
    frameworks_home: Option<PathBuf>,
    bounds: Bounds,
}

impl Module for UriFetcher {
    type Config = Config;
    const NAME: &'static str = "uri";
    const DESCRIPTION: &'static str = "files by HTTP, of this machine, and by other programs";

    fn create(config: Config, context: Context) -> Result<Self> {
        if config.fetcher_stall_timeout_secs == 0 {
            let zero = "fetcher_stall_timeout_secs: expected more than 0";
            return Err(Failure::invalid(zero).setting("fetcher_stall_timeout_secs"));
        }
        let bounds = Bounds {
            download_bytes: config.max_download_bytes,
            unpacked_bytes: config.max_unpacked_bytes,
            unpacked_files: config.max_unpacked_files,
        };
        let stall = Duration::from_secs(config.fetcher_stall_timeout_secs);
        let usual = ["ftp", "ftps"].map(|scheme| (scheme.to_owned(), Program::curl(stall)));
        let mut programs = BTreeMap::from(usual);
        for (scheme, words) in config.programs {
            let setting = format!("programs.{scheme}");
            let program = Program::new(words).map_err(|failure| failure.setting(setting))?;
            programs.insert(scheme.to_ascii_lowercase(), program);
        }
        let directory = match config.fetcher_cache_dir {
            Some(shared) => cache::own_directory(&shared, &context.work_dir()),
            None => context.state_dir().join("cache"),
        };
        Ok(Self {
            cache: Arc::new(Cache::new(directory, config.fetcher_cache_size)),
            http: Http::new(stall, bounds),
            programs,
            hadoop: Program::hadoop(config.hadoop_home.as_deref()),
            frameworks_home: config.frameworks_home,
            bounds,
        })
    }

    async fn activate(&self) -> Result<()> {
        let cache = self.cache.clone();
        blocking(move || cache.open()).await?
    }
}

impl Fetcher for UriFetcher {
    async fn fetch(&self, fetch: Fetch) -> Result<()> {
        let sandbox = Arc::new(Sandbox::open(&fetch.sandbox, fetch.user)?);
        for uri in &fetch.uris {
            let shown = tepui_fetcher_base::shown(&uri.value);
            note(&sandbox, format!("Fetching URI '{shown}'")).await?;
            match self.one(&sandbox, uri).await {
                Ok(done) => note(&sandbox, format!("Fetched '{shown}' to '{done}'")).await?,
                Err(failure) => {
                    let message = format!("Failed to fetch '{shown}': {failure}");
                    // Why the fetch failed counts, not that the disk may have no room to say so.
                    let _ = note(&sandbox, message.clone()).await;
                    return Err(Failure::new(failure.code(), message));
                }
            }
        }
        Ok(())
    }

    fn cache(&self) -> CacheUse {
        self.cache.used()
    }
}

impl UriFetcher {
    /// Brings one; answers where it is.
    async fn one(&self, sandbox: &Arc<Sandbox>, uri: &Uri) -> Result<String> {
        let name = source::name(uri)?;
        let source = Source::of(&uri.value, self.frameworks_home.as_deref())?;
        if uri.cache {
            let key = (sandbox.owner(), uri.value.clone());
            match self.kept(key, &name, &source).await? {
                Cached::Kept(kept) => {
                    return place_kept(sandbox, uri, name, kept, self.bounds).await;
                }
                Cached::Direct(found) => {
                    self.download(sandbox, uri, &name, &source, found).await?;
                }
            }
        } else {
            self.download(sandbox, uri, &name, &source, None).await?;
        }
        if uri.extract && !uri.executable && extract::is_archive(&name) {
            let (from, sandbox, bounds) = (name.clone(), sandbox.clone(), self.bounds);
            interruptible(move |stop| {
                let file = sandbox.act(|here| here.read(Path::new(&from)))?;
                extract::extract(Watched { file, stop }, &from, &sandbox, &bounds)
            })
            .await?;
        }
        Ok(sandbox.shown(Path::new(&name)))
    }

    /// Finds a file in the cache, or fetches it there. A file that does not fit, or whose size is not known before it
    /// is there, is fetched without the cache, as in Mesos.
    async fn kept(&self, key: (u32, String), name: &str, source: &Source) -> Result<Cached> {
        let mut filling = match self.cache.claim(key, name).await? {
            Claim::Kept(kept) => return Ok(Cached::Kept(kept)),
            Claim::Direct => return Ok(Cached::Direct(None)),
            Claim::Fill(filling) => filling,
        };
        let filled = match source {
            Source::File(path) => {
                let (path, to) = (path.clone(), filling.path().to_owned());
                let length = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
                self.bounds.download(length.len())?;
                if !length.is_file() || !filling.reserve(length.len()) {
                    filling.too_large();
                    return Ok(Cached::Direct(None));
                }
                interruptible(move |stop| {
                    let file = open(&path)?;
                    copy(Watched { file, stop }, &to).map(drop)
                })
                .await
            }
            Source::Http(url) => match self.http.get(url).await {
                Ok(download) => {
                    if !download
                        .length()
                        .is_some_and(|length| filling.reserve(length))
                    {
                        filling.too_large();
                        return Ok(Cached::Direct(Some(download)));
                    }
                    let to = filling.path().to_owned();
                    download.write(move || Ok(File::create(to)?)).await
                }
                Err(failure) => Err(failure),
            },
            Source::Program { scheme, uri } => {
                let fetched = self.by_program(scheme, uri, filling.path()).await;
                match fetched {
                    Ok(length) if !filling.reserve(length) => {
                        filling.too_large();
                        return Ok(Cached::Direct(None));
                    }
                    other => other.map(drop),
                }
            }
        };
        match filled {
            Ok(()) => Ok(Cached::Kept(filling.done())),
            Err(failure) => {
                filling.failed(&failure);
                Err(failure)
            }
        }
    }

    async fn by_program(&self, scheme: &str, uri: &str, to: &Path) -> Result<u64> {
        let program = self.programs.get(scheme).unwrap_or(&self.hadoop);
        let grows = |length| self.bounds.download(length);
        program.fetch(uri, to, grows).await
    }

    /// Brings a file to the sandbox without the cache.
    async fn download(
        &self,
        sandbox: &Arc<Sandbox>,
        uri: &Uri,
        name: &str,
        source: &Source,
        found: Option<Download>,
    ) -> Result<()> {
        let mode = mode(uri.executable, None);
        let (to, into) = (name.to_owned(), sandbox.clone());
        match source {
            Source::File(path) => {
                let (path, executable, bounds) = (path.clone(), uri.executable, self.bounds);
                interruptible(move |stop| {
                    let file = open(&path)?;
                    bounds.download(file.metadata()?.len())?;
                    into.place(Watched { file, stop }, Path::new(&to), executable)
                })
                .await
            }
            Source::Http(url) => {
                let download = match found {
                    Some(download) => download,
                    None => self.http.get(url).await?,
                };
                let create = move || into.act(|here| here.create(Path::new(&to), mode));
                download.write(create).await
            }
            Source::Program { scheme, uri: value } => {
                // Programs know nothing of sandboxes: they write where nobody else may.
                let aside = self.cache.aside()?;
                self.by_program(scheme, value, aside.path()).await?;
                let executable = uri.executable;
                interruptible(move |stop| {
                    let file = open(aside.path())?;
                    into.place(Watched { file, stop }, Path::new(&to), executable)
                })
                .await
            }
        }
    }
}

/// What became of a URI that may be cached.
enum Cached {
    Kept(Kept),
    /// To be fetched without the cache; a download that has begun goes on.
    Direct(Option<Download>),
}

/// Brings a file of the cache to the sandbox: unpacked, or as it is.
async fn place_kept(
    sandbox: &Arc<Sandbox>,
    uri: &Uri,
    name: String,
    kept: Kept,
    bounds: Bounds,
) -> Result<String> {
    let (executable, into) = (uri.executable, sandbox.clone());
    let extract = uri.extract && !executable && extract::is_archive(&name);
    let to = name.clone();
    interruptible(move |stop| {
        let file = open(kept.path())?;
        let watched = Watched { file, stop };
        match extract {
            true => extract::extract(watched, &to, &into, &bounds),
            false => into.place(watched, Path::new(&to), executable),
        }
    })
    .await?;
    Ok(sandbox.shown(Path::new(&name)))
}

/// Mode of a fetched file, where its source has this one.
pub(crate) fn mode(executable: bool, source: Option<u32>) -> u32 {
    match source.unwrap_or(0o644) & 0o777 {
        mode if executable => mode | 0o755,
        mode => mode,
    }
}

/// A line in the sandbox's `stderr`, where Mesos' fetcher writes, too.
async fn note(sandbox: &Arc<Sandbox>, line: String) -> Result<()> {
    let sandbox = sandbox.clone();
    blocking(move || sandbox.act(|here| here.append(Path::new("stderr"), &format!("{line}\n"))))
        .await?
}

/// Opens a file. Nothing else: a device has no end, and a FIFO no beginning.
fn open(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path);
    let file = opened.map_err(|error| unreadable(path, &error))?;
    match file.metadata() {
        Ok(found) if !found.is_file() => {
            let what = if found.is_dir() {
                "a directory"
            } else {
                "a device, a FIFO or a socket"
            };
            let message = format!("'{}' is {what}; a file is expected", path.display());
            Err(Failure::invalid(message))
        }
        _ => Ok(file),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::not_found(format!("cannot read '{}': {error}", path.display()))
}

/// Copies to a new file of the same mode, in a directory that only the agent may enter; answers the bytes.
fn copy(mut from: Watched, to: &Path) -> Result<u64> {
    let mut file = File::create(to)?;
    file.set_permissions(from.file.metadata()?.permissions())?;
    Ok(io::copy(&mut from, &mut file)?)
}

/// Runs blocking work that ends soon after its caller is gone.
async fn interruptible<T: Send + 'static>(
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T> + Send + 'static,
) -> Result<T> {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let _gone = Gone(stop.clone());
    blocking(move || work(stop)).await?
}

/// A file that cannot be read any more once nobody wants it.
pub(crate) struct Watched {
    pub(crate) file: File,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the fetch was given up"));
        }
        self.file.read(buffer)
    }
}

impl io::Seek for Watched {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
