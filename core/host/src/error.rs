//! Why a module is refused, and why a call has no answer. The texts are for operators: file, expected,
//! found, what to do; a few lines.

use std::path::PathBuf;
use std::time::Duration;

use tepui_module_proto::common::{Code, Failure};

/// A module cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error("no module '{name}' of kind {kind} was found{}\n  looked in:{}\n  put its library into one of these directories, or name its own with --module_dirs", hint(*.nearest_is_kind, .nearest), lines(looked))]
    NotFound {
        name: String,
        kind: String,
        nearest: Option<String>,
        nearest_is_kind: bool,
        /// Directories and files, each with what was found wrong.
        looked: Vec<String>,
    },
    #[error(
        "module '{name}' is in two files of {}:\n  {}\n  {}\n  remove one, or name the file in [load.\"{name}\"]",
        dir.display(), first.display(), second.display()
    )]
    TwoFiles {
        name: String,
        dir: PathBuf,
        first: PathBuf,
        second: PathBuf,
    },
    #[error("{}: {problem}\n  expected: {expected}\n  found: {found}\n  {advice}", file.display())]
    Refused {
        file: PathBuf,
        problem: &'static str,
        expected: String,
        found: String,
        advice: &'static str,
    },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
    #[error("{}: the trial of module '{module}' failed: {what}", file.display())]
    Trial {
        file: PathBuf,
        module: String,
        what: String,
    },
    #[error("module '{module}' ({}): its settings are refused:{}", file.display(), lines(errors))]
    Settings {
        file: PathBuf,
        module: String,
        errors: Vec<String>,
    },
    #[error("module '{module}' ({}) refused to start: {message}", file.display())]
    Create {
        file: PathBuf,
        module: String,
        message: String,
    },
    #[error("{}: cannot run it: {message}\n  it is looked for beside the daemon; --module_host names another place", program.display())]
    ModuleHost { program: PathBuf, message: String },
}

fn hint(is_kind: bool, nearest: &Option<String>) -> String {
    match nearest {
        Some(kinds) if is_kind => format!(": the module of this name is of kind {kinds}"),
        Some(name) => format!("; did you mean '{name}'?"),
        None => String::new(),
    }
}

fn lines(items: &[String]) -> String {
    items.iter().map(|item| format!("\n    {item}")).collect()
}

/// A call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CallError {
    #[error("module '{module}': {method}: {}{}", failure.chain(), code_of(*.code))]
    Failed {
        module: String,
        method: &'static str,
        code: Code,
        failure: Box<Failure>,
    },
    #[error("module '{module}': {method} did not answer within {after:?}")]
    Deadline {
        module: String,
        method: &'static str,
        after: Duration,
    },
    #[error(
        "module '{module}': {method} of '{lane}' waits behind {behind}, which has not ended after {age:?}"
    )]
    Busy {
        module: String,
        method: &'static str,
        lane: String,
        behind: &'static str,
        age: Duration,
    },
    #[error("module '{module}' is away: {why}")]
    Away { module: String, why: String },
    #[error("module '{module}': the answer of {method} cannot be read: {message}")]
    Answer {
        module: String,
        method: &'static str,
        message: String,
    },
}

fn code_of(code: Code) -> String {
    match code {
        Code::Unknown | Code::Internal => String::new(),
        code => format!(" ({})", code.name()),
    }
}

impl CallError {
    /// The code of the module's own answer.
    pub fn code(&self) -> Option<Code> {
        match self {
            CallError::Failed { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The module is older than the method.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    /// The instance is gone or finished: the next one needs the facts again.
    pub fn is_lost(&self) -> bool {
        match self {
            CallError::Away { .. } => true,
            CallError::Failed { failure, .. } => failure.finished,
            _ => false,
        }
    }
}
