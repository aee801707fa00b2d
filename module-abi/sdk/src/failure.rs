//! The error of all author code.

use std::error::Error;

use prost::Message as _;
use tepui_module_abi::Reply;
use tepui_module_proto::common::{self, Code};

/// Result of author code.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a call failed. Any error converts into one and keeps its chain of causes:
///
/// ```
/// # use tepui_module_sdk::{Failure, Result};
/// fn read() -> Result<String> {
///     Ok(std::fs::read_to_string("/etc/acme.conf")?)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    code: Code,
    payload: common::Failure,
}

impl Failure {
    /// A failure with a code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            payload: common::Failure::new(message),
        }
    }

    /// Settings or a request that cannot be right: retrying does not help.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Something that the module needs does not answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut failure = Self::new(Code::Unavailable, message);
        failure.payload.retryable = true;
        failure
    }

    /// What is asked for is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// A failure of the module's own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Names the setting this is about: `groups.web`.
    #[must_use]
    pub fn setting(mut self, path: impl Into<String>) -> Self {
        self.payload.setting = path.into();
        self
    }

    /// Puts a sentence in front; what was said before becomes the cause.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let before = std::mem::replace(&mut self.payload.message, message.into());
        self.payload.causes.insert(0, before);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence for the operator.
    pub fn message(&self) -> &str {
        &self.payload.message
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Code::Cancelled, "cancelled")
    }

    pub(crate) fn unimplemented(method: u32) -> Self {
        Self::new(
            Code::Unimplemented,
            format!("this module is older than method {method}"),
        )
    }

    pub(crate) fn panicked(message: &str, backtrace: String) -> Self {
        let mut failure = Self::new(Code::Internal, format!("the module panicked: {message}"));
        failure.payload.finished = true;
        failure.payload.backtrace = backtrace;
        failure
    }

    pub(crate) fn finished() -> Self {
        let mut failure = Self::new(
            Code::FailedPrecondition,
            "this instance panicked before and answers no further call",
        );
        failure.payload.finished = true;
        failure
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.payload.finished
    }

    pub(crate) fn reply(&self) -> Reply {
        // A failure is never OK, whatever code the author chose.
        let code = if self.code == Code::Ok {
            Code::Unknown
        } else {
            self.code
        };
        Reply::error(code as u32, self.payload.encode_to_vec())
    }
}

/// No `Error` for `Failure` itself, so that every error can convert into it.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Self::new(Code::Unknown, error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            failure.payload.causes.push(error.to_string());
            cause = error.source();
        }
        failure
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.payload.chain())
    }
}

/// The failure of a request that does not decode.
pub(crate) fn undecodable(error: &prost::DecodeError) -> Failure {
    Failure::invalid(format!("the request cannot be decoded: {error}"))
}
