//! The server over real sockets, as clients see it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tepui_http::{
    Client, ClientError, Media, Method, Request, Response, Router, Server, ServerSettings,
    StatusCode, stream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn serve(router: Router) -> (Server, Client) {
    let mut settings = ServerSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    settings.body_limit = 1 << 20;
    let server = Server::start(settings, Arc::new(router)).await.unwrap();
    let client = Client::new(&server.local_addr().to_string()).unwrap();
    (server, client)
}

/// Sends raw bytes and reads until the server closes.
async fn raw(server: &Server, request: &str) -> String {
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_are_those_of_mesos() {
    let mut router = Router::with_delegate("master");
    router.route("/master/health", |_: Request| async {
        Response::empty(StatusCode::OK)
    });
    router.route("/master/state", |request: Request| async move {
        Response::jsonp(
            &request,
            vec![Bytes::from_static(b"{\"a\":"), Bytes::from_static(b"1}")],
        )
    });
    let (server, _) = serve(router).await;

    let head = |answer: &str| -> Vec<String> {
        let head = answer.split("\r\n\r\n").next().unwrap();
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        assert!(
            lines.iter().any(|line| line.starts_with("Date: ")),
            "{answer}"
        );
        lines.retain(|line| !line.starts_with("Date: ") && !line.starts_with("Connection: "));
        lines.sort();
        lines
    };
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    let answer = raw(&server, &format!("HEAD /master/health HTTP/1.1\r\n{close}")).await;
    assert_eq!(head(&answer), ["Content-Length: 0", "HTTP/1.1 200 OK"]);
    let answer = raw(&server, &format!("GET /state/?jsonp=f HTTP/1.1\r\n{close}")).await;
    assert_eq!(
        head(&answer),
        [
            "Content-Length: 11",
            "Content-Type: text/javascript",
            "HTTP/1.1 200 OK"
        ]
    );
    assert!(answer.ends_with("\r\n\r\nf({\"a\":1});"), "{answer}");
    let answer = raw(&server, &format!("OPTIONS /state HTTP/1.1\r\n{close}")).await;
    assert_eq!(
        head(&answer),
        [
            "Content-Length: 7",
            "Content-Type: application/json",
            "HTTP/1.1 200 OK"
        ]
    );
    let answer = raw(&server, &format!("GET /master HTTP/1.1\r\n{close}")).await;
    let expected = [
        "Content-Length: 14",
        "Content-Type: text/plain; charset=utf-8",
        "HTTP/1.1 404 Not Found",
    ];
    assert_eq!(head(&answer), expected);
    let answer = raw(&server, &format!("GET /%zz HTTP/1.1\r\n{close}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn long_answers_are_compressed_and_long_requests_refused() {
    let mut router = Router::default();
    router.route("/test/text", |request: Request| async move {
        Response::text(StatusCode::OK, "x".repeat(request.rest.parse().unwrap()))
    });
    router.route("/length", |request: Request| async move {
        Response::json(request.body.len().to_string())
    });
    let (_server, client) = serve(router).await;

    let gzip = [("Accept-Encoding", "gzip")];
    for (length, compressed) in [(1023, false), (1024, true), (1 << 20, true)] {
        let reply = client
            .request(
                Method::GET,
                &format!("/test/text/{length}"),
                &gzip,
                Bytes::new(),
            )
            .await
            .unwrap();
        assert_eq!(
            reply.header("content-encoding").is_some(),
            compressed,
            "{length}"
        );
        assert_eq!(
            reply.header("content-length"),
            Some(reply.body.len().to_string().as_str())
        );
        if compressed {
            let mut text = String::new();
            std::io::Read::read_to_string(
                &mut flate2::read::GzDecoder::new(&*reply.body),
                &mut text,
            )
            .unwrap();
            assert_eq!(text.len(), length);
        }
    }
    assert_eq!(
        client.get("/test/text/5000").await.unwrap().body.len(),
        5000
    );

    let reply = client
        .post_json("/length", vec![b' '; 1 << 20])
        .await
        .unwrap();
    assert_eq!(reply.text(), (1 << 20).to_string());
    let reply = client
        .post_json("/length", vec![b' '; (1 << 20) + 1])
        .await
        .unwrap();
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn records_arrive_and_both_ends_notice_the_other_leaving() {
    let (senders, mut opened) = mpsc::channel(4);
    let mut router = Router::default();
    router.route("/stream", move |_: Request| {
        let senders = senders.clone();
        async move {
            let (sender, body) = stream::bounded(64 * 1024);
            senders.send(sender).await.unwrap();
            Response::stream("application/json", body)
        }
    });
    let (_server, client) = serve(router).await;

    let mut records = client
        .stream("/stream", Media::Json, &[], "{}")
        .await
        .unwrap();
    assert_eq!(records.header("transfer-encoding"), Some("chunked"));
    let sender = opened.recv().await.unwrap();
    sender.send(Bytes::from_static(b"2\nab3")).unwrap();
    assert_eq!(records.next().await.unwrap().unwrap(), "ab");
    sender.send(Bytes::from_static(b"\nabc")).unwrap();
    assert_eq!(records.next().await.unwrap().unwrap(), "abc");
    drop(sender);
    assert_eq!(records.next().await.unwrap(), None);

    // The reader goes: the sender learns it without sending anything.
    let records = client
        .stream("/stream", Media::Json, &[], "{}")
        .await
        .unwrap();
    let sender = opened.recv().await.unwrap();
    drop(records);
    tokio::time::timeout(Duration::from_secs(10), sender.gone().cancelled())
        .await
        .unwrap();

    // The reader does not read: its connection is closed with the stream unfinished.
    let mut records = client
        .stream("/stream", Media::Json, &[], "{}")
        .await
        .unwrap();
    let sender = opened.recv().await.unwrap();
    let record = Bytes::from(format!("{}\n{}", 32 * 1024, "x".repeat(32 * 1024)));
    while sender.send(record.clone()).is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(sender.is_closed());
    let mut got = 0;
    let end = loop {
        match records.next().await {
            Ok(Some(_)) => got += 1,
            end => break end,
        }
    };
    assert!(
        matches!(end, Err(ClientError::Body(_))),
        "after {got} records: {end:?}"
    );
}

#[tokio::test]
async fn connections_can_leave_http() {
    let mut router = Router::default();
    router.route("/link", |mut request: Request| async move {
        let Some(upgrade) = request
            .take_upgrade()
            .filter(|upgrade| upgrade.protocol() == "echo")
        else {
            return Response::bad_request("Expecting an upgrade to 'echo'");
        };
        let (response, upgraded) = upgrade.accept();
        tokio::spawn(async move {
            let mut stream = upgraded.await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
            stream.flush().await.unwrap();
        });
        response
    });
    let (_server, client) = serve(router).await;

    let mut stream = client.upgrade("/link", "echo", &[]).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");

    let refused = client.upgrade("/link", "other", &[]).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ClientError::Refused {
                status: StatusCode::BAD_REQUEST,
                ..
            }
        ),
        "{refused}"
    );
}

/// Answers come in the order of their requests, and as soon as these are complete, whatever is sent behind them.
#[tokio::test]
async fn requests_may_be_sent_one_behind_the_other() {
    let mut router = Router::default();
    router.route("/echo", |request: Request| async move {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        Response::text(StatusCode::OK, text)
    });
    let (server, _) = serve(router).await;
    let request = |n: usize| {
        let body = format!("<{n}>");
        let length = body.len();
        format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let all: String = (0..100).map(request).collect();
    // The last one is not complete for now.
    let (sent, held_back) = all.split_at(all.len() - 5);
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    socket.write_all(sent.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let mut read_until = async |end: &str, socket: &mut TcpStream| {
        let reading = async {
            let mut piece = [0; 4096];
            while !answers.ends_with(end) {
                let length = socket.read(&mut piece).await.unwrap();
                assert_ne!(length, 0, "closed after {answers}");
                answers.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            }
        };
        let patience = Duration::from_secs(30);
        let read = tokio::time::timeout(patience, reading).await;
        read.expect("answers wait for the next request");
    };
    read_until("<98>", &mut socket).await;
    socket.write_all(held_back.as_bytes()).await.unwrap();
    read_until("<99>", &mut socket).await;
    let bodies = answers.split('<').skip(1);
    let numbers: Vec<usize> = bodies
        .filter_map(|rest| rest.split('>').next()?.parse().ok())
        .collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}
