//! The trial of a library in a child process, before it comes near the daemon.
//!
//! A crash, a hang, a missing symbol or a wrong instruction there is a refusal, not an outage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tepui_module_proto::common::{
    Code, CommonMethod, CreateRequest, LibraryManifest, ModuleManifest,
};
use tepui_module_proto::note::Note;

use crate::backend::{Answer, Backend, Events};
use crate::child::{Child, ChildError, Mode};
use crate::error::LoadError;
use crate::host::without_path;
use crate::verify::PrivateCopy;

/// What is tried.
pub(crate) struct Trial<'a> {
    pub(crate) program: &'a Path,
    pub(crate) copy: &'a PrivateCopy,
    pub(crate) file: &'a Path,
    pub(crate) note: &'a Note,
    pub(crate) module: &'a str,
    /// Of each step.
    pub(crate) limit: Duration,
    /// Makes the request once the schema is known.
    pub(crate) request: &'a mut dyn FnMut(&ModuleManifest) -> Result<CreateRequest, LoadError>,
}

/// Loads the library in a child, creates the module, and provokes a panic.
pub(crate) fn trial(trial: Trial<'_>) -> Result<(LibraryManifest, ModuleManifest), LoadError> {
    let library = trial.copy.path_for_child();
    let failed = |what: String| LoadError::Trial {
        file: trial.file.into(),
        module: trial.module.into(),
        what: without_path(&what, &library),
    };
    let child_failed = |error| match error {
        ChildError::Spawn(error) => LoadError::ModuleHost {
            program: trial.program.into(),
            message: error.to_string(),
        },
        ChildError::Create(failure) => LoadError::Create {
            file: trial.file.into(),
            module: trial.module.into(),
            message: failure.chain(),
        },
        other => failed(other.to_string()),
    };
    let (child, manifest) = Child::start(trial.program, Mode::Check, library.clone(), trial.limit)
        .map_err(child_failed)?;
    let _end = EndOnDrop(&child);
    agree(&manifest, trial.note).map_err(failed)?;
    let module = manifest
        .modules
        .iter()
        .find(|module| module.name == trial.module)
        .cloned()
        .ok_or_else(|| {
            failed("its manifest does not have this module, though its note has".into())
        })?;
    let request = (trial.request)(&module)?;
    let instance = child
        .create(request.encode_to_vec(), Arc::new(Silent))
        .map_err(child_failed)?;
    let answer = instance.call(CommonMethod::ProbePanic as u32, &[]);
    match Code::try_from(answer.code as i32) {
        Ok(Code::Internal | Code::Unimplemented) => Ok((manifest, module)),
        Ok(Code::Unavailable) => Err(failed("a panic in it ended its process".into())),
        _ => Err(failed(format!(
            "it answered a provoked panic with code {}",
            answer.code
        ))),
    }
}

/// The note promised what the library has.
fn agree(manifest: &LibraryManifest, note: &Note) -> Result<(), String> {
    let mut noted: Vec<_> = note
        .modules
        .iter()
        .map(|m| (&m.name, m.kinds.join(",")))
        .collect();
    let mut has: Vec<_> = manifest
        .modules
        .iter()
        .map(|m| (&m.name, m.kinds.join(",")))
        .collect();
    noted.sort();
    has.sort();
    if noted == has {
        return Ok(());
    }
    let text = |list: &[(&String, String)]| {
        list.iter()
            .map(|(name, kinds)| format!("{kinds} {name}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(format!(
        "its note and its manifest differ: {} and {}",
        text(&noted),
        text(&has)
    ))
}

struct EndOnDrop<'a>(&'a Child);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end("the trial is over");
    }
}

/// Nobody listens during a trial.
struct Silent;

impl Events for Silent {
    fn host_call(&self, _method: u32, _request: &[u8]) {}
    fn complete(&self, _call: u64, _answer: Answer) {}
    fn lost(&self, _why: &str) {}
}
