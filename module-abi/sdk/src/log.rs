//! `tracing` events and panics of a library reach the daemon's log.
//!
//! A library has its own copy of `tracing` and of the panic hook, so both belong to this kit. Where modules are
//! linked into a program both belong to that program, and nothing is installed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Once, OnceLock};

use tepui_module_proto::common::{LogRequest, log_request::Level};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::{Host, call};

/// Where events go that belong to no call: threads and tasks of the author's own.
static FALLBACK: OnceLock<Host> = OnceLock::new();
/// Most verbose level that is sent, as the number of [`Level`].
static MOST: AtomicU8 = AtomicU8::new(Level::Info as u8);

thread_local! {
    /// Where the last panic of this thread came from, for the guard that catches it.
    static BACKTRACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Payload of the panic that a host's trial asks for. Nobody reads where it came from, and to find that out
/// takes longer than all the rest of a trial.
pub(crate) struct Probe;

/// Makes this library's events and panics go to `host`, up to `level`.
pub(crate) fn install(host: Host, level: &str) {
    static INSTALL: Once = Once::new();
    FALLBACK.get_or_init(|| host);
    let level = match level {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "debug" => Level::Debug,
        "trace" => Level::Trace,
        _ => Level::Info,
    };
    // Several instances share the library: the most verbose one decides, the host drops the rest.
    MOST.fetch_max(level as u8, Ordering::Relaxed);
    INSTALL.call_once(|| {
        // An author who installed a subscriber before keeps it.
        let _ = tracing::subscriber::set_global_default(Bridge);
        std::panic::set_hook(Box::new(|panic| {
            if panic.payload().is::<Probe>() {
                return;
            }
            let backtrace = std::backtrace::Backtrace::force_capture().to_string();
            let message = panic
                .payload_as_str()
                .unwrap_or("a panic without a message");
            let place = panic
                .location()
                .map(ToString::to_string)
                .unwrap_or_default();
            let fields = BTreeMap::from([("place".to_owned(), place.clone())]);
            send(
                Level::Error,
                "panic",
                format!("panicked: {message}"),
                fields,
            );
            BACKTRACE.with(|kept| *kept.borrow_mut() = Some(format!("at {place}\n{backtrace}")));
        }));
    });
}

/// Where the panic that was just caught on this thread came from.
pub(crate) fn take_backtrace() -> String {
    BACKTRACE
        .with(|kept| kept.borrow_mut().take())
        .unwrap_or_default()
}

fn send(level: Level, target: &str, message: String, mut fields: BTreeMap<String, String>) {
    let scope = call::current();
    let Some(host) = scope
        .as_ref()
        .map(|scope| scope.host)
        .or_else(|| FALLBACK.get().copied())
    else {
        return;
    };
    let container = scope
        .as_ref()
        .map(|scope| scope.container.clone())
        .unwrap_or_default();
    if let Some(scope) = &scope {
        fields.insert("module".to_owned(), scope.module.to_owned());
    }
    host.log(&LogRequest {
        level: level.into(),
        target: target.to_owned(),
        message,
        fields,
        container,
    });
}

fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// Sends events as they come; spans are not kept, since the call already says what an event belongs to.
struct Bridge;

impl Subscriber for Bridge {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Not remembered: a later instance may ask for more.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && level_of(*metadata.level()) as u8 <= MOST.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        send(
            level_of(*event.metadata().level()),
            event.metadata().target(),
            text.message,
            text.fields,
        );
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields
                .insert(field.name().to_owned(), value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields
                .insert(field.name().to_owned(), format!("{value:?}"));
        }
    }
}
