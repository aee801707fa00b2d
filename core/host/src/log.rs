//! A module's log events in the daemon's log.

use tepui_module_proto::common::{LogRequest, log_request::Level};

macro_rules! event {
    ($level:ident, $module:expr, $event:expr, $text:expr) => {
        tracing::event!(
            target: "tepui::module",
            tracing::Level::$level,
            module = $module,
            container = (!$event.container.is_empty()).then_some($event.container.as_str()),
            source = $event.target,
            "{}",
            $text
        )
    };
}

/// Emits an event as the daemon's own.
pub(crate) fn emit(module: &str, event: &LogRequest) {
    let mut text = event.message.clone();
    // The SDK sends a map: in order, so that equal events give equal lines.
    let fields: std::collections::BTreeMap<_, _> = event.fields.iter().collect();
    for (name, value) in fields {
        text.push_str(&format!(" {name}={value}"));
    }
    match event.level() {
        Level::Error => event!(ERROR, module, event, text),
        Level::Warn => event!(WARN, module, event, text),
        Level::Unspecified | Level::Info => event!(INFO, module, event, text),
        Level::Debug => event!(DEBUG, module, event, text),
        Level::Trace => event!(TRACE, module, event, text),
    }
}
