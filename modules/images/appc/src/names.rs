//! Names of images, and where simple discovery looks for them.

use std::collections::BTreeMap;
use std::fmt;

use tepui_image_content::{Error, Result};
use tepui_module_sdk::mesos::image::Appc;

/// An image that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// The SHA-512 of the unpacked archive, in hexadecimal digits.
    pub(crate) id: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Wanted {
    /// Of a task or volume.
    pub(crate) fn of(appc: &Appc) -> Result<Self> {
        let labels = appc.labels.iter().flat_map(|labels| &labels.labels);
        let labels = labels.map(|label| (label.key.clone(), label.value().to_owned()));
        Self::new(&appc.name, appc.id.as_deref(), labels.collect())
    }

    /// Of these words, checked.
    pub(crate) fn new(
        name: &str,
        id: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Self> {
        let bad = |why: String| Error::Refused(format!("'{name}' is no Appc image: {why}"));
        // The specification's form of identifiers; no part is empty, so none leads up.
        let is_part = |part: &str| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !part.is_empty() && part.bytes().all(fits)
        };
        if name.len() > 255 || !name.split(['-', '.', '_', '~', '/']).all(is_part) {
            return Err(bad(
                "a name has lower case letters and digits, joined by single '-', '.', '_', '~' or '/'".to_owned(),
            ));
        }
        for (key, value) in &labels {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+-".contains(&byte);
            if value.len() > 128 || !value.bytes().all(fits) {
                return Err(bad(format!(
                    "the label '{key}' has the value '{value}': expected letters, digits, '.', '_', '~', '+' and '-'"
                )));
            }
        }
        let digits = |id: &str| -> Option<String> {
            let hex = id.strip_prefix("sha512-")?;
            let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (hex.len() == 128 && hex.bytes().all(fits)).then(|| hex.to_owned())
        };
        let id = match id {
            Some(id) => Some(digits(id).ok_or_else(|| {
                bad(format!(
                    "the id '{id}' is not sha512- and 128 hexadecimal digits"
                ))
            })?),
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            id,
            labels,
        })
    }

    /// Where its archive is.
    pub(crate) fn uri(&self, prefix: &str) -> String {
        let label = |key: &str, usual: &'static str| {
            let value = self.labels.get(key).map(String::as_str);
            value.unwrap_or(usual).to_owned()
        };
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "i386",
            other => other,
        };
        format!(
            "{prefix}{}-{}-{}-{}.aci",
            self.name,
            label("version", "latest"),
            label("os", "linux"),
            label("arch", arch)
        )
    }
}

/// What the store remembers it by.
impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        for (key, value) in &self.labels {
            write!(formatter, ",{key}={value}")?;
        }
        match &self.id {
            Some(id) => write!(formatter, ",id=sha512-{id}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_looked_for_where_their_labels_say() {
        let wanted = |name: &str, version: &str| {
            let labels = [("version".to_owned(), version.to_owned())];
            Wanted::new(name, None, labels.into())
        };
        let found = wanted("example.com/a-b", "1.0+x").unwrap();
        let uri = found.uri("/images/");
        assert!(
            uri.starts_with("/images/example.com/a-b-1.0+x-linux-"),
            "{uri}"
        );
        let plain = Wanted::new("box", None, BTreeMap::new()).unwrap();
        assert!(plain.uri("http://").starts_with("http://box-latest-linux-"));
        assert_eq!(found.to_string(), "example.com/a-b,version=1.0+x");
        for name in ["", "../a", "a//b", "a/../b", "/a", "a/", "A", "a b", "a.-b"] {
            assert!(wanted(name, "1").is_err(), "{name}");
        }
        for version in ["../1", "a/b", "a b", "a?b"] {
            assert!(wanted("a", version).is_err(), "{version}");
        }
        assert!(Wanted::new("a", Some("sha512-abc"), BTreeMap::new()).is_err());
    }
}
