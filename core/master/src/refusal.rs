//! Calls that are answered with an error, and how.

use tepui_http::authorize::Denied;
use tepui_http::shared::FileError;
use tepui_http::{Response, StatusCode};
use tepui_state_master::Reply;

use crate::authorize::Unanswered;
use crate::owner::Unavailable;

/// Seconds after which a refused client may come back.
const RETRY_AFTER: u32 = 1;

/// An error answer: smaller than a whole response, so that it can travel in a `Result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
        }
    }

    pub(crate) fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn forbidden() -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, "")
    }

    /// 501 for what is understood and not there yet.
    pub(crate) fn not_implemented() -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented.")
    }

    pub(crate) fn too_many() -> Refusal {
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests are waiting",
        )
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        match refusal.status {
            StatusCode::TOO_MANY_REQUESTS => Response::too_many(refusal.text, RETRY_AFTER),
            status => Response::text(status, refusal.text),
        }
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Refusal {
        match unavailable {
            Unavailable::Busy => Refusal::too_many(),
            Unavailable::Stopped => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Master is shutting down")
            }
        }
    }
}

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, unanswered.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        match denied {
            Denied::Forbidden => Refusal::forbidden(),
            Denied::Unanswered(unanswered) => unanswered.into(),
        }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Refusal {
        match error {
            FileError::Invalid(text) => Refusal::bad_request(text),
            FileError::NotFound => Refusal::new(StatusCode::NOT_FOUND, ""),
            FileError::Io(text) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

/// The answer to a call that the state has applied or refused.
pub(crate) fn answer(reply: Reply) -> Response {
    let (status, text) = match reply {
        Reply::Accepted => return Response::accepted(),
        Reply::Ok => return Response::empty(StatusCode::OK),
        Reply::BadRequest(text) => (StatusCode::BAD_REQUEST, text),
        Reply::Forbidden(text) => (StatusCode::FORBIDDEN, text),
        Reply::NotFound(text) => (StatusCode::NOT_FOUND, text),
        Reply::Conflict(text) => (StatusCode::CONFLICT, text),
        Reply::NotImplemented(text) => (StatusCode::NOT_IMPLEMENTED, text),
        Reply::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
        Reply::Again(_) => (
            StatusCode::CONFLICT,
            "The object changed while the call was authorized".to_owned(),
        ),
    };
    Response::text(status, text)
}
