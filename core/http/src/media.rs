//! Content negotiation as libprocess does it.

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName};

/// `application/json`.
pub const JSON: &str = "application/json";
/// `application/x-protobuf`.
pub const PROTOBUF: &str = "application/x-protobuf";
/// `application/recordio`.
pub const RECORDIO: &str = "application/recordio";

/// The form of a v1 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Media {
    /// Proto2 JSON.
    Json,
    /// Binary protobuf.
    Protobuf,
}

impl Media {
    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => JSON,
            Media::Protobuf => PROTOBUF,
        }
    }

    /// The form named by a `Content-Type`. Parameters are not understood, as in Mesos:
    /// `application/json; charset=utf-8` is no JSON.
    pub fn of_content_type(value: &str) -> Option<Media> {
        match value {
            JSON => Some(Media::Json),
            PROTOBUF => Some(Media::Protobuf),
            _ => None,
        }
    }

    /// The form in which an answer may be sent; JSON is preferred.
    pub fn acceptable(headers: &HeaderMap) -> Option<Media> {
        Self::acceptable_in(headers, &ACCEPT)
    }

    /// The same by a header of another name than `Accept`.
    pub fn acceptable_in(headers: &HeaderMap, name: &HeaderName) -> Option<Media> {
        [Media::Json, Media::Protobuf]
            .into_iter()
            .find(|media| allows(headers, name, media.content_type()))
    }
}

/// Whether the `Accept` header allows a media type; no header allows all.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    allows(headers, &ACCEPT, media_type)
}

fn allows(headers: &HeaderMap, name: &HeaderName, media_type: &str) -> bool {
    let Some(accept) = headers.get(name) else {
        return true;
    };
    let Ok(accept) = accept.to_str() else {
        return false;
    };
    let family = media_type.split('/').next().unwrap_or_default();
    weight(accept, |range| {
        range == media_type
            || range == "*/*"
            || range
                .strip_suffix("/*")
                .is_some_and(|prefix| prefix == family)
    })
}

/// Whether the client takes a content encoding; no header takes none.
pub fn accepts_encoding(headers: &HeaderMap, encoding: &str) -> bool {
    let Some(accept) = headers.get(ACCEPT_ENCODING) else {
        return false;
    };
    let Ok(accept) = accept.to_str() else {
        return false;
    };
    weight(accept, |range| range == encoding || range == "*")
}

/// True if the first matching item of a weighted list does not have weight zero.
fn weight(list: &str, matches: impl Fn(&str) -> bool) -> bool {
    for item in list.split(',') {
        let mut parts = item.split(';').map(str::trim);
        if !parts.next().is_some_and(&matches) {
            continue;
        }
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .and_then(|q| q.trim().parse::<f32>().ok());
        return quality != Some(0.0);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: http::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn accept_header() {
        assert_eq!(Media::acceptable(&HeaderMap::new()), Some(Media::Json));
        let cases = [
            ("*/*", Some(Media::Json)),
            ("application/*", Some(Media::Json)),
            (
                "application/json, application/x-protobuf",
                Some(Media::Json),
            ),
            ("application/x-protobuf", Some(Media::Protobuf)),
            (
                "application/json;q=0, application/x-protobuf",
                Some(Media::Protobuf),
            ),
            ("application/recordio", None),
            ("text/html", None),
        ];
        for (value, expected) in cases {
            assert_eq!(Media::acceptable(&with(ACCEPT, value)), expected, "{value}");
        }
    }

    #[test]
    fn content_type_and_encoding() {
        assert_eq!(
            Media::of_content_type("application/json"),
            Some(Media::Json)
        );
        assert_eq!(
            Media::of_content_type("application/json; charset=utf-8"),
            None
        );
        assert!(!accepts_encoding(&HeaderMap::new(), "gzip"));
        assert!(accepts_encoding(
            &with(ACCEPT_ENCODING, "deflate, gzip;q=0.5"),
            "gzip"
        ));
        assert!(!accepts_encoding(
            &with(ACCEPT_ENCODING, "gzip;q=0.0"),
            "gzip"
        ));
    }
}
