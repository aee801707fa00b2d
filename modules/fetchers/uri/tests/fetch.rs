//! The module through the host's client: sources, the cache, users, and what failures say.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tepui_fetcher_uri::UriFetcher;
use tepui_module_proto::fetcher::{Uri, User};

use common::{Answers, Bench, Server, answer, cached, names, ok, read, tar, uri, walk};

#[test]
fn conformance() {
    let root = tepui_module_sdk::linked!(fetcher: UriFetcher);
    tepui_module_conformance::check(root, "uri", "");
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
    let copy = Uri {
        output_file: "copy".to_owned(),
        ..cached(plain)
    };
    let all = vec![uri(server.at("/old")), uri("own"), program, copy];
    let sandbox = bench.fetch("s", all).await.unwrap();
    assert_eq!(read(&sandbox, "old"), "by http");
    assert_eq!(read(&sandbox, "own"), "of the home");
    assert_eq!(read(&sandbox, "bin/it.tar"), "acme://x/y\n");
    let mode = |name: &str| fs::metadata(sandbox.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("old"), mode("bin/it.tar")), (0o644, 0o755));
    // By the cache or not.
    assert_eq!((mode("own"), mode("copy")), (0o640, 0o640));
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
    let complains = [
        "sh",
        "-c",
        "echo \"cannot read $0\" >&2; exit 3; : $1",
        "{uri}",
        "{path}",
    ];
    let bench = Bench::new(json!({
        "fetcher_stall_timeout_secs": 1, "hadoop_home": "/no/hadoop", "programs": {"acme": complains},
    }));
    let at = bench.sandbox("sources");
    let fifo = at.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Connections are made, but nobody greets.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (value, words) in [
        (server.at("/none"), "404 Not Found: no such artifact:"),
        (
            server.at("/slow"),
            "less than a byte a second came for 1 seconds",
        ),
        (server.at("/cut"), "Failed to fetch"),
        ("http://127.0.0.1:1/x".to_owned(), "Connection refused"),
        ("/no/such/file".to_owned(), "No such file"),
        ("hdfs://n/x".to_owned(), "/no/hadoop/bin/hadoop"),
        ("http://u:secret@127.0.0.1:1/x".to_owned(), "u:***@"),
        (
            "acme://u:secret@h/x".to_owned(),
            "cannot read acme://u:***@h/x",
        ),
        (at.display().to_string(), "is a directory"),
        ("/dev/zero".to_owned(), "a file is expected"),
        (fifo.display().to_string(), "a file is expected"),
        (
            format!("ftp://{}/x", silent.local_addr().unwrap()),
            "'curl' ended with exit status: 28",
        ),
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
        "echo > \"$0\"; echo > \"$0._COPYING_\"; echo $$ > {}; sleep 1000; : \"$1\"",
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
async fn names_are_those_of_uris_whatever_a_server_says() {
    let named = "Content-Length: 1\r\nContent-Disposition: attachment; filename=\"../evil\"\r\n";
    let odd = [
        "/a%2Fb",
        "/%2e%2e",
        "/sp%20ace",
        "/x;y=z,@!$&'()*+",
        "/%C3%A4",
        "/.hidden",
        "/-rf",
    ];
    let mut answers: Answers = odd
        .iter()
        .map(|path| (*path, (answer("200 OK", named, b"x"), false)))
        .collect();
    let to = |path: &str| {
        (
            answer(
                "302 Found",
                &format!("Location: {path}\r\nContent-Length: 0\r\n"),
                b"",
            ),
            false,
        )
    };
    answers.insert("/old", to("/new/name"));
    answers.insert("/round", to("/round"));
    answers.insert("/away", to("ftp://127.0.0.1/x"));
    let server = Server::start(answers);
    let bench = Bench::new(json!({}));
    let uris = odd.iter().map(|path| uri(server.at(path)));
    let sandbox = bench.fetch("s", uris.collect()).await.unwrap();
    let mut expected: Vec<&str> = odd.iter().map(|path| &path[1..]).collect();
    expected.push("stderr");
    expected.sort_unstable();
    assert_eq!(names(&sandbox), expected);
    // Where one was led to is not what it is called.
    let uris = ["/old?signature=secret/x", "/old#part"].map(|path| uri(server.at(path)));
    let sandbox = bench.fetch("led", uris.to_vec()).await.unwrap();
    assert_eq!(names(&sandbox), ["old", "stderr"]);
    for (path, words) in [
        ("/round", "too many redirects"),
        ("/away", "URL scheme is not allowed"),
    ] {
        let error = bench
            .fetch("s", vec![uri(server.at(path))])
            .await
            .unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(server.count("/round") <= 11);
}

#[tokio::test]
async fn a_failure_is_everybodys_who_waits_for_the_file() {
    let half = answer("200 OK", "Content-Length: 100\r\n", b"half");
    let none = answer("404 Not Found", "Content-Length: 4\r\n", b"gone");
    let server = Server::start(Answers::from([
        ("/cut", (half, false)),
        ("/none", (none, false)),
    ]));
    let bench = Bench::new(json!({}));
    for (path, words) in [
        ("/cut", "error decoding response body"),
        ("/none", "404 Not Found: gone"),
    ] {
        let all = ["s1", "s2", "s3"].map(|name| bench.fetch(name, vec![cached(server.at(path))]));
        for fetched in futures::future::join_all(all).await {
            let error = fetched.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!((1..=3).contains(&server.count(path)));
    }
    assert_eq!(bench.client.cache().unwrap().used_bytes, 0);
    let left = walk(&bench.at.path().join("work"));
    assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
}
