//! HTTP/1.1 over a plain connection, so that nothing between the recording and the server tidies
//! up paths, headers or bodies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tepui_proto::recordio::Decoder;

use super::exchange::{Answer, Request};

/// Why there is no answer to compare.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The connection failed, or nothing came in time.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What came is not HTTP.
    #[error("not HTTP: {0}")]
    Malformed(String),
}

/// An answer that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest answer that is read.
pub(super) const MAX_BODY: u64 = 64 << 20;

/// Sends a request on a connection of its own and reads the answer; of a stream the first record.
///
/// # Errors
/// No connection, no answer in time, or none that is HTTP.
pub fn ask(address: SocketAddr, request: &Request, is_stream: bool) -> Result<Answer, ReplayError> {
    open(address, request, is_stream).map(|(answer, _)| answer)
}

/// As [`ask`], and gives the connection, which keeps a stream open as long as it is held.
///
/// # Errors
/// No connection, no answer in time, or none that is HTTP.
pub fn open(
    address: SocketAddr,
    request: &Request,
    is_stream: bool,
) -> Result<(Answer, TcpStream), ReplayError> {
    let (mut answer, mut reader) = head(address, request)?;
    answer.is_stream = is_stream;
    body(&mut reader, &mut answer, request.method == "HEAD")?;
    answer.unpack()?;
    Ok((answer, reader.into_inner()))
}

/// Sends a request on a connection of its own and reads the answer up to its body.
pub(super) fn head(
    address: SocketAddr,
    request: &Request,
) -> Result<(Answer, BufReader<TcpStream>), ReplayError> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(&on_the_wire(address, request))?;
    let mut reader = BufReader::new(connection);
    let answer = read_head(&mut reader)?;
    Ok((answer, reader))
}

fn on_the_wire(address: SocketAddr, request: &Request) -> Vec<u8> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {address}\r\n",
        request.method, request.path
    );
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &request.body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), request.body.as_deref().unwrap_or_default()].concat()
}

fn read_head(reader: &mut impl BufRead) -> Result<Answer, ReplayError> {
    let line = line(reader)?;
    let malformed = || ReplayError::Malformed(line.clone());
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(malformed)?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut answer = Answer {
        status: status.parse().map_err(|_| malformed())?,
        reason: reason.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        is_stream: false,
    };
    loop {
        let line = self::line(reader)?;
        if line.is_empty() {
            return Ok(answer);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| ReplayError::Malformed(line.clone()))?;
        answer
            .headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads the body that the head announces; of a stream the first record.
pub(super) fn body(
    reader: &mut impl BufRead,
    answer: &mut Answer,
    is_head: bool,
) -> Result<(), ReplayError> {
    if is_head || answer.status == 204 || answer.status == 304 {
        return Ok(());
    }
    if answer.is_chunked() {
        answer.body = read_chunks(reader, answer.is_stream)?;
    } else if let Some(length) = answer.header("Content-Length") {
        let length: u64 = length
            .parse()
            .ok()
            .filter(|&length| length <= MAX_BODY)
            .ok_or_else(|| ReplayError::Malformed(format!("Content-Length: {length}")))?;
        answer.body = vec![0; usize::try_from(length).expect("64 MiB fit")];
        reader.read_exact(&mut answer.body)?;
    } else {
        reader.take(MAX_BODY).read_to_end(&mut answer.body)?;
    }
    Ok(())
}

/// Joins chunks; of a stream until it has a whole record.
fn read_chunks(reader: &mut impl BufRead, is_stream: bool) -> Result<Vec<u8>, ReplayError> {
    let mut body = Vec::new();
    loop {
        let chunk = chunk(reader)?;
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_BODY {
            return Err(ReplayError::Malformed("an endless body".to_owned()));
        }
        if chunk.is_empty() || (is_stream && first_record(&body).is_some()) {
            return Ok(body);
        }
    }
}

/// The next chunk; the last one is empty.
pub(super) fn chunk(reader: &mut impl BufRead) -> Result<Vec<u8>, ReplayError> {
    let line = self::line(reader)?;
    let length = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
        .ok()
        .filter(|&length| length <= MAX_BODY)
        .ok_or_else(|| ReplayError::Malformed(format!("chunk length {line}")))?;
    let mut chunk = Vec::new();
    reader.take(length).read_to_end(&mut chunk)?;
    if self::line(reader)?.is_empty() {
        Ok(chunk)
    } else {
        Err(ReplayError::Malformed(
            "a chunk does not end with its line".to_owned(),
        ))
    }
}

/// The first record of a RecordIO stream.
pub(super) fn first_record(stream: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(usize::try_from(MAX_BODY).expect("64 MiB fit"));
    decoder.push(stream);
    decoder
        .next_record()
        .ok()
        .flatten()
        .map(|record| record.to_vec())
}

fn line(reader: &mut impl BufRead) -> Result<String, ReplayError> {
    let mut line = Vec::new();
    reader.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| ReplayError::Malformed("not text".to_owned()))
}
