//! `/files` as recorded from Mesos 1.11 (`files/*` of the recordings), and what it must not give away.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::sync::Arc;

use tepui_http::authorize::AllowAll;
use tepui_http::shared::{Files, Logging, Metrics, Shared, VersionInfo};
use tepui_http::{Client, Router, Server, ServerSettings, StatusCode, TEXT};

struct Site {
    _server: Server,
    client: Client,
    directory: tempfile::TempDir,
}

/// A sandbox below `/sandbox`, and a file beside it that nobody may see.
async fn site() -> Site {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = directory.path().join("sandbox");
    std::fs::create_dir_all(sandbox.join("sub")).unwrap();
    std::fs::write(sandbox.join("stderr"), "").unwrap();
    std::fs::write(sandbox.join("stdout"), "hello \u{1}world\n").unwrap();
    std::fs::write(sandbox.join("big"), vec![b'x'; 100_000]).unwrap();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    symlink(directory.path().join("secret"), sandbox.join("leak")).unwrap();
    let files = Files::default();
    files.attach("/sandbox", &sandbox);
    files.attach("/log", sandbox.join("stdout"));
    let shared = Shared {
        version: VersionInfo::default(),
        flags: Arc::default(),
        files,
        metrics: Metrics::default(),
        logging: Logging::new(0, |_| {}),
        authorizer: Arc::new(AllowAll),
    };
    let mut router = Router::with_delegate("master");
    shared.register(&mut router, "master");
    let settings = ServerSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::start(settings, Arc::new(router)).await.unwrap();
    let client = Client::new(&server.local_addr().to_string()).unwrap();
    Site {
        _server: server,
        client,
        directory,
    }
}

#[tokio::test]
async fn refusals_as_recorded() {
    let site = site().await;
    let cases = [
        ("/files/browse", 400, "Expecting 'path=value' in query.\n"),
        ("/files/browse?path=/nope", 404, ""),
        (
            "/files/download?path=/sandbox",
            400,
            "Cannot download a directory.\n",
        ),
        ("/files/download?path=/nope", 404, "404 Not Found."),
        ("/files/read", 400, "Expecting 'path=value' in query.\n"),
        ("/files/read?path=/sandbox/none&offset=0&length=50", 404, ""),
        (
            "/files/read?path=/sandbox/stderr&offset=x",
            400,
            "Failed to parse offset: Failed to convert 'x' to number.\n",
        ),
        (
            "/files/read?path=/sandbox/stdout&offset=-2",
            400,
            "Negative offset provided: -2.\n",
        ),
        (
            "/files/read?path=/sandbox/leak&offset=0",
            400,
            "Resolved path is inaccessible.\n",
        ),
        (
            "/files/read?path=/sandbox/../secret&offset=0",
            400,
            "Resolved path is inaccessible.\n",
        ),
        (
            "/files/download?path=/sandbox/leak",
            400,
            "Resolved path is inaccessible.\n",
        ),
    ];
    for (path, status, text) in cases {
        let reply = site.client.get(path).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (status, text),
            "{path}"
        );
        assert_eq!(reply.header("content-type"), Some(TEXT), "{path}");
        assert_eq!(
            reply.header("content-length"),
            Some(text.len().to_string().as_str()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn reads_as_recorded() {
    let site = site().await;
    let cases = [
        (
            "/files/read?path=/sandbox/stderr&offset=0",
            r#"{"data":"","offset":0}"#,
        ),
        (
            "/files/read?path=/sandbox/stdout&offset=6&length=3",
            "{\"data\":\"\\u0001wo\",\"offset\":6}",
        ),
        (
            "/files/read?path=/log&offset=-1",
            r#"{"data":"","offset":13}"#,
        ),
        ("/files/read?path=/log", r#"{"data":"","offset":13}"#),
        (
            "/files/read?path=/log&offset=20&jsonp=f",
            r#"f({"data":"","offset":20});"#,
        ),
    ];
    for (path, expected) in cases {
        let reply = site.client.get(path).await.unwrap();
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::OK, expected),
            "{path}"
        );
    }
    let reply = site
        .client
        .get("/files/read?path=/sandbox/big&offset=0")
        .await
        .unwrap();
    assert_eq!(reply.body.len(), r#"{"data":"","offset":0}"#.len() + 65536);

    let reply = site
        .client
        .get("/files/browse?path=/sandbox")
        .await
        .unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let paths: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "/sandbox/big",
            "/sandbox/leak",
            "/sandbox/stderr",
            "/sandbox/stdout",
            "/sandbox/sub"
        ]
    );
    assert_eq!(listed[2]["mode"], "-rw-r--r--");
    assert_eq!(listed[4]["mode"], "drwxr-xr-x");
    assert!(reply.text().starts_with("[{\"gid\":\""), "{}", reply.text());

    let reply = site
        .client
        .get("/files/download?path=/sandbox/big")
        .await
        .unwrap();
    assert_eq!(
        reply.header("content-disposition"),
        Some("attachment; filename=big")
    );
    assert_eq!(
        reply.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(reply.body.len(), 100_000);

    let reply = site.client.get("/files/debug").await.unwrap();
    let sandbox = site.directory.path().join("sandbox");
    let expected = serde_json::json!({"/log": sandbox.join("stdout"), "/sandbox": sandbox});
    assert_eq!(reply.text(), expected.to_string());
}
