//! What every instance must do, whatever its kind.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use prost::Message as _;
use tepui_host::{CallError, Instance};
use tepui_module_proto::common::{Code, CommonMethod, ReportReply};

/// No kind has a method of this number.
const UNKNOWN: u32 = 60_000;
/// Bytes that are no message of any kind: a field of length 127 in a message of two bytes.
const GARBAGE: &[u8] = &[0x0a, 0x7f];

/// Runs a suite that waits.
pub(crate) fn block_on<T>(suite: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(suite)
}

/// The methods of all kinds, unknown methods, and requests that cannot be read. `started` and `called` are the
/// kind's own methods.
pub(crate) async fn common(instance: &Instance, started: &[u32], called: &[u32]) -> Result<()> {
    let generation = instance.generation();
    let bytes = instance.call(CommonMethod::Report as u32, &[])?;
    ReportReply::decode(&*bytes)?;

    expect(
        Code::Unimplemented,
        "an unknown method called",
        instance.call(UNKNOWN, &[]),
    )?;
    let timeout = Some(Duration::from_secs(10));
    let unknown = instance.start(UNKNOWN, None, timeout, Vec::new()).await;
    expect(Code::Unimplemented, "an unknown method started", unknown)?;

    for &method in called {
        let answer = instance.call(method, GARBAGE);
        expect(
            Code::InvalidArgument,
            &format!("method {method} with bytes that are no message"),
            answer,
        )?;
    }
    for &method in started {
        let answer = instance
            .start(method, None, timeout, GARBAGE.to_vec())
            .await;
        expect(
            Code::InvalidArgument,
            &format!("method {method} with bytes that are no message"),
            answer,
        )?;
    }
    ensure!(
        instance.generation() == generation && instance.is_active(),
        "the instance did not survive requests it must refuse"
    );
    Ok(())
}

/// A failure of this code.
pub(crate) fn expect(code: Code, what: &str, answer: Result<Vec<u8>, CallError>) -> Result<()> {
    match answer {
        Err(error) if error.code() == Some(code) => Ok(()),
        Err(error) => bail!("{what}: expected {}, found {error}", code.name()),
        Ok(_) => bail!("{what}: expected {}, found an answer", code.name()),
    }
}

/// A long poll must not answer yet, and must end when it is cancelled; dropping it cancels.
pub(crate) async fn stays_open(instance: &Instance, method: u32, request: Vec<u8>) -> Result<()> {
    let poll = instance.start(method, None, None, request.clone());
    match tokio::time::timeout(Duration::from_millis(100), poll).await {
        Err(_) => Ok(()),
        // A module may tell that it has nothing to tell.
        Ok(Err(error)) if error.is_unimplemented() => Ok(()),
        Ok(Err(error)) => bail!("a long poll failed: {error}"),
        Ok(Ok(_)) => bail!("a long poll answered though nothing had changed"),
    }
}
