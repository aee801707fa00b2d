//! A stream of events, read beside the calls that are made meanwhile.

use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tepui_proto::recordio::Decoder;

use super::raw::{self, MAX_BODY, ReplayError};
use super::{Answer, Request};

/// A record, and when it came.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was whole.
    pub at: Instant,
    /// The bytes of the event.
    pub bytes: Vec<u8>,
}

/// What came next on a stream.
#[derive(Debug)]
pub enum Next {
    /// A record.
    Record(Record),
    /// The server ended the stream as it should: by its last chunk.
    Ended,
    /// The connection broke, or what came is no RecordIO.
    Broken(String),
    /// Nothing in the given time.
    Nothing,
}

/// An open stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    /// Status and headers; the body stays empty.
    pub answer: Answer,
    connection: TcpStream,
    records: mpsc::Receiver<Next>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    /// Subscribes; an answer that is no stream is an answer with its whole body.
    ///
    /// # Errors
    /// No connection, no answer in time, or none that is HTTP.
    pub fn open(address: SocketAddr, request: &Request) -> Result<Self, ReplayError> {
        let (mut answer, mut reader) = raw::head(address, request)?;
        let connection = reader.get_ref().try_clone()?;
        let (sender, records) = mpsc::sync_channel(10_000);
        let mut handle = None;
        if answer.is_chunked() && answer.status == 200 {
            answer.is_stream = true;
            connection.set_read_timeout(None)?;
            handle = Some(std::thread::spawn(move || read(&mut reader, &sender)));
        } else {
            raw::body(&mut reader, &mut answer, false)?;
        }
        Ok(Self {
            answer,
            connection,
            records,
            reader: handle,
        })
    }

    /// What comes next, within a time.
    pub fn next(&self, patience: Duration) -> Next {
        match self.records.recv_timeout(patience) {
            Ok(next) => next,
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Nothing,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.connection.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, sender: &mpsc::SyncSender<Next>) {
    let mut decoder = Decoder::new(usize::try_from(MAX_BODY).expect("64 MiB fit"));
    loop {
        let next = match raw::chunk(reader) {
            Ok(chunk) if chunk.is_empty() => Next::Ended,
            Ok(chunk) => {
                decoder.push(&chunk);
                match send_records(&mut decoder, sender) {
                    Ok(()) => continue,
                    Err(problem) => Next::Broken(problem),
                }
            }
            Err(error) => Next::Broken(error.to_string()),
        };
        let _ = sender.try_send(next);
        return;
    }
}

fn send_records(decoder: &mut Decoder, sender: &mpsc::SyncSender<Next>) -> Result<(), String> {
    while let Some(record) = decoder.next_record().map_err(|error| error.to_string())? {
        let record = Record {
            at: Instant::now(),
            bytes: record.to_vec(),
        };
        sender
            .try_send(Next::Record(record))
            .map_err(|_| "more events than any recorded session has".to_owned())?;
    }
    Ok(())
}
