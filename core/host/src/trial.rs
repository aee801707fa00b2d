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

/// Loads the library in a child for its manifest only.
pub(crate) fn describe(
    program: &Path,
    copy: &PrivateCopy,
    file: &Path,
    limit: Duration,
) -> Result<LibraryManifest, LoadError> {
    let library = copy.path_for_child();
    match Child::start(program, Mode::Check, library.clone(), limit) {
        Ok((child, manifest)) => {
            child.end("the trial is over");
            Ok(manifest)
        }
        Err(ChildError::Spawn(error)) => Err(LoadError::ModuleHost {
            program: program.into(),
            message: error.to_string(),
        }),
        Err(error) => Err(LoadError::File {
            file: file.into(),
            message: without_path(&error.to_string(), &library),
        }),
    }
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
    let module = agree(&manifest, trial.note, trial.module).map_err(failed)?;
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

/// The note promised what the library has; the module, then.
fn agree(manifest: &LibraryManifest, note: &Note, name: &str) -> Result<ModuleManifest, String> {
    let module = manifest.modules.iter().find(|module| module.name == name);
    let noted = note.modules.iter().find(|module| module.name == name);
    match (module, noted) {
        (Some(module), Some(noted)) if module.kinds == noted.kinds => Ok(module.clone()),
        (Some(module), Some(noted)) => Err(format!(
            "its note and its manifest differ: of kind {} and of kind {}",
            noted.kinds.join(", "),
            module.kinds.join(", ")
        )),
        _ => Err("its note promises this module, and its manifest does not have it".into()),
    }
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
