//! In what form a call of the operator API comes, and in what form it is answered. The order of the checks and the
//! texts are those of Mesos (`slave/http.cpp`).

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]

use tepui_http::media::RECORDIO;
use tepui_http::{Media, Request, Response, StatusCode, header, media};

/// The form of the records of a request.
pub(super) const MESSAGE_CONTENT_TYPE: header::HeaderName =
    header::HeaderName::from_static("message-content-type");
/// The form that is wanted of the records of an answer.
const MESSAGE_ACCEPT: header::HeaderName = header::HeaderName::from_static("message-accept");

/// Messages as they are, or records of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json` or `application/x-protobuf`; a stream of these has records too, without saying so.
    Messages(Media),
    /// `application/recordio`, of messages in a form that another header names.
    Records(Media),
}

impl Form {
    /// Of the messages, on their own or in records.
    pub(super) fn media(self) -> Media {
        match self {
            Self::Messages(media) | Self::Records(media) => media,
        }
    }
}

/// How a call comes.
pub(super) fn of_call(request: &Request) -> Result<Form, Response> {
    let Some(content_type) = request.header(header::CONTENT_TYPE.as_str()) else {
        return Err(Response::bad_request(
            "Expecting 'Content-Type' to be present",
        ));
    };
    let unsupported = |text: &str| Err(Response::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    let of_records = request.header(MESSAGE_CONTENT_TYPE.as_str());
    match (Media::of_content_type(content_type), of_records) {
        (Some(media), None) => Ok(Form::Messages(media)),
        (Some(_), Some(_)) => {
            unsupported("Expecting 'Message-Content-Type' to be not set for non-streaming requests")
        }
        (None, None) if content_type == RECORDIO => Err(Response::bad_request(
            "Expecting 'Message-Content-Type' to be set for streaming requests",
        )),
        (None, Some(of_records)) if content_type == RECORDIO => {
            match Media::of_content_type(of_records) {
                Some(media) => Ok(Form::Records(media)),
                None => unsupported(
                    "Expecting 'Message-Content-Type' of application/json or application/x-protobuf",
                ),
            }
        }
        (None, _) => unsupported(
            "Expecting 'Content-Type' of application/json or application/x-protobuf or \
             application/recordio",
        ),
    }
}

/// How the answer may be. Messages as they are come first where both are taken.
pub(super) fn of_answer(request: &Request) -> Result<Form, Response> {
    let headers = &request.headers;
    let unacceptable = |text: &str| Err(Response::text(StatusCode::NOT_ACCEPTABLE, text));
    if let Some(media) = Media::acceptable(headers) {
        if headers.contains_key(MESSAGE_ACCEPT) {
            return unacceptable(
                "Expecting 'Message-Accept' to be not set for non-streaming responses",
            );
        }
        return Ok(Form::Messages(media));
    }
    if !media::accepts(headers, RECORDIO) {
        return unacceptable(
            "Expecting 'Accept' to allow application/json or application/x-protobuf or \
             application/recordio",
        );
    }
    match Media::acceptable_in(headers, &MESSAGE_ACCEPT) {
        Some(media) => Ok(Form::Records(media)),
        None => unacceptable(
            "Expecting 'Message-Accept' to allow application/json or application/x-protobuf",
        ),
    }
}

#[cfg(test)]
mod tests {
    use tepui_http::Method;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Method::POST, "/api/v1");
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().expect("a header");
            request
                .headers
                .append(name, value.parse().expect("a value"));
        }
        request
    }

    const RECORDS: &str = "application/recordio";
    const JSON: &str = "application/json";

    #[test]
    fn calls_say_in_what_form_they_come() {
        for (headers, expected) in [
            (vec![], Err(400)),
            (
                vec![("content-type", JSON)],
                Ok(Form::Messages(Media::Json)),
            ),
            (vec![("content-type", "text/html")], Err(415)),
            (vec![("content-type", RECORDS)], Err(400)),
            (
                vec![("content-type", RECORDS), ("message-content-type", "x/y")],
                Err(415),
            ),
            (
                vec![
                    ("content-type", RECORDS),
                    ("message-content-type", "application/x-protobuf"),
                ],
                Ok(Form::Records(Media::Protobuf)),
            ),
            (
                vec![("content-type", JSON), ("message-content-type", JSON)],
                Err(415),
            ),
        ] {
            let said = of_call(&request(&headers)).map_err(|refusal| refusal.status.as_u16());
            assert_eq!(said, expected, "{headers:?}");
        }
    }

    #[test]
    fn answers_are_in_a_form_that_is_taken() {
        for (headers, expected) in [
            (vec![], Ok(Form::Messages(Media::Json))),
            (vec![("accept", "text/html")], Err(406)),
            (vec![("accept", RECORDS)], Ok(Form::Records(Media::Json))),
            (
                vec![("accept", RECORDS), ("message-accept", "text/html")],
                Err(406),
            ),
            (
                vec![
                    ("accept", RECORDS),
                    ("message-accept", "application/x-protobuf"),
                ],
                Ok(Form::Records(Media::Protobuf)),
            ),
            (
                vec![("accept", "application/recordio, application/json")],
                Ok(Form::Messages(Media::Json)),
            ),
            (vec![("accept", JSON), ("message-accept", JSON)], Err(406)),
        ] {
            let said = of_answer(&request(&headers)).map_err(|refusal| refusal.status.as_u16());
            assert_eq!(said, expected, "{headers:?}");
        }
    }
}
