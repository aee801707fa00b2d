//! The module through the host's client: sources, the cache, archives good and bad, and what failures say.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tepui_fetcher_uri::UriFetcher;
use tepui_host::config::ModuleConfig;
use tepui_host::kinds::fetcher::FetcherClient;
use tepui_host::{HostSettings, ModuleHost};
use tepui_module_proto::fetcher::{FetchRequest, Uri, User};

#[test]
fn conformance() {
    let root = tepui_module_sdk::linked!(fetcher: UriFetcher);
    tepui_module_conformance::check(root, "uri", "");
}

/// A fetcher, its directories, and a server.
struct Bench {
    at: tempfile::TempDir,
    host: ModuleHost,
    client: FetcherClient,
}

impl Bench {
    fn new(settings: Value) -> Self {
        let at = tempfile::tempdir().unwrap();
        let mut config = ModuleConfig::default();
        let Value::Object(settings) = settings else {
            panic!("settings are a table");
        };
        config.settings.insert("uri".to_owned(), settings);
        let mut own = HostSettings::new("agent", config);
        own.work_dir = Some(at.path().join("work"));
        own.runtime_dir = Some(at.path().join("run"));
        let host = ModuleHost::new(own);
        host.link(tepui_module_sdk::linked!(fetcher: UriFetcher));
        let client = FetcherClient::new(host.load("fetcher", "uri").unwrap());
        Self { at, host, client }
    }

    fn sandbox(&self, name: &str) -> PathBuf {
        let path = self.at.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    async fn fetch(&self, name: &str, uris: Vec<Uri>) -> Result<PathBuf, String> {
        self.fetch_as(name, uris, None).await
    }

    async fn fetch_as(
        &self,
        name: &str,
        uris: Vec<Uri>,
        user: Option<User>,
    ) -> Result<PathBuf, String> {
        let sandbox = self.sandbox(name);
        let request = FetchRequest {
            container: name.to_owned(),
            sandbox: sandbox.display().to_string(),
            uris,
            user,
        };
        let fetched = self.client.fetch(&request).await;
        fetched.map(|()| sandbox).map_err(|error| error.to_string())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.host.release();
    }
}

fn uri(value: impl Into<String>) -> Uri {
    Uri {
        value: value.into(),
        extract: true,
        ..Uri::default()
    }
}

fn cached(value: impl Into<String>) -> Uri {
    Uri {
        cache: true,
        ..uri(value)
    }
}

fn read(sandbox: &Path, name: &str) -> String {
    fs::read_to_string(sandbox.join(name)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// How a path is answered: the bytes of the whole answer, and whether the connection then stays open.
type Answers = BTreeMap<&'static str, (Vec<u8>, bool)>;

/// A server that notes which paths were asked for.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let path = request(&stream);
                let (answer, stays) = answers
                    .get(&*path)
                    .cloned()
                    .unwrap_or_else(|| (ok(b"?"), false));
                noted.lock().unwrap().push(path);
                let _ = (&stream).write_all(&answer);
                if stays {
                    open.push(stream);
                }
            }
        });
        Self { address, asked }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    fn count(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| *one == path).count()
    }
}

fn request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    for line in lines {
        if line.unwrap().is_empty() {
            break;
        }
    }
    first.split(' ').nth(1).unwrap().to_owned()
}

fn answer(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer(
        "200 OK",
        &format!("Content-Length: {}\r\n", body.len()),
        body,
    )
}

#[tokio::test]
async fn files_come_from_where_they_are_said_to_be() {
    let server = Server::start(Answers::from([
        (
            "/old",
            (
                answer(
                    "302 Found",
                    "Location: /new?a=b\r\nContent-Length: 0\r\n",
                    b"",
                ),
                false,
            ),
        ),
        ("/new?a=b", (ok(b"by http"), false)),
    ]));
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("own"), "of the home").unwrap();
    fs::set_permissions(home.path().join("own"), fs::Permissions::from_mode(0o640)).unwrap();
    let program = ["sh", "-c", "echo \"$0\" > \"$1\"", "{uri}", "{path}"];
    let bench = Bench::new(json!({
        "frameworks_home": home.path(),
        "programs": {"acme": program},
    }));
    let plain = format!("file://{}", home.path().join("own").display());
    let program = Uri {
        executable: true,
        output_file: "bin/it.tar".to_owned(),
        ..uri("acme://x/y")
    };
    let all = vec![uri(server.at("/old")), uri("own"), program, cached(plain)];
    let sandbox = bench.fetch("s", all).await.unwrap();
    assert_eq!(read(&sandbox, "old"), "by http");
    assert_eq!(read(&sandbox, "own"), "of the home");
    assert_eq!(read(&sandbox, "bin/it.tar"), "acme://x/y\n");
    let mode = |name: &str| fs::metadata(sandbox.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("old"), mode("bin/it.tar")), (0o644, 0o755));
    let said = read(&sandbox, "stderr");
    assert!(
        said.contains("Fetching URI 'own'\nFetched 'own' to '"),
        "{said}"
    );
}

#[tokio::test]
async fn failures_keep_what_the_server_said() {
    let cut = "Content-Length: 100\r\n";
    let server = Server::start(Answers::from([
        (
            "/none",
            (
                answer(
                    "404 Not Found",
                    "Content-Length: 18\r\n",
                    b"no such\nartifact: x",
                ),
                false,
            ),
        ),
        ("/cut", (answer("200 OK", cut, b"half"), false)),
        ("/slow", (answer("200 OK", cut, b"half"), true)),
    ]));
    let bench = Bench::new(json!({"fetcher_stall_timeout_secs": 1, "hadoop_home": "/no/hadoop"}));
    for (value, words) in [
        (server.at("/none"), "404 Not Found: no such artifact:"),
        (server.at("/slow"), "no byte came for 1 seconds"),
        (server.at("/cut"), "Failed to fetch"),
        ("http://127.0.0.1:1/x".to_owned(), "Connection refused"),
        ("/no/such/file".to_owned(), "No such file"),
        ("hdfs://n/x".to_owned(), "/no/hadoop/bin/hadoop"),
        ("http://u:secret@127.0.0.1:1/x".to_owned(), "u:***@"),
    ] {
        for one in [uri(value.clone()), cached(value.clone())] {
            let error = bench.fetch("s", vec![one]).await.unwrap_err();
            assert!(
                error.contains(words) && !error.contains("secret"),
                "{error}"
            );
        }
    }
    assert_eq!(bench.client.cache().unwrap().used_bytes, 0);
    let kept = bench.at.path().join("work");
    let left = walk(&kept).into_iter().filter(|path| path.is_file());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

#[tokio::test]
async fn one_download_serves_all_who_want_it() {
    let server = Server::start(Answers::from([
        ("/a", (ok(&[b'a'; 600]), false)),
        ("/b", (ok(&[b'b'; 600]), false)),
        ("/large", (ok(&[b'l'; 1200]), false)),
        ("/unknown", (answer("200 OK", "", b"until the end"), false)),
    ]));
    let bench = Bench::new(json!({"fetcher_cache_size": 1000}));
    let wanted = ["s1", "s2", "s3"].map(|name| bench.fetch(name, vec![cached(server.at("/a"))]));
    let [one, two, three] = wanted;
    let (one, two, three) = tokio::join!(one, two, three);
    for sandbox in [one, two, three] {
        assert_eq!(read(&sandbox.unwrap(), "a").len(), 600);
    }
    assert_eq!(server.count("/a"), 1);
    assert_eq!(bench.client.cache().unwrap().used_bytes, 600);
    // The next one takes its place.
    bench
        .fetch("s4", vec![cached(server.at("/b"))])
        .await
        .unwrap();
    bench
        .fetch("s5", vec![cached(server.at("/a"))])
        .await
        .unwrap();
    assert_eq!((server.count("/a"), server.count("/b")), (2, 1));
    for path in ["/large", "/unknown"] {
        let sandbox = bench
            .fetch("s6", vec![cached(server.at(path))])
            .await
            .unwrap();
        assert!(!read(&sandbox, &path[1..]).is_empty());
        assert_eq!(
            server.count(path),
            1,
            "what cannot be kept is not asked for twice"
        );
    }
    assert_eq!(bench.client.cache().unwrap().used_bytes, 600);
}

/// A tar archive of these entries; file contents are the paths.
fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        // Set by hand: the crate refuses to write what has to be refused here.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        let body = match kind {
            tar::EntryType::Regular => path.as_bytes(),
            _ => b"",
        };
        header.set_size(body.len() as u64);
        header.set_cksum();
        archive.append(&header, body).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn archives_are_unpacked_by_their_suffix() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let bench = Bench::new(json!({}));
    let at = bench.sandbox("archives");
    let plain = tar(&[
        ("./lib64/", Directory, ""),
        ("lib", Symlink, "lib64"),
        ("lib/a", Regular, ""),
        ("b", Link, "lib64/a"),
        ("cert", Symlink, "/etc/ssl"),
        ("n\u{e9}", Regular, ""),
    ]);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&plain).unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.add_directory("lib", options).unwrap();
    zip.start_file("lib/a", options).unwrap();
    zip.write_all(b"lib/a").unwrap();
    zip.add_symlink("b", "lib/a", options).unwrap();
    for (name, bytes) in [
        ("x.tar", plain.clone()),
        ("x.tgz", gzip(&plain)),
        ("x.tbz2", bzip2.finish().unwrap()),
        ("x.tar.xz", xz.finish().unwrap()),
        ("x.zip", zip.finish().unwrap().into_inner()),
    ] {
        fs::write(at.join(name), bytes).unwrap();
        for keep in [false, true] {
            let mut one = uri(at.join(name).display().to_string());
            one.cache = keep;
            let sandbox = bench
                .fetch(&format!("{name}-{keep}"), vec![one])
                .await
                .unwrap();
            assert_eq!(read(&sandbox, "lib/a"), "lib/a", "{name}");
            assert_eq!(read(&sandbox, "b"), "lib/a", "{name}");
            assert_eq!(
                sandbox.join(name).exists(),
                !keep,
                "{name} stays unless cached"
            );
            let mode = fs::metadata(sandbox.join("lib/a")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o755, "{name}: set-id bits are dropped");
        }
    }
    fs::write(at.join("one.gz"), gzip(b"text")).unwrap();
    let gz = at.join("one.gz").display().to_string();
    let as_it_is = Uri {
        extract: false,
        output_file: "kept.gz".to_owned(),
        ..uri(gz.clone())
    };
    let sandbox = bench.fetch("gz", vec![uri(gz), as_it_is]).await.unwrap();
    assert_eq!(read(&sandbox, "one"), "text");
    assert_eq!(names(&sandbox), ["kept.gz", "one", "one.gz", "stderr"]);
}

#[tokio::test]
async fn nothing_leads_out_of_a_sandbox() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let bench = Bench::new(json!({}));
    let at = bench.sandbox("archives");
    let outside = bench.sandbox("outside");
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.display().to_string();
    let secret = outside.join("secret").display().to_string();
    let hostile: [&[(&str, tar::EntryType, &str)]; 7] = [
        &[("../outside/new", Regular, "")],
        &[("a", Symlink, &out), ("a/new", Regular, "")],
        &[("a", Symlink, ".."), ("a/outside/new", Regular, "")],
        &[("a", Link, "../outside/secret")],
        &[
            ("a", Symlink, &secret),
            ("b", Link, "a"),
            ("b", Regular, ""),
            ("c", Char, ""),
        ],
        &[("a", Char, "")],
        &[("a", Fifo, "")],
    ];
    for (number, entries) in hostile.iter().enumerate() {
        fs::write(at.join("x.tar"), tar(entries)).unwrap();
        let value = at.join("x.tar").display().to_string();
        let error = bench
            .fetch(&format!("s{number}"), vec![uri(value)])
            .await
            .unwrap_err();
        assert!(error.contains("Failed to extract 'x.tar'"), "{error}");
    }
    // An absolute path means one in the sandbox, as `tar` has it.
    fs::write(at.join("x.tar"), tar(&[("/etc/x", Regular, "")])).unwrap();
    let value = at.join("x.tar").display().to_string();
    let sandbox = bench
        .fetch("absolute", vec![uri(value.clone())])
        .await
        .unwrap();
    assert_eq!(read(&sandbox, "etc/x"), "/etc/x");
    // A link that is already there.
    let sandbox = bench.sandbox("linked");
    symlink(&outside, sandbox.join("dir")).unwrap();
    symlink(outside.join("secret"), sandbox.join("file")).unwrap();
    let named = |output_file: &str| Uri {
        output_file: output_file.to_owned(),
        extract: false,
        ..uri(value.clone())
    };
    bench
        .fetch("linked", vec![named("dir/new")])
        .await
        .unwrap_err();
    bench.fetch("linked", vec![named("file")]).await.unwrap();
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(read(&outside, "secret"), "secret");
}

/// Needs root; `cargo xtask test` says so where it is missing.
#[tokio::test]
async fn what_is_fetched_belongs_to_the_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: only root can act as another user");
        return;
    }
    let bench = Bench::new(json!({}));
    let at = bench.sandbox("archives");
    fs::write(
        at.join("x.tar"),
        tar(&[("d/a", tar::EntryType::Regular, "")]),
    )
    .unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
    let user = User {
        uid: 65534,
        gid: 65534,
    };
    let sandbox = bench.sandbox("s");
    let value = at.join("x.tar").display().to_string();
    // Not the user's own: nothing can be written there.
    fs::set_permissions(&sandbox, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = bench
        .fetch_as("s", vec![uri(value.clone())], Some(user))
        .await;
    assert!(refused.unwrap_err().contains("denied"));
    std::os::unix::fs::chown(&sandbox, Some(65534), Some(65534)).unwrap();
    bench
        .fetch_as("s", vec![cached(value.clone()), uri(value)], Some(user))
        .await
        .unwrap();
    for path in walk(&sandbox) {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (found.uid(), found.gid()),
            (65534, 65534),
            "{}",
            path.display()
        );
    }
    assert_eq!(names(&sandbox), ["d", "stderr", "x.tar"]);
}

#[tokio::test]
async fn a_fetch_that_is_given_up_leaves_nothing() {
    let half = answer("200 OK", "Content-Length: 100\r\n", b"half");
    let server = Server::start(Answers::from([("/slow", (half, true))]));
    let at = tempfile::tempdir().unwrap();
    let pid = at.path().join("pid");
    let text = format!(
        "echo > \"$0\"; echo $$ > {}; sleep 1000; : \"$1\"",
        pid.display()
    );
    let slow = ["sh", "-c", &text, "{path}", "{uri}"];
    let bench = Bench::new(json!({"programs": {"slow": slow}}));
    for value in [server.at("/slow"), "slow://x/y".to_owned()] {
        let fetch = bench.fetch("s", vec![cached(value)]);
        let given_up = tokio::time::timeout(Duration::from_millis(500), fetch).await;
        assert!(given_up.is_err(), "it answers although nothing came");
    }
    let pid: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    // The next fetch of the container waits until the last has ended.
    bench.fetch("s", Vec::new()).await.unwrap();
    assert_eq!(bench.client.cache().unwrap().used_bytes, 0);
    let left = walk(&bench.at.path().join("work"));
    assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    // The child of the shell was in its group and went with it.
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while !gone() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_by_the_name_of_the_bound() {
    use tar::EntryType::{Directory, Regular};
    let large = vec![b'x'; 4000];
    let endless = answer("200 OK", "", &large);
    let server = Server::start(Answers::from([
        ("/large", (ok(&large), false)),
        ("/endless", (endless, false)),
    ]));
    let write = [
        "sh",
        "-c",
        "head -c 4000 /dev/zero > \"$1\"",
        "{uri}",
        "{path}",
    ];
    let bench = Bench::new(json!({
        "max_download_bytes": 3000, "max_unpacked_bytes": 5000, "max_unpacked_files": 3,
        "programs": {"acme": write},
    }));
    let at = bench.sandbox("sources");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(at.join(name), bytes).unwrap();
        at.join(name).display().to_string()
    };
    let mut sparse = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6000);
    header.set_mode(0o644);
    sparse
        .append_data(&mut header, "zeros", &[0; 6000][..])
        .unwrap();
    let bomb = gzip(&sparse.into_inner().unwrap());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("zeros", options).unwrap();
    zip.write_all(&[0; 6000]).unwrap();
    let many = ["a/", "b/", "c/", "d/"].map(|name| (name, Directory, ""));
    for (value, bound) in [
        (server.at("/large"), "max_download_bytes"),
        (server.at("/endless"), "max_download_bytes"),
        (put("large", &large), "max_download_bytes"),
        ("acme://x/large".to_owned(), "max_download_bytes"),
        (put("bomb.gz", &gzip(&[0; 6000])), "max_unpacked_bytes"),
        (put("bomb.tgz", &bomb), "max_unpacked_bytes"),
        (
            put("bomb.zip", &zip.finish().unwrap().into_inner()),
            "max_unpacked_bytes",
        ),
        (put("many.tgz", &gzip(&tar(&many))), "max_unpacked_files"),
    ] {
        for one in [uri(value.clone()), cached(value.clone())] {
            let error = bench.fetch("s", vec![one]).await.unwrap_err();
            assert!(error.contains(bound), "{value}: {error}");
        }
    }
    // What is within the bounds goes on to be brought.
    let fits = put("fits.tgz", &gzip(&tar(&[("f", Regular, "")])));
    let sandbox = bench.fetch("fits", vec![uri(fits)]).await.unwrap();
    assert_eq!(read(&sandbox, "f"), "f");
}

/// Needs root; `cargo xtask test` says so where it is missing.
#[tokio::test]
async fn a_disk_that_is_full_is_named_and_keeps_nothing_in_the_cache() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: only root can mount a small disk");
        return;
    }
    let disk = Disk::mount();
    let server = Server::start(Answers::from([("/large", (ok(&vec![1; 3 << 20]), false))]));
    let work = disk.0.path().join("work");
    fs::create_dir(&work).unwrap();
    let bench = Bench::new(json!({"fetcher_cache_dir": work}));
    for one in [uri(server.at("/large")), cached(server.at("/large"))] {
        let is_cached = one.cache;
        let sandbox = match is_cached {
            // The cache is on the small disk, the sandbox is not.
            true => "s".to_owned(),
            false => disk.0.path().join("sandbox").display().to_string(),
        };
        let error = bench.fetch(&sandbox, vec![one]).await.unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
        let _ = fs::remove_dir_all(disk.0.path().join("sandbox"));
    }
    let left = walk(&work).into_iter().filter(|path| path.is_file());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// A disk of two megabytes.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Self {
        let at = tempfile::tempdir().unwrap();
        let options = Some("size=2m");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at.path(), Some("tmpfs"), none, options).unwrap();
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
