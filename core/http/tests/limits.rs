//! What clients cannot do to the server: fill its memory, hold its connections, go unseen.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tepui_http::{
    Client, Method, Request, Response, Router, Server, ServerSettings, StatusCode, stream,
};
use tepui_model::authorization::Subject;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> ServerSettings {
    ServerSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

async fn serve(settings: ServerSettings, router: Router) -> Server {
    Server::start(settings, Arc::new(router)).await.unwrap()
}

/// Answers with the length of what was sent.
fn length() -> Router {
    let mut router = Router::default();
    router.route("/length", |request: Request| async move {
        Response::json(request.body.len().to_string())
    });
    router
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.local_addr()).await.unwrap()
}

/// What comes until the server closes; a reset is an end, too.
async fn rest(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer));
    let _ = read.await.expect("timed out: the end of the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gigabytes_are_refused_without_keeping_them() {
    let server = serve(settings(), length()).await;
    let before = peak();
    let address = server.local_addr();
    let announced = format!(
        "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        1 << 30
    );
    let chunked =
        "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let clients = [announced, chunked].map(|head| async move {
        let chunked = head.contains("chunked");
        let mut socket = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = socket.split();
        let piece = vec![b' '; MIB];
        let send = async {
            writer.write_all(head.as_bytes()).await?;
            for _ in 0..1024 {
                if chunked {
                    writer.write_all(b"100000\r\n").await?;
                }
                writer.write_all(&piece).await?;
                if chunked {
                    writer.write_all(b"\r\n").await?;
                }
            }
            io::Result::Ok(())
        };
        let mut answer = vec![0; 12];
        let (sent, read) = tokio::join!(send, reader.read_exact(&mut answer));
        assert!(sent.is_err(), "the whole gigabyte was taken");
        read.expect("an answer before the end");
        String::from_utf8(answer).unwrap()
    });
    let answers = futures::future::join_all(clients).await;
    assert_eq!(answers, ["HTTP/1.1 413"; 2]);
    let grown = peak() - before;
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
}

#[tokio::test]
async fn all_bodies_together_have_a_budget() {
    let (entered, mut entries) = mpsc::channel(4);
    let gate = Arc::new(Semaphore::new(0));
    let mut router = Router::default();
    let opened = Arc::clone(&gate);
    router.route("/held", move |_: Request| {
        let (gate, entered) = (Arc::clone(&opened), entered.clone());
        async move {
            entered.send(()).await.unwrap();
            let _ = gate.acquire().await;
            Response::empty(StatusCode::OK)
        }
    });
    let mut settings = settings();
    settings.bodies_limit = 3 * MIB;
    let server = serve(settings, router).await;
    let client = || Client::new(&server.local_addr().to_string()).unwrap();
    let (first, second) = (client(), client());
    let body = || vec![b' '; 2 * MIB];
    let refused = async {
        entries.recv().await.unwrap();
        let reply = second.post_json("/held", body()).await.unwrap();
        gate.add_permits(16);
        reply
    };
    let both = async { tokio::join!(first.post_json("/held", body()), refused) };
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (held, refused) = both.expect("timed out: the answers");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(held.unwrap().status, StatusCode::OK);
    let reply = second.post_json("/held", body()).await.unwrap();
    assert_eq!(
        reply.status,
        StatusCode::OK,
        "what was answered counts no more"
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let mut settings = settings();
    settings.max_connections = 1;
    let server = serve(settings, length()).await;
    let mut first = connect(&server).await;
    first
        .write_all(b"GET /length HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut second = connect(&server).await;
    second
        .write_all(b"GET /length HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut second).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nToo many connections open"),
        "{answer}"
    );
    // As soon as the first has gone there is room again.
    drop(first);
    let again = async {
        loop {
            let mut socket = connect(&server).await;
            let request = b"GET /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            socket.write_all(request).await.unwrap();
            if rest(&mut socket).await.starts_with("HTTP/1.1 200 OK") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("timed out: room for another");
}

#[tokio::test]
async fn clients_that_stop_halfway_are_cut_off() {
    let mut settings = settings();
    settings.head_timeout = Duration::from_millis(200);
    settings.body_timeout = Duration::from_millis(200);
    settings.write_timeout = Duration::from_millis(200);
    let mut router = length();
    let (senders, mut opened) = mpsc::channel(1);
    router.route("/much", move |_: Request| {
        let senders = senders.clone();
        async move {
            let (sender, body) = stream::bounded(MIB);
            senders.send(sender).await.unwrap();
            Response::stream("text/plain", body)
        }
    });
    let server = serve(settings, router).await;

    let mut head = connect(&server).await;
    head.write_all(b"GET /length HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let answer = rest(&mut head).await;
    assert!(!answer.contains("200 OK"), "{answer}");

    let mut body = connect(&server).await;
    let half = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf";
    body.write_all(half).await.unwrap();
    let answer = rest(&mut body).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{answer}"
    );

    // Asks for more than the system's buffers hold, and does not read it.
    let mut reader = connect(&server).await;
    let request = b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n";
    reader.write_all(request).await.unwrap();
    let sender = opened.recv().await.unwrap();
    sender.send(vec![b'x'; 64 * MIB].into()).unwrap();
    let gone = sender.gone();
    let cut_off = tokio::time::timeout(PATIENCE, gone.cancelled());
    cut_off
        .await
        .expect("timed out: the stalled reader is cut off");
}

#[tokio::test]
async fn heads_have_a_limit() {
    let server = serve(settings(), length()).await;
    let mut socket = connect(&server).await;
    let (mut reader, mut writer) = socket.split();
    let endless = async {
        writer.write_all(b"GET /length HTTP/1.1\r\n").await?;
        for _ in 0..1024 {
            writer.write_all(&[b'a'; 1000]).await?;
        }
        io::Result::Ok(())
    };
    let mut answer = vec![0; 12];
    let (_, read) = tokio::join!(endless, reader.read_exact(&mut answer));
    read.expect("an answer");
    assert_eq!(String::from_utf8(answer).unwrap(), "HTTP/1.1 431");
}

/// Where the log of a test goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_answer_has_its_line_in_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut router = length();
    router.route("/noted", |request: Request| async move {
        assert_eq!(request.subject, None::<Subject>);
        tracing::info!("handling");
        Response::text(StatusCode::IM_A_TEAPOT, "short and stout")
    });
    let server = serve(settings(), router).await;
    let client = Client::new(&server.local_addr().to_string()).unwrap();
    let headers = [("X-Request-Id", "abc-1"), ("User-Agent", "teatime")];
    let sent = client.request(Method::GET, "/noted?x=1", &headers, Bytes::new());
    sent.await.unwrap();
    let headers = [("X-Request-Id", "forged\t\"id\"")];
    client
        .request(Method::POST, "/length", &headers, Bytes::new())
        .await
        .unwrap();
    server.stop().await;

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = |part: &str| {
        let found = log.lines().find(|line| line.contains(part));
        found
            .unwrap_or_else(|| panic!("no {part}: {log}"))
            .to_owned()
    };
    assert!(line("handling").contains("request=abc-1"), "{log}");
    let access = line("HTTP GET for /noted from 127.0.0.1:");
    assert!(access.contains(": 418 with 15 bytes in "), "{access}");
    assert!(
        access.contains("request=abc-1") && access.contains("agent=\"teatime\""),
        "{access}"
    );
    assert!(
        line("HTTP POST for /length").contains(": 200 with 1 bytes"),
        "{log}"
    );
    assert!(!log.contains("forged"), "{log}");
}
