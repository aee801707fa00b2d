//! Mistyped names in the files of `tepui run`. Mesos ignores fields that it does not know, so the task would run without
//! what was asked for.

use anyhow::{Result, bail};
use serde_json::Value;
use tepui_host::config::nearest;
use tepui_proto::descriptor::{Kind, MessageDescriptor};

/// Refuses a field that the message, or one inside it, does not have.
pub(super) fn known(value: &Value, message: &MessageDescriptor) -> Result<()> {
    let Value::Object(fields) = value else {
        return Ok(());
    };
    for (name, value) in fields {
        let Some(field) = message.field_by_name(name) else {
            let short = message.name.rsplit('.').next().unwrap_or(message.name);
            match nearest(name, message.fields.iter().map(|field| field.name)) {
                Some(near) => bail!("unknown field '{name}' of {short}; did you mean '{near}'?"),
                None => bail!("unknown field '{name}' of {short}"),
            }
        };
        // The names in a map are the site's own.
        let Kind::Message(inner) = field.kind else {
            continue;
        };
        if inner.is_map_entry {
            continue;
        }
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| known(value, inner))?,
            value => known(value, inner)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tepui_proto::descriptor::Described;
    use tepui_proto::v1::TaskInfo;

    use super::*;

    #[test]
    fn mistyped_names_are_found_at_any_depth() {
        let check = |task: Value| known(&task, TaskInfo::DESCRIPTOR).map_err(|e| e.to_string());
        let good = json!({
            "name": "a",
            "command": { "value": "true", "uris": [{ "value": "/x", "cache": true }] },
            "limits": { "cpus": { "value": 2 } },
        });
        assert_eq!(check(good), Ok(()));
        for (task, expected) in [
            (
                json!({ "comand": {} }),
                "unknown field 'comand' of TaskInfo; did you mean 'command'?",
            ),
            (
                json!({ "command": { "uris": [{}, { "valeu": "/x" }] } }),
                "unknown field 'valeu' of URI; did you mean 'value'?",
            ),
            (
                json!({ "zzzzzzzz": 1 }),
                "unknown field 'zzzzzzzz' of TaskInfo",
            ),
        ] {
            assert_eq!(check(task), Err(expected.to_owned()));
        }
    }
}
