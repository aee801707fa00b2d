//! Pulls from a registry that the test plays: broken ones, lying ones, and one that is asked at once by many. As root.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tar::{Builder, Header};
use tepui_image_content::{
    Access, Digest, Error, Progress, Pulls, Registry, Settings, Source, Store,
};

/// What a registry has, by path; and what it was asked for.
#[derive(Clone, Default)]
struct Served {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// How many answers with a layer end in the middle.
    deaths: Arc<AtomicUsize>,
    /// Whether layers can be had from some byte on.
    has_ranges: Arc<AtomicBool>,
}

impl Served {
    fn put(&self, path: &str, content: Vec<u8>) {
        self.files
            .lock()
            .unwrap()
            .insert(format!("/v2/a/b/{path}"), content);
    }

    fn blob(&self, content: Vec<u8>) -> String {
        let digest = Digest::of(&content).to_string();
        self.put(&format!("blobs/{digest}"), content);
        digest
    }

    fn asked_for(&self, digest: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|path| path.contains(digest)).count()
    }

    /// Serves on a port of its own, one thread a connection, until the test ends.
    fn start(&self) -> url::Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let served = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.answer(stream));
            }
        });
        base.parse().unwrap()
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let from = head.iter().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("range: bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let from = from.filter(|_| self.has_ranges.load(Ordering::Relaxed));
        let asked = from.map_or(path.clone(), |from| format!("{path} from {from}"));
        self.asked.lock().unwrap().push(asked);
        let found = self.files.lock().unwrap().get(&path).cloned();
        let Some(content) = found else {
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
            return;
        };
        let (all, content) = (content.len(), &content[from.unwrap_or(0)..]);
        let length = content.len();
        let status = match from {
            Some(from) => format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}",
                all - 1
            ),
            None => "200 OK".to_owned(),
        };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let one_less = |deaths: usize| deaths.checked_sub(1);
        let update = (Ordering::Relaxed, Ordering::Relaxed);
        let dies = length > 100_000
            && self
                .deaths
                .fetch_update(update.0, update.1, one_less)
                .is_ok();
        let sent = if dies { length / 2 } else { length };
        let _ = stream.write_all(&content[..sent]);
    }
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

/// Content that does not become small when it is compressed.
fn noise(length: u32) -> Vec<u8> {
    let mut state = 1u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

fn zstd(layer: &[u8]) -> Vec<u8> {
    zstd::encode_all(layer, 1).unwrap()
}

fn gzip(layer: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(layer).unwrap();
    encoder.finish().unwrap()
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of layers, each as it is and as it is sent; answers its manifest.
fn image(served: &Served, layers: &[(&[u8], Vec<u8>)]) -> serde_json::Value {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(plain, _)| Digest::of(plain).to_string())
        .collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = config.to_string().into_bytes();
    let size = config.len();
    let descriptors = layers.iter().map(|(_, sent)| {
        let digest = served.blob(sent.clone());
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": sent.len() })
    });
    let layers: Vec<_> = descriptors.collect();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": served.blob(config), "size": size },
    })
}

fn store(at: &Path) -> Arc<Store> {
    let settings = Settings {
        dir: at.to_owned(),
        max_image_bytes: 4 << 20,
        max_image_files: 1000,
    };
    Arc::new(Store::open(settings).unwrap())
}

fn source(base: &url::Url, which: &str) -> Source {
    let access = Access {
        stall: Duration::from_secs(20),
        ..Access::default()
    };
    let registry = Registry::new(
        (access.client().unwrap(), access.stall),
        base.clone(),
        "a/b".to_owned(),
        None,
    );
    Source::Registry(Box::new(registry), which.to_owned())
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("NOT RUN: needs root");
    }
    is_root
}

fn count(at: &Path, dir: &str) -> usize {
    std::fs::read_dir(at.join(dir)).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_dies_in_the_middle_leaves_nothing_and_the_next_pull_succeeds() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let served = Served::default();
    let (small, large) = (layer("small", b"s"), layer("large", &noise(1 << 20)));
    let manifest = image(&served, &[(&small, gzip(&small)), (&large, zstd(&large))]);
    served.put("manifests/1", manifest.to_string().into_bytes());
    let base = served.start();
    let opened = store(at.path());
    served.deaths.store(usize::MAX, Ordering::Relaxed);
    let failed = opened
        .pull("a/b:1", &source(&base, "1"), &Progress::default())
        .await
        .unwrap_err();
    assert!(matches!(failed, Error::Unavailable(_)), "{failed:?}");
    let said = failed.to_string();
    assert!(said.contains("tries to go on failed"), "{said}");
    // At most the small layer is there, and complete.
    assert!(count(at.path(), "layers") <= 1);
    assert_eq!(
        (count(at.path(), "staging"), count(at.path(), "images")),
        (0, 0)
    );
    assert_eq!(opened.find("a/b:1"), None);
    served.deaths.store(0, Ordering::Relaxed);
    let image = opened
        .pull("a/b:1", &source(&base, "1"), &Progress::default())
        .await
        .unwrap();
    let content = std::fs::read(opened.layer(&image.layers[1]).join("large")).unwrap();
    assert_eq!(content, noise(1 << 20));
    assert_eq!(opened.find("a/b:1"), Some(image));
    // What an agent that was killed in between has left goes when the store is opened again; the rest stays.
    std::fs::create_dir(at.path().join("staging/half")).unwrap();
    let again = store(at.path());
    assert_eq!(
        (count(at.path(), "staging"), count(at.path(), "layers")),
        (0, 2)
    );
    assert!(again.find("a/b:1").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    if !is_root() {
        return;
    }
    for has_ranges in [true, false] {
        let at = tempfile::tempdir().unwrap();
        let served = Served::default();
        let large = layer("large", &noise(1 << 20));
        let digest = Digest::of(&large).to_string();
        let manifest = image(&served, &[(&large, large.clone())]);
        served.put("manifests/1", manifest.to_string().into_bytes());
        served.has_ranges.store(has_ranges, Ordering::Relaxed);
        // The first two answers end in the middle of what they have.
        let deaths = if has_ranges { 2 } else { 1 };
        served.deaths.store(deaths, Ordering::Relaxed);
        let base = served.start();
        let store = store(at.path());
        let progress = Progress::default();
        let pulled = store.pull("a/b:1", &source(&base, "1"), &progress).await;
        let content = std::fs::read(store.layer(&pulled.unwrap().layers[0]).join("large"));
        assert_eq!(content.unwrap(), noise(1 << 20));
        assert_eq!(progress.to_string(), "1.0 of 1.0 MiB, 1 of 1 layers");
        let asked = served.asked.lock().unwrap();
        let asked: Vec<&str> = asked
            .iter()
            .filter_map(|path| path.split_once(&*digest))
            .map(|(_, from)| from)
            .collect();
        let (half, rest) = (large.len() / 2, large.len().div_ceil(2) / 2);
        let expected = match has_ranges {
            true => vec![
                String::new(),
                format!(" from {half}"),
                format!(" from {}", half + rest),
            ],
            false => vec![String::new(), String::new()],
        };
        assert_eq!(asked, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_one_image_pull_it_once_and_images_share_layers() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let served = Served::default();
    let (shared, own) = (layer("shared", &noise(200_000)), layer("own", b"x"));
    let digest = Digest::of(&shared).to_string();
    let first = image(&served, &[(&shared, shared.clone())]);
    let second = image(&served, &[(&shared, shared.clone()), (&own, own.clone())]);
    served.put("manifests/1", first.to_string().into_bytes());
    let second = second.to_string().into_bytes();
    // The second is found by an index, for this machine.
    let by_digest = Digest::of(&second).to_string();
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let entry = |digest: &str, size: usize, os: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": size, "platform": { "os": os, "architecture": arch } });
    let other = format!("sha256:{}", "0".repeat(64));
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&other, 1, "windows"), entry(&by_digest, second.len(), "linux")] });
    served.put(&format!("manifests/{by_digest}"), second);
    served.put("manifests/2", index.to_string().into_bytes());
    let base = served.start();
    let store = store(at.path());
    let pulls = Pulls::default();
    let pull = |which: &'static str| {
        let (store, base, pulls) = (store.clone(), base.clone(), pulls.clone());
        async move {
            let pull = |progress: Arc<Progress>| async move {
                store.pull(which, &source(&base, which), &progress).await
            };
            pulls.join(which.to_owned(), pull, |_| {}).await
        }
    };
    let all = futures::future::join_all(["1", "1", "2", "1", "2"].map(pull)).await;
    let layers: Vec<usize> = all
        .into_iter()
        .map(|image| image.unwrap().layers.len())
        .collect();
    assert_eq!(layers, [1, 1, 2, 1, 2]);
    assert_eq!(
        (
            served.asked_for("manifests/1"),
            served.asked_for("manifests/2")
        ),
        (1, 1)
    );
    assert_eq!(served.asked_for(&digest), 1);

    // Of images that go, layers of others stay, and those that containers use.
    let keep = ["1".to_owned()].into();
    let would = store.prune(&keep, &[], true).await.unwrap();
    assert_eq!(
        (would.images.as_slice(), would.layers.len()),
        (&["2".to_owned()][..], 1)
    );
    assert_eq!(count(at.path(), "layers"), 2);
    let in_use = vec![would.layers[0].clone()];
    assert_eq!(
        store
            .prune(&keep, &in_use, false)
            .await
            .unwrap()
            .layers
            .len(),
        0
    );
    assert!(store.find("2").is_none() && store.find("1").is_some());
    assert_eq!(
        store.prune(&keep, &[], false).await.unwrap().layers,
        would.layers
    );
    assert_eq!(
        (count(at.path(), "layers"), count(at.path(), "staging")),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_what_they_say_are_refused() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let served = Served::default();
    let plain = layer("a", b"x");
    let other = layer("b", b"y");
    let good = image(&served, &[(&plain, plain.clone())]);
    let change = |pointer: &str, value: serde_json::Value| {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        manifest
    };
    let digest = |content: &[u8]| json!(Digest::of(content).to_string());
    // Content that was exchanged under its digest.
    let lying = format!("sha256:{}", "1".repeat(64));
    served.put(&format!("blobs/{lying}"), plain.clone());
    let chart = json!({ "name": "chart", "rootfs": {} })
        .to_string()
        .into_bytes();
    let descriptor = json!({ "mediaType": "application/vnd.cncf.helm.config.v1+json", "size": chart.len(),
        "digest": served.blob(chart) });
    let (bomb, large) = (layer("bomb", &vec![0; 8 << 20]), "9".repeat(5 << 20));
    let layers = vec![good["layers"][0].clone(); 300];
    let cases = [
        (
            "lying",
            change("/layers/0/digest", json!(lying)),
            "is not what it says",
        ),
        (
            "size",
            change("/layers/0/size", json!(plain.len() - 1)),
            "has not the",
        ),
        (
            "config",
            change("/config/digest", json!(lying)),
            "was asked for",
        ),
        (
            "diff",
            image(&served, &[(&other, plain.clone())]),
            "the image's configuration says",
        ),
        (
            "number",
            change("/layers", json!([])),
            "names 0 layers and its configuration 1",
        ),
        ("many", change("/layers", json!(layers)), "has 300 layers"),
        (
            "no-digest",
            change("/layers/0/digest", json!("../../etc/passwd")),
            "cannot be read",
        ),
        (
            "md5",
            change("/layers/0/digest", json!(format!("md5:{}", "0".repeat(32)))),
            "is no digest",
        ),
        (
            "huge",
            change("/config/size", json!(1u64 << 40)),
            "more than",
        ),
        (
            "negative",
            change("/layers/0/size", json!(-1)),
            "cannot be read",
        ),
        (
            "old",
            change("/schemaVersion", json!(1)),
            "schema version 1",
        ),
        (
            "foreign",
            change(
                "/layers/0/mediaType",
                json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            ),
            "is not distributed with the image",
        ),
        (
            // Registries have other things than images, such as charts.
            "artifact",
            change("/config", descriptor),
            "names 1 layers and its configuration 0",
        ),
        (
            "bomb",
            image(&served, &[(&bomb, gzip(&bomb))]),
            "max_image_bytes",
        ),
        ("array", json!(["x"]), "cannot be read"),
        (
            "config-type",
            change("/config/digest", digest(&plain)),
            "cannot be read",
        ),
    ];
    for (tag, manifest, _) in &cases {
        served.put(
            &format!("manifests/{tag}"),
            manifest.to_string().into_bytes(),
        );
    }
    served.blob(plain.clone());
    served.put("manifests/long", large.into_bytes());
    let wanted = Digest::of(b"something else").to_string();
    served.put(
        &format!("manifests/{wanted}"),
        good.to_string().into_bytes(),
    );
    let base = served.start();
    let store = store(at.path());
    let more = [
        ("long", "with more than"),
        (wanted.as_str(), "was asked for"),
    ];
    let all = cases
        .iter()
        .map(|(tag, _, words)| (*tag, *words))
        .chain(more);
    for (tag, words) in all {
        match store
            .pull(tag, &source(&base, tag), &Progress::default())
            .await
        {
            Err(Error::Refused(said)) => assert!(said.contains(words), "{tag}: {said}"),
            result => panic!("{tag}: {result:?}"),
        }
        assert_eq!(
            (count(at.path(), "staging"), count(at.path(), "images")),
            (0, 0),
            "{tag}"
        );
    }
    let missing = store
        .pull("missing", &source(&base, "missing"), &Progress::default())
        .await;
    assert!(matches!(missing, Err(Error::Missing(_))), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_have_the_images_that_they_name() {
    if !is_root() {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let plain = layer("a", b"x");
    let config = json!({ "rootfs": { "diff_ids": [Digest::of(&plain).to_string()] } }).to_string();
    let archive = |file: &str, names: &[serde_json::Value]| {
        let images: Vec<_> = names
            .iter()
            .map(|names| json!({ "Config": "c.json", "RepoTags": names, "Layers": ["l.tar"] }))
            .collect();
        let manifest = json!(images).to_string();
        let mut builder = Builder::new(Vec::new());
        let parts = [
            ("manifest.json", manifest.as_bytes()),
            ("c.json", config.as_bytes()),
            ("l.tar", &plain),
        ];
        for (name, content) in parts {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        }
        let path = at.path().join(file);
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        path
    };
    let own = archive("own", &[json!(["box:1"])]);
    let long = archive(
        "long",
        &[json!(["docker.io/library/box:1", "localhost/box:2"])],
    );
    let nameless = [
        archive("null", &[json!(null)]),
        archive("none", &[json!([])]),
    ];
    let two = archive("two", &[json!(null), json!(["other:1"])]);
    let store = store(&at.path().join("store"));
    let pull = async |archive: &Path, name: &str| {
        let source = Source::Archive(archive.to_owned(), name.to_owned());
        let pulled = store.pull(name, &source, &Progress::default()).await;
        pulled.map(drop).map_err(|error| match error {
            Error::Missing(said) => said,
            other => panic!("{name}: {other:?}"),
        })
    };
    for archive in [&own, &long, &nameless[0], &nameless[1]] {
        assert_eq!(pull(archive, "box:1").await, Ok(()), "{archive:?}");
    }
    assert_eq!(pull(&long, "box:2").await, Ok(()));
    let said = pull(&own, "box:2").await.unwrap_err();
    assert!(
        said.ends_with("own' has 'box:1', but no image 'box:2'"),
        "{said}"
    );
    for (archive, name) in [(&own, "x:1"), (&long, "ox:1"), (&two, "box:1")] {
        let said = pull(archive, name).await.unwrap_err();
        assert!(said.contains(&format!("but no image '{name}'")), "{said}");
    }
}
