//! Failures: the bytes of a reply whose code is not OK.

use crate::common::{Code, Failure};

impl Failure {
    /// A failure with a message only.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// The message and its causes in one line.
    pub fn chain(&self) -> String {
        std::iter::once(&self.message)
            .chain(&self.causes)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(": ")
    }
}

impl Code {
    /// Name without prefix, as logs show it: `INVALID_ARGUMENT`.
    pub fn name(self) -> &'static str {
        self.as_str_name().trim_start_matches("CODE_")
    }
}
