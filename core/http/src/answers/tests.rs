use std::future::poll_fn;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use http::header::ACCEPT_ENCODING;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::writing::LONG;
use super::*;

type Plain = Answers<&'static str, &'static str>;

fn answers() -> (Plain, Counter) {
    let hits = Counter::default();
    (Answers::new(hits.clone()), hits)
}

fn request(principal: Option<&str>) -> Request {
    let mut request = Request::new(Method::GET, "/state");
    request.subject = principal.map(Subject::principal);
    request
}

fn numbers(n: u64) -> Vec<u8> {
    (0..n).flat_map(u64::to_le_bytes).collect()
}

/// Writes them in pieces of 64 KiB, and counts those that were wanted.
fn write(whole: Vec<u8>, wanted: &Arc<AtomicUsize>) -> Encode {
    let wanted = Arc::clone(wanted);
    Arc::new(move |sink| {
        let mut pieces = whole.chunks(64 * 1024).map(Bytes::copy_from_slice);
        let _ = pieces.try_for_each(|piece| {
            wanted.fetch_add(1, Ordering::Relaxed);
            sink(piece)
        });
    })
}

async fn asked(answers: &Plain, request: &Request, encode: Encode) -> Response {
    let look = async move { Ok(encode) };
    let answer = answers.answer(request, "state", JSON, look).await;
    answer.expect("nothing is refused")
}

fn long(response: Response) -> Written {
    match response.body {
        Body::Written(written) => written,
        other => panic!("{other:?} is not long"),
    }
}

async fn next(written: &mut Written) -> Option<Result<Bytes, Unfinished>> {
    poll_fn(|cx| written.poll_piece(cx)).await
}

async fn collect(mut written: Written) -> Result<Vec<u8>, Unfinished> {
    let mut all = Vec::new();
    while let Some(piece) = next(&mut written).await {
        let piece = piece?;
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn unzipped(compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(compressed);
    decoder.read_to_end(&mut plain).expect("gzip");
    plain
}

#[tokio::test]
async fn a_short_answer_has_a_length_and_a_long_one_is_sent_as_it_is_written() {
    let (answers, _) = answers();
    let wanted = Arc::default();
    let whole = numbers(10_000);
    let response = asked(&answers, &request(None), write(whole.clone(), &wanted)).await;
    assert_eq!(response.body_bytes().expect("80 kB are short"), whole);

    let whole = numbers(1_000_000);
    let pieces = whole.len().div_ceil(64 * 1024);
    wanted.store(0, Ordering::Relaxed);
    let response = asked(&answers, &request(None), write(whole.clone(), &wanted)).await;
    let mut written = long(response);
    let first = next(&mut written).await.expect("a piece").expect("written");
    assert!(wanted.load(Ordering::Relaxed) < pieces, "it waits for us");
    let rest = collect(written).await.expect("all of it");
    assert!([&*first, &*rest].concat() == whole);

    let mut zipped = request(None);
    zipped
        .headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let response = asked(&answers, &zipped, write(whole.clone(), &wanted)).await;
    assert_eq!(response.headers[CONTENT_ENCODING], "gzip");
    let compressed = collect(long(response)).await.expect("all of it");
    assert!(compressed.len() < whole.len());
    assert!(unzipped(&compressed) == whole);
}

#[tokio::test]
async fn who_asks_the_same_while_it_waits_gets_the_same_answer_and_no_older_one() {
    let (mut answers, hits) = answers();
    Arc::get_mut(&mut answers.shared)
        .expect("not cloned")
        .places = Arc::new(Semaphore::new(1));
    let (state, looks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let look = || {
        let (state, looks) = (Arc::clone(&state), Arc::clone(&looks));
        async move {
            looks.fetch_add(1, Ordering::SeqCst);
            let seen = state.load(Ordering::SeqCst).to_string();
            Ok(Arc::new(move |sink: Sink<'_>| {
                let _ = sink(Bytes::from(seen.clone()));
            }) as Encode)
        }
    };
    // The only place is taken by somebody who looks for as long as the test wants.
    let (go_on, wait) = oneshot::channel::<()>();
    let looking = Arc::new(Notify::new());
    let (other, is_looking) = (answers.clone(), Arc::clone(&looking));
    let first = tokio::spawn(async move {
        let look = async move {
            is_looking.notify_one();
            let _ = wait.await;
            Err("not the leader")
        };
        other.answer(&request(None), "state", JSON, look).await
    });
    looking.notified().await;

    let mut asking = JoinSet::new();
    for principal in [None, Some("ops"), None, None, Some("ops"), Some("dev")] {
        // What has happened by now is what this one must see.
        let at_least = state.fetch_add(1, Ordering::SeqCst) + 1;
        let (answers, look) = (answers.clone(), look());
        asking.spawn(async move {
            let answer = answers
                .answer(&request(principal), "state", JSON, look)
                .await;
            let body = answer.expect("granted").body_bytes().expect("short");
            let seen: usize = String::from_utf8_lossy(&body).parse().expect("a number");
            assert!(seen >= at_least, "{seen} is older than {at_least}");
        });
        tokio::task::yield_now().await;
    }
    go_on.send(()).expect("the first waits");
    asking.join_all().await;
    let refused = first.await.expect("no panic");
    assert_eq!(refused.err(), Some("not the leader"));
    assert_eq!(looks.load(Ordering::SeqCst), 3, "one for each who asks");
    assert_eq!(hits.get(), 3);
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_gets_everything() {
    let (mut answers, _) = answers();
    Arc::get_mut(&mut answers.shared)
        .expect("not cloned")
        .places = Arc::new(Semaphore::new(1));
    for encoding in ["identity", "gzip"] {
        let mut request = request(None);
        let encoding = HeaderValue::from_static(encoding);
        request.headers.insert(ACCEPT_ENCODING, encoding);
        let whole: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(4 * 1024 * 1024)
            .collect();
        let wanted = Arc::default();
        // Both wait for the place, so that one answer is written for both.
        let place = Arc::clone(&answers.shared.places).acquire_owned().await;
        let both = async {
            tokio::join!(
                asked(&answers, &request, write(whole.clone(), &wanted)),
                asked(&answers, &request, write(whole.clone(), &wanted)),
                async { drop(place) },
            )
        };
        let (slow, quick, ()) = both.await;
        let plain = |sent: Vec<u8>| match slow.headers.contains_key(CONTENT_ENCODING) {
            true => unzipped(&sent),
            false => sent,
        };
        let quick = collect(long(quick)).await.expect("all of it");
        assert!(plain(quick) == whole);

        // The slow one is alone now and gives its place up: others are answered.
        let other = write(numbers(1000), &wanted);
        let answer = asked(&answers, &self::request(Some("ops")), other).await;
        assert_eq!(answer.body_bytes().expect("short").len(), 8000);
        let Body::Written(slow_body) = slow.body else {
            panic!("it is long");
        };
        let compressed = slow.headers.contains_key(CONTENT_ENCODING);
        let sent = collect(slow_body).await.expect("all of it");
        let sent = if compressed { unzipped(&sent) } else { sent };
        assert!(sent == whole);
    }
}

#[tokio::test]
async fn nobody_writes_for_readers_who_have_gone() {
    let (answers, _) = answers();
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    // Without an end, unless it is told to stop.
    let endless: Encode = Arc::new(move |sink| {
        while sink(Bytes::from(vec![b'x'; LONG])).is_continue() {}
        tell.notify_one();
    });
    let mut written = long(asked(&answers, &request(None), endless).await);
    next(&mut written).await.expect("a piece").expect("written");
    drop(written);
    ended.notified().await;
}

#[tokio::test]
async fn readers_who_take_nothing_do_not_hold_all_threads() {
    let (answers, _) = answers();
    let endless: Encode = Arc::new(|sink| while sink(vec![b'x'; LONG].into()).is_continue() {});
    let slow: Vec<_> = (0..2 * THREADS)
        .map(|_| {
            let (reader, pieces) = mpsc::channel(AHEAD);
            let encode = Arc::clone(&endless);
            let progress = Progress::new(Handle::current(), encode, Encoding::Identity, None);
            progress.start_for(reader);
            pieces
        })
        .collect();
    let encode = write(numbers(1000), &Arc::default());
    let request = request(None);
    let answer = asked(&answers, &request, encode);
    let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
    let answer = answer.expect("the slow ones hold all threads");
    assert_eq!(answer.body_bytes().expect("short").len(), 8000);
    let open = slow.iter().filter(|pieces| !pieces.is_closed()).count();
    assert!(open <= THREADS, "{open} slow answers go on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_in_good_order() {
    let (answers, _) = answers();
    let fails = AtomicBool::new(true);
    let encode: Encode = Arc::new(move |sink| {
        let _ = sink(vec![0; LONG].into());
        assert!(!fails.load(Ordering::Relaxed), "planted");
    });
    let written = long(asked(&answers, &request(None), encode).await);
    assert!(collect(written).await.is_err());
}
