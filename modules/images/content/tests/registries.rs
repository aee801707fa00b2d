//! Registries that behave as real ones do on bad days, and as hostile ones might. As root.

mod played;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use played::{Mood, Reply, Request, Server, good, layer, manifest, other_layer, reply, whole};
use serde_json::{Value, json};
use tepui_image_content::{
    Access, Credential, Digest, DockerConfig, Error, Image, Progress, Reference, Registries,
    Registry, Settings, Source, Store,
};

struct Pulled {
    at: tempfile::TempDir,
    result: Result<Image, Error>,
}

fn store(at: &std::path::Path) -> Store {
    let settings = Settings {
        dir: at.to_owned(),
        max_image_bytes: 1 << 20,
        max_image_files: 100,
    };
    Store::open(settings).unwrap()
}

async fn pull(base: &str, credential: Option<Credential>, stall: Duration) -> Pulled {
    let at = tempfile::tempdir().unwrap();
    let access = Access {
        stall,
        ..Access::default()
    };
    let client = access.client().unwrap();
    let base = base.parse().unwrap();
    let registry = Registry::new((client, stall), base, "a/b".to_owned(), credential);
    let source = Source::Registry(Box::new(registry), "1".to_owned());
    let result = store(at.path())
        .pull("a/b:1", &source, &Progress::default())
        .await;
    Pulled { at, result }
}

impl Pulled {
    /// Nothing is left on its way; layers are there only of what was pulled.
    fn check_clean(&self, what: &str) {
        let count = |dir: &str| std::fs::read_dir(self.at.path().join(dir)).unwrap().count();
        assert_eq!(count("staging"), 0, "{what}");
        let kept = usize::from(self.result.is_ok());
        assert_eq!((count("layers"), count("images")), (kept, kept), "{what}");
    }
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("NOT RUN: needs root");
    }
    is_root
}

/// A registry that asks for a token, which is good for so many requests.
fn with_tokens(good_for: usize) -> Mood {
    let left = Mutex::new((0, 0));
    Box::new(move |request, _, own| {
        let mut left = left.lock().unwrap();
        if request.is_for("/token") {
            *left = (left.0 + 1, good_for);
            let body = json!({ "token": format!("t{}", left.0) }).to_string();
            return whole("200 OK", "", body.as_bytes());
        }
        if left.1 > 0 && request.authorization() == format!("Bearer t{}", left.0) {
            left.1 -= 1;
            return None;
        }
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{own}/token\",service=\"s\"\r\n");
        whole("401 Unauthorized", &challenge, b"log in")
    })
}

/// What a mood comes to: the words of the failure, or none.
type Case = (
    &'static str,
    Mood,
    Option<(fn(&Error) -> bool, &'static str)>,
);

const REFUSED: fn(&Error) -> bool = |error| matches!(error, Error::Refused(_));
const MISSING: fn(&Error) -> bool = |error| matches!(error, Error::Missing(_));
const UNAVAILABLE: fn(&Error) -> bool = |error| matches!(error, Error::Unavailable(_));

/// Answers with this in the place of a part of what there is, the first times that it is asked for.
fn instead(part: &'static str, times: usize, with: fn(&str) -> Option<Reply>) -> Mood {
    Box::new(move |request, before, own| {
        (request.is_for(part) && before < times).then(|| with(own).unwrap())
    })
}

const ALWAYS: usize = usize::MAX;

/// Servers that let wait, or want to know who asks.
fn moody_servers() -> Vec<Case> {
    vec![
        ("well", Box::new(|_, _, _| None), None),
        ("tokens that expire", with_tokens(1), None),
        (
            "never content",
            with_tokens(0),
            Some((MISSING, "answers 401 Unauthorized")),
        ),
        (
            "too many, twice",
            instead("blobs", 2, |_| {
                whole("429 Too Many Requests", "Retry-After: 0\r\n", b"")
            }),
            None,
        ),
        (
            "too many for an hour",
            instead("manifests", ALWAYS, |_| {
                whole("429 Too Many Requests", "Retry-After: 3600\r\n", b"quota")
            }),
            Some((UNAVAILABLE, "(to be asked again after 3600 seconds): quota")),
        ),
        (
            "busy, once",
            instead("manifests", 1, |_| {
                whole("503 Service Unavailable", "", b"")
            }),
            None,
        ),
        (
            "broken for ever",
            instead("manifests", ALWAYS, |_| {
                whole(
                    "500 Internal Server Error",
                    "Retry-After: 0\r\n",
                    b"a trace",
                )
            }),
            Some((
                UNAVAILABLE,
                "answers 500 Internal Server Error to manifests/1 of 'a/b': a trace",
            )),
        ),
        (
            "a busy server of tokens",
            Box::new({
                let tokens = with_tokens(9);
                move |request, before, own| match request.is_for("/token") && before == 0 {
                    true => whole("502 Bad Gateway", "Retry-After: 0\r\n", b""),
                    false => tokens(request, before, own),
                }
            }),
            None,
        ),
        (
            "tokens that are none",
            instead("", ALWAYS, |own| {
                let challenge =
                    format!("WWW-Authenticate: Bearer realm=\"{own}/v2/a/b/manifests/1\"\r\n");
                whole("401 Unauthorized", &challenge, b"<html>")
            }),
            Some((MISSING, "answers 401")),
        ),
        (
            "no realm",
            instead("", ALWAYS, |_| {
                whole(
                    "401 Unauthorized",
                    "WWW-Authenticate: Bearer service=\"s\"\r\n",
                    b"",
                )
            }),
            Some((REFUSED, "names no server of tokens: no realm")),
        ),
    ]
}

/// A manifest with something changed in it.
fn with_changed(pointer: &str, value: Value) -> Mood {
    let mut changed = manifest();
    *changed.pointer_mut(pointer).unwrap() = value;
    let text = changed.to_string().into_bytes();
    Box::new(move |request, _, _| {
        let body = request.is_for("manifests").then_some(&text)?;
        whole("200 OK", "", body)
    })
}

fn odd_manifests() -> Vec<Case> {
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    vec![
        (
            "a page in the place of a manifest",
            instead("manifests", ALWAYS, |_| {
                whole("200 OK", "", b"<html>Log in</html>")
            }),
            Some((REFUSED, "the manifest cannot be read")),
        ),
        (
            "nothing",
            instead("manifests", ALWAYS, |_| whole("200 OK", "", b"")),
            Some((REFUSED, "the manifest cannot be read")),
        ),
        (
            "a deep manifest",
            instead("manifests", ALWAYS, |_| {
                let deep = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(1 << 20));
                whole("200 OK", "", deep.as_bytes())
            }),
            Some((REFUSED, "the manifest cannot be read")),
        ),
        (
            "an endless manifest",
            instead("manifests", ALWAYS, |_| {
                reply("200 OK", "", &vec![b' '; 5 << 20])
            }),
            Some((REFUSED, "more than 4194304 bytes")),
        ),
        (
            "other machines",
            instead("manifests", ALWAYS, |_| {
                let platform = json!({ "os": "linux", "architecture": "s390x" });
                let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "platform": platform,
                "digest": Digest::of(b"x").to_string(), "size": 1 });
                whole(
                    "200 OK",
                    "",
                    json!({ "schemaVersion": 2, "manifests": [entry] })
                        .to_string()
                        .as_bytes(),
                )
            }),
            Some((MISSING, "the image is not there for linux/")),
        ),
        (
            "a layer that is elsewhere",
            with_changed("/layers/0/mediaType", json!(kind)),
            Some((REFUSED, "is not distributed with the image")),
        ),
        (
            "no such configuration",
            with_changed("/config/digest", json!(Digest::of(b"x").to_string())),
            Some((MISSING, "answers 404 Not Found to blobs/sha256:")),
        ),
    ]
}

/// The layer in another form, the first times that it is asked for.
fn layer_as(headers: &'static str, form: fn(&[u8]) -> Vec<u8>, times: usize) -> Mood {
    Box::new(move |request, before, _| {
        let is_layer = request.is_for(&Digest::of(&layer()).to_string()) && before < times;
        is_layer.then(|| reply("200 OK", headers, &form(&layer())).unwrap())
    })
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let (one, two) = body.split_at(700);
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    [chunk(one), chunk(two), b"0\r\n\r\n".to_vec()].concat()
}

fn cut(body: &[u8]) -> Vec<u8> {
    body[..700].to_vec()
}

fn odd_layers() -> Vec<Case> {
    vec![
        (
            "chunks without a length",
            layer_as("Transfer-Encoding: chunked\r\n", chunked, ALWAYS),
            None,
        ),
        (
            "a length that is too small",
            layer_as("Content-Length: 700\r\n", cut, ALWAYS),
            Some((REFUSED, "has not the 2048 bytes")),
        ),
        (
            "a layer that is cut with its connection, once",
            layer_as("", cut, 1),
            None,
        ),
        (
            "a circle",
            instead("blobs", ALWAYS, |own| {
                whole(
                    "307 Temporary Redirect",
                    &format!("Location: {own}/v2/a/b/blobs/round\r\n"),
                    b"",
                )
            }),
            Some((UNAVAILABLE, "redirect")),
        ),
        (
            "a drip",
            Box::new(|request, _, _| {
                let is_layer = request.is_for(&Digest::of(&layer()).to_string());
                let (mut pieces, _) = is_layer.then(|| good(&request.path).unwrap())?;
                let head = pieces[0].len() - layer().len();
                let body = pieces[0].split_off(head);
                pieces.extend(body.into_iter().map(|byte| vec![byte]));
                Some((pieces, Duration::from_millis(1500)))
            }),
            Some((UNAVAILABLE, "less than a byte a second for 4 seconds")),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_on_bad_days_are_borne_or_named() {
    if !is_root() {
        return;
    }
    let run = async |(name, mood, failure): Case| {
        let server = Server::start(mood);
        let pulled = pull(&server.address, None, Duration::from_secs(4)).await;
        pulled.check_clean(name);
        match (&pulled.result, failure) {
            (Ok(_), None) => {}
            (Err(error), Some((is_kind, words))) => {
                let said = error.to_string();
                assert!(is_kind(error) && said.contains(words), "{name}: {error:?}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
        // Nobody is asked without end.
        assert!(server.count("manifests/1") <= 4, "{name}");
        if name == "too many for an hour" {
            assert_eq!(server.count(""), 1);
        }
    };
    let cases = [moody_servers(), odd_manifests(), odd_layers()];
    futures::future::join_all(cases.into_iter().flatten().map(run)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_is_told_it_leads_to_is_not() {
    if !is_root() {
        return;
    }
    // Layers are with another server, by a URL with a signature.
    let other = Server::start(Box::new(|_, _, _| None));
    let at = other.address.clone();
    let registry = Server::start(Box::new(move |request, _, _| {
        if request.authorization().is_empty() {
            return whole(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"r\"\r\n",
                b"",
            );
        }
        let path = request.is_for("blobs").then_some(&request.path)?;
        let to = format!("Location: {at}/signed/secret{path}\r\n");
        whole("307 Temporary Redirect", &to, b"")
    }));
    let credential = || {
        Some(Credential::Password(
            "name".to_owned(),
            "password".to_owned(),
        ))
    };
    let pulled = pull(&registry.address, credential(), Duration::from_secs(20)).await;
    assert!(pulled.result.is_ok(), "{:?}", pulled.result);
    {
        let told = other.asked.lock().unwrap();
        let told: Vec<&str> = told.iter().map(Request::authorization).collect();
        assert_eq!(told, ["", ""]);
    }
    // The signature is no word of a failure.
    let registry = Server::start(Box::new(|request, _, _| {
        request.is_for("manifests").then(|| {
            whole(
                "307 Temporary Redirect",
                "Location: http://127.0.0.2:1/signed/secret\r\n",
                b"",
            )
            .unwrap()
        })
    }));
    let pulled = pull(&registry.address, credential(), Duration::from_secs(20)).await;
    let said = pulled.result.unwrap_err().to_string();
    assert!(
        said.contains("Connection refused") && !said.contains("secret"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_has_something_else_is_passed_by() {
    if !is_root() {
        return;
    }
    let origin = Server::start(Box::new(|_, _, _| None));
    let mirror = Server::start(Box::new(|request, _, _| {
        // Its layer is another one than its manifest says.
        let is_layer = request.is_for(&Digest::of(&layer()).to_string());
        is_layer.then(|| whole("200 OK", "", &other_layer()).unwrap())
    }));
    let host = |server: &Server| server.address.strip_prefix("http://").unwrap().to_owned();
    let access = Access {
        stall: Duration::from_secs(20),
        ..Access::default()
    };
    let mirrors = BTreeMap::from([
        (host(&origin), mirror.address.clone()),
        ("127.0.0.1:1".to_owned(), mirror.address.clone()),
    ]);
    let registries = Registries::new(access, None, &mirrors).unwrap();
    registries.open().unwrap();
    let at = tempfile::tempdir().unwrap();
    let store = store(at.path());
    let pull = async |origin: &str| {
        let reference = Reference::parse("a/b:1").unwrap();
        let into = (&store, "a/b:1", &Progress::default());
        registries.pull(into, origin, &reference, None).await
    };
    // Nothing of the mirror's stays; then what is in the store is not asked for again.
    let said = pull("127.0.0.1:1").await.unwrap_err().to_string();
    let both =
        said.contains("Connection refused") && said.contains("; the mirror 'http://127.0.0.1:");
    assert!(both && said.contains("is not what it says"), "{said}");
    assert_eq!(
        std::fs::read_dir(at.path().join("layers")).unwrap().count(),
        0
    );
    pull(&host(&origin)).await.unwrap();
    assert_eq!(
        (origin.count("manifests/1"), mirror.count("manifests/1")),
        (1, 2)
    );
}

/// Runs this test again, in a process of its own with these variables; true in that process.
fn with_environment(variables: &[(&str, &str)]) -> bool {
    const AGAIN: &str = "TEPUI_TEST_AGAIN";
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(AGAIN, "1")
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}

#[tokio::test]
async fn proxies_of_the_environment_are_used() {
    if !is_root() {
        return;
    }
    let server = Server::start(Box::new(|_, _, _| None));
    let own = [("http_proxy", server.address.as_str()), ("no_proxy", "")];
    if with_environment(&own) {
        let pulled = pull("http://registry.invalid/", None, Duration::from_secs(20)).await;
        assert!(pulled.result.is_ok(), "{:?}", pulled.result);
        return;
    }
    assert_eq!(
        server.count("http://registry.invalid/v2/a/b/manifests/1"),
        1
    );
}

/// Writes credential helpers, each a shell script.
fn helpers(at: &std::path::Path, texts: &[(&str, &str)]) {
    use std::os::unix::fs::PermissionsExt;
    for (name, text) in texts {
        let path = at.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn with_helper(name: &str) -> DockerConfig {
    let text = json!({ "credHelpers": { "r.io": name } }).to_string();
    DockerConfig::read(text.as_bytes(), true).unwrap()
}

#[tokio::test]
async fn credential_helpers_may_do_what_they_like() {
    let at = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", at.path().display());
    if !with_environment(&[("PATH", &path)]) {
        return;
    }
    let at = std::path::PathBuf::from(std::env::var("PATH").unwrap().split(':').next().unwrap());
    std::fs::create_dir_all(&at).unwrap();
    let told = r#"echo '{"Username":"u","Secret":"s"}'"#;
    let deaf = format!("exec 0<&-; {told}");
    helpers(
        &at,
        &[
            ("deaf", &deaf),
            ("rubbish", "echo secret"),
            ("large", "exec yes secret"),
            ("fails", "echo secret; exit 3"),
            (
                "hangs",
                &format!("sleep 1000 & echo $! > {}/pid; wait", at.display()),
            ),
        ],
    );
    let found = with_helper("deaf").find("r.io").await.unwrap();
    assert_eq!(
        found,
        Some(Credential::Password("u".to_owned(), "s".to_owned()))
    );
    for (name, words) in [
        ("rubbish", "its answer cannot be read"),
        ("large", "its answer has more than 65536 bytes"),
        ("fails", "exit status: 3"),
        ("none", "No such file"),
    ] {
        let said = with_helper(name)
            .find("r.io")
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(words) && !said.contains("secret"), "{said}");
        assert!(
            said.contains(&format!("'docker-credential-{name}' failed")),
            "{said}"
        );
    }
    // Begun by the first look at it; its time is over as soon as nothing else is to be done.
    let config = with_helper("hangs");
    let mut asked = std::pin::pin!(config.find("r.io"));
    assert!(futures::poll!(&mut asked).is_pending());
    let pid = || std::fs::read_to_string(at.join("pid")).unwrap_or_default();
    while !pid().ends_with('\n') {
        std::thread::yield_now();
    }
    tokio::time::pause();
    let said = asked.await.unwrap_err().to_string();
    assert!(said.contains("it took more than 30 seconds"), "{said}");
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid().trim()));
    while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
}
