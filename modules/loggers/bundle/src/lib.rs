//! Library of the built-in container loggers.

tepui_module_sdk::export!(
    container_logger: tepui_logger_plain::Sandbox,
    container_logger: tepui_logger_plain::Off,
    container_logger: tepui_logger_rotating::Rotating,
);
