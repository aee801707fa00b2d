//! Library of the built-in exporter modules.

tepui_module_sdk::export!(exporter: tepui_exporter_prometheus::Prometheus);
