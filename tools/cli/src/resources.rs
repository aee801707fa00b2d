//! Resources as arguments of commands.

use tepui_model::resources::Resources;

/// Reads resources; the reason of a mistake says what they look like.
pub(crate) fn resources(text: &str) -> Result<Resources, String> {
    let expected = "expected resources such as 'cpus:2;mem:512'";
    match Resources::parse(text, "*") {
        Ok(all) if all.is_empty() => Err(expected.to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{error}; {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_say_what_was_expected() {
        for text in ["cpus=2", "", "cpus:x"] {
            let error = resources(text).unwrap_err();
            assert!(error.contains("'cpus:2;mem:512'"), "{text:?}: {error}");
        }
        assert!(!resources("cpus:2;mem:512").unwrap().is_empty());
    }
}
