//! Names of images: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use std::fmt;

use crate::error::{Error, Result};
use crate::manifest::Digest;

/// A parsed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry; none is the default one.
    pub registry: Option<String>,
    /// The path in the registry.
    pub repository: String,
    /// The tag; `latest` where neither a tag nor a digest is given.
    pub tag: Option<String>,
    /// The digest of the manifest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(name: &str) -> Result<Self> {
        let bad = |why: &str| Error::Refused(format!("'{name}' is no name of an image: {why}"));
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (name, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let (registry, repository) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (Some(first.to_owned()), path)
            }
            _ => (None, rest),
        };
        let is_part = |part: &str| {
            let fits = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
            };
            part.starts_with(|first: char| first.is_ascii_alphanumeric()) && part.bytes().all(fits)
        };
        if repository.len() > 255 || !repository.split('/').all(is_part) {
            return Err(bad(
                "a path has parts of lower case letters, digits, '.', '_' and '-', joined by '/'",
            ));
        }
        let is_tag = |tag: &String| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.bytes().all(fits)
        };
        if !tag.as_ref().is_none_or(is_tag) {
            return Err(bad("a tag has up to 128 letters, digits, '.', '_' and '-'"));
        }
        let is_host = |host: &String| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte);
            host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
                && host.bytes().all(fits)
        };
        if !registry.as_ref().is_none_or(is_host) {
            return Err(bad("the registry is no HOST or HOST:PORT"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self {
            registry,
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(formatter, "{registry}/")?;
        }
        formatter.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, registry, repository, tag) in [
            ("busybox", None, "busybox", Some("latest")),
            ("a/b:1.0_x", None, "a/b", Some("1.0_x")),
            ("localhost/a", Some("localhost"), "a", Some("latest")),
            ("h:5000/a/b:t", Some("h:5000"), "a/b", Some("t")),
            ("[::1]:5000/a/b:t", Some("[::1]:5000"), "a/b", Some("t")),
            ("[fd00::1]/a", Some("[fd00::1]"), "a", Some("latest")),
            (&format!("r.io/a@{digest}"), Some("r.io"), "a", None),
            (&format!("box@{digest}"), None, "box", None),
            (&format!("box:1@{digest}"), None, "box", Some("1")),
        ] {
            let parsed = Reference::parse(name).unwrap();
            assert_eq!(parsed.registry.as_deref(), registry, "{name}");
            assert_eq!(
                (&*parsed.repository, parsed.tag.as_deref()),
                (repository, tag)
            );
        }
        for name in [
            "",
            "A",
            "a//b",
            "../a",
            "a/..",
            "a:",
            "a:b c",
            "a@sha256:1",
            "r.io/",
            "u@h.io/a",
            "a:-x",
            "box@sha512:aa",
            "box@",
            "[::1/a:b:c",
        ] {
            assert!(
                matches!(Reference::parse(name), Err(Error::Refused(_))),
                "{name}"
            );
        }
    }
}
