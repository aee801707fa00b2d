//! What a URI means: where it is fetched from, and what it is called in the sandbox.

use std::path::{Component, Path, PathBuf};

use tepui_module_sdk::Failure;
use tepui_module_sdk::Result;
use tepui_module_sdk::proto::fetcher::Uri;
use url::Url;

/// Where something is fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// By HTTP or HTTPS.
    Http(Url),
    /// By another program, chosen by the scheme.
    Program { scheme: String, uri: String },
}

impl Source {
    /// The source of a URI. One without a scheme is a path, relative to `home` if it does not begin with a slash.
    pub(crate) fn of(uri: &str, home: Option<&Path>) -> Result<Self> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Self::path(uri, home);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(Failure::invalid(
                        "only local files can be fetched by file://, as file:///path",
                    ));
                }
                Ok(Self::File(path.into()))
            }
            "http" | "https" => Url::parse(uri)
                .map(Self::Http)
                .map_err(|error| Failure::invalid(format!("it is no URL: {error}"))),
            "" => Err(Failure::invalid("its scheme is empty")),
            scheme => Ok(Self::Program {
                scheme: scheme.to_owned(),
                uri: uri.to_owned(),
            }),
        }
    }

    fn path(path: &str, home: Option<&Path>) -> Result<Self> {
        match (path.starts_with('/'), home) {
            (true, _) => Ok(Self::File(path.into())),
            (false, Some(home)) => Ok(Self::File(home.join(path))),
            (false, None) => Err(Failure::invalid(
                "a relative path needs the agent's --frameworks_home",
            )),
        }
    }
}

/// The path in the sandbox that a URI is fetched to: its `output_file`, or the last part of its path.
pub(crate) fn name(uri: &Uri) -> Result<String> {
    if uri.output_file.is_empty() {
        return base_name(&uri.value);
    }
    let path = Path::new(&uri.output_file);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    let named = path.file_name().is_some() && !uri.output_file.ends_with('/');
    if !named || !path.components().all(plain) {
        return Err(Failure::invalid(format!(
            "output_file '{}' must be a relative path without '..' that names a file",
            uri.output_file
        )));
    }
    Ok(uri.output_file.clone())
}

fn base_name(uri: &str) -> Result<String> {
    let is_http = uri.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let (path, least) = match uri.split_once("://") {
        // The first part is the host.
        Some((_, rest)) => (rest, 2),
        None => (uri, 1),
    };
    let path = match is_http {
        true => path.split(['?', '#']).next().unwrap_or(path),
        false => path,
    };
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match parts.last() {
        Some(name) if parts.len() >= least && !matches!(*name, "" | "." | "..") => {
            Ok((*name).to_owned())
        }
        _ => Err(Failure::invalid(
            "its path does not end in the name of a file; set output_file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_says_where_from() {
        let home = Path::new("/home/frameworks");
        let file = |path: &str| Source::File(path.into());
        let of = |uri| Source::of(uri, Some(home)).unwrap();
        assert_eq!(of("/a/b"), file("/a/b"));
        assert_eq!(of("a/b"), file("/home/frameworks/a/b"));
        assert_eq!(of("file:///a/b"), file("/a/b"));
        assert_eq!(of("file://localhost/a/b"), file("/a/b"));
        assert!(matches!(of("HTTPS://h/x"), Source::Http(_)));
        assert_eq!(
            of("hdfs://n/x"),
            Source::Program {
                scheme: "hdfs".to_owned(),
                uri: "hdfs://n/x".to_owned()
            }
        );
        for wrong in ["file://host/x", "http://", "://x"] {
            assert!(Source::of(wrong, None).is_err(), "{wrong}");
        }
        let error = Source::of("a/b", None).unwrap_err().to_string();
        assert!(error.contains("--frameworks_home"), "{error}");
    }

    #[test]
    fn names_are_the_last_part_or_what_is_asked_for() {
        let named = |value: &str, output_file: &str| {
            name(&Uri {
                value: value.to_owned(),
                output_file: output_file.to_owned(),
                ..Uri::default()
            })
        };
        for (value, expected) in [
            ("http://h/a/b.tgz", "b.tgz"),
            ("http://h/b.tgz?token=a/b#c", "b.tgz"),
            ("/x/y z", "y z"),
            ("hdfs://n/d/e", "e"),
            ("x", "x"),
        ] {
            assert_eq!(named(value, "").unwrap(), expected);
        }
        for wrong in ["http://h", "http://h/", "/", "", "/a/..", "http://h/?x=/y"] {
            assert!(named(wrong, "").is_err(), "{wrong}");
        }
        assert_eq!(named("http://h", "a/b").unwrap(), "a/b");
        for wrong in ["/a", "../a", "a/../../b", "a/", "a/..", "."] {
            let error = named("http://h/x", wrong).unwrap_err().to_string();
            assert!(error.contains("output_file"), "{error}");
        }
    }
}
