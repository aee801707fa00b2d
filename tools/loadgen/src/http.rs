//! One request on a connection of its own, read as fast as the socket gives it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How an answer came.
pub(crate) struct Arrival {
    /// Until its first byte.
    pub(crate) first: Duration,
    /// Until its last byte.
    pub(crate) last: Duration,
    /// Head and body.
    pub(crate) bytes: usize,
}

/// Sends a request and reads its answer without looking into it.
pub(crate) async fn fetch(address: &str, request: &[u8]) -> Result<Arrival> {
    let mut stream = TcpStream::connect(address).await?;
    let begun = Instant::now();
    stream.write_all(request).await?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = stream.read(&mut buffer).await?;
    let first = begun.elapsed();
    ensure!(
        buffer.starts_with(b"HTTP/1.1 200"),
        "not 200: {}",
        String::from_utf8_lossy(&buffer[..bytes.min(200)])
    );
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => bytes += n,
        }
    }
    Ok(Arrival {
        first,
        last: begun.elapsed(),
        bytes,
    })
}

/// GET of a path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// POST of a protobuf call, answered in protobuf.
pub(crate) fn post_protobuf(path: &str, body: &[u8]) -> Vec<u8> {
    let media = "application/x-protobuf";
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {media}\r\n\
         Accept: {media}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
