//! Large answers: written on threads that may take their time, sent while they are written, and written
//! once for all who ask the same.
//!
//! A question that cannot be answered at once waits for its place; whoever asks the same meanwhile gets
//! the same answer. What is answered is looked at only when the place is there, so that an answer is
//! never older than a question it answers. Questions of different subjects are never the same.
//!
//! Large answers must not keep the processors from everything else, however many are asked for at once:
//! half of the processors have a place each, and the threads that write have a low priority. Memory
//! stays bounded: an answer is written a few pieces ahead of its readers. A reader who is too slow for the
//! others gets a writer of its own, and one who is alone and slow gives its place to the next question. Of many
//! slow ones the slowest is cut off.

mod slow;
mod writing;
mod written;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderValue};
use tepui_model::authorization::Subject;
use tepui_proto::json::Sink;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::media::{JSON, accepts_encoding};
use crate::request::Request;
use crate::response::{Body, JAVASCRIPT, Response};
use crate::shared::Counter;

use slow::Slow;
use writing::{Progress, Writing};
pub use written::{Unfinished, Written};

/// Writes a body in pieces until it is told to stop. Whenever it is called it writes the same.
pub type Encode = Arc<dyn Fn(Sink<'_>) + Send + Sync>;

/// Batches of pieces that are written ahead of a reader.
const AHEAD: usize = 3;

/// Answers that are written at once, slow ones included. More wait for their end.
const THREADS: usize = 128;

/// Slow answers at once. The threads beyond that are for those that are quick.
static SLOW: Slow = Slow::new(THREADS * 3 / 4);

/// Where answers are written: a runtime for the sake of its threads only, which are made when they are
/// needed, and which have the lowest claim on the processors that leaves them some.
static WRITERS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(THREADS)
        .thread_name("answers")
        .on_thread_start(lower_priority)
        .build()
        .expect("a runtime without drivers needs nothing of the system")
});

/// For the calling thread. Where it is refused answers are written all the same.
fn lower_priority() {
    const NICE: i32 = 10;
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// The answers of one server. `Q` says what is asked for, `E` is the refusal.
#[derive(Debug)]
pub struct Answers<Q, E> {
    shared: Arc<Waiting<Q, E>>,
}

impl<Q, E> Clone for Answers<Q, E> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// What is the same for all who get one answer.
type Key<Q> = (Q, Option<Subject>, Encoding);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Encoding {
    Identity,
    Gzip,
}

#[derive(Debug)]
struct Waiting<Q, E> {
    askers: Mutex<HashMap<Key<Q>, Vec<Asker<E>>>>,
    places: Arc<Semaphore>,
    /// Counts those who got the answer to another's question.
    hits: Counter,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Asker<E> {
    begun: oneshot::Sender<Result<Begun, E>>,
    pieces: mpsc::Sender<Part>,
}

/// How an answer begins.
#[derive(Clone, Debug)]
enum Begun {
    /// It is short: all of it.
    Whole(Vec<Bytes>),
    /// It comes in parts.
    Long,
}

/// A part of a long answer.
#[derive(Clone, Debug)]
enum Part {
    Pieces(Arc<[Bytes]>),
    /// It is complete.
    End,
}

impl<Q, E> Answers<Q, E>
where
    Q: Clone + Eq + Hash + Send + 'static,
    E: Clone + Send + 'static,
{
    /// `hits` counts the questions that were answered with the answer to another.
    pub fn new(hits: Counter) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Waiting {
                askers: Mutex::default(),
                places: Arc::new(Semaphore::new((processors / 2).max(1))),
                hits,
            }),
        }
    }

    /// 200 with the answer to `question`. `look` takes what is to be encoded; it runs when there is a place
    /// for the answer, and not at all when somebody else's answer does.
    ///
    /// # Errors
    ///
    /// That of `look`, for all who ask the same.
    pub async fn answer(
        &self,
        request: &Request,
        question: Q,
        content_type: &str,
        look: impl Future<Output = Result<Encode, E>> + Send + 'static,
    ) -> Result<Response, E> {
        let encoding = match accepts_encoding(&request.headers, "gzip") {
            true => Encoding::Gzip,
            false => Encoding::Identity,
        };
        let (begun, will_begin) = oneshot::channel();
        let (pieces, rest) = mpsc::channel(AHEAD);
        let key = (question, request.subject.clone(), encoding);
        if self.shared.join(&key, Asker { begun, pieces }) {
            self.shared.hits.increment();
        } else {
            tokio::spawn(Arc::clone(&self.shared).begin(key, look));
        }
        let begun = will_begin.await.expect("encoders do not panic")?;
        let mut response = Response::pieces(StatusCode::OK, content_type, Vec::new());
        response.body = match begun {
            Begun::Whole(pieces) => Body::Full(pieces),
            Begun::Long => {
                if encoding == Encoding::Gzip {
                    let gzip = HeaderValue::from_static("gzip");
                    response.headers.insert(CONTENT_ENCODING, gzip);
                }
                Body::Written(Written::new(rest))
            }
        };
        Ok(response)
    }

    /// The same for JSON, wrapped into the function that the query names in `jsonp`. The question must
    /// hold the query.
    ///
    /// # Errors
    ///
    /// That of `look`.
    pub async fn answer_jsonp(
        &self,
        request: &Request,
        question: Q,
        look: impl Future<Output = Result<Encode, E>> + Send + 'static,
    ) -> Result<Response, E> {
        let Some(function) = request.query.get("jsonp") else {
            return self.answer(request, question, JSON, look).await;
        };
        let begin = Bytes::from(format!("{function}("));
        let wrapped = async move {
            let encode = look.await?;
            Ok(Arc::new(move |sink: Sink<'_>| {
                if sink(begin.clone()).is_continue() {
                    encode(sink);
                }
                let _ = sink(Bytes::from_static(b");"));
            }) as Encode)
        };
        self.answer(request, question, JAVASCRIPT, wrapped).await
    }
}

impl<Q: Clone + Eq + Hash, E: Clone + Send + 'static> Waiting<Q, E> {
    fn askers(&self) -> MutexGuard<'_, HashMap<Key<Q>, Vec<Asker<E>>>> {
        self.askers
            .lock()
            .expect("no panic happens under this lock")
    }

    /// Waits with others who ask the same; false when there are none.
    fn join(&self, key: &Key<Q>, asker: Asker<E>) -> bool {
        let mut waiting = self.askers();
        if let Some(others) = waiting.get_mut(key) {
            others.push(asker);
            return true;
        }
        waiting.insert(key.clone(), vec![asker]);
        false
    }

    /// Waits for a place, and starts to write for all who ask the same by then.
    async fn begin(self: Arc<Self>, key: Key<Q>, look: impl Future<Output = Result<Encode, E>>) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        // Who asks from now on may know of something newer than what `look` sees.
        let mut askers = self.askers().remove(&key).unwrap_or_default();
        askers.retain(|asker| !asker.begun.is_closed());
        if askers.is_empty() {
            return;
        }
        match look.await {
            Ok(encode) => write(askers, encode, key.2, place.ok()),
            Err(refusal) => {
                for asker in askers {
                    let _ = asker.begun.send(Err(refusal.clone()));
                }
            }
        }
    }
}

/// Writes an answer on a thread.
fn write<E: Send + 'static>(
    askers: Vec<Asker<E>>,
    encode: Encode,
    encoding: Encoding,
    place: Option<OwnedSemaphorePermit>,
) {
    let runtime = Handle::current();
    WRITERS.spawn_blocking(move || {
        let progress = Progress::new(runtime, Arc::clone(&encode), encoding, place);
        Writing::new(askers, progress).run(&encode);
    });
}

#[cfg(test)]
mod tests;
