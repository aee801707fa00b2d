use serde_json::json;

use super::*;

fn tables(text: &str) -> toml::Table {
    text.parse().unwrap()
}

#[test]
fn tables_of_a_file_are_taken_and_unknown_keys_name_the_nearest() {
    let mut config = ModuleConfig::default();
    let file = Path::new("/etc/tepui/master.toml");
    config
        .add_settings(
            file,
            tables("['acme/group']\nadmins = 'platform'\nlimits = [1, 2]"),
        )
        .unwrap();
    assert_eq!(config.settings["acme/group"]["limits"], json!([1, 2]));
    config
        .add_load(file, tables("['acme/group']\nfile = '/x/lib.so'\ntimeout = '5secs'\nrun_in = 'process'\nrequired = false"))
        .unwrap();
    let load = config.load("acme/group");
    assert_eq!((load.run_in, load.required), (RunIn::Process, false));
    assert_eq!(load.timeout, Some(Duration::from_secs(5)));
    assert_eq!(config.load("other"), Load::default());

    for (text, message) in [
        (
            "[m]\nfil = '/x'",
            "/etc/tepui/master.toml: [load.\"m\"]: unknown key 'fil'; did you mean 'file'?",
        ),
        (
            "[m]\nrun_in = 'child'",
            "/etc/tepui/master.toml: [load.\"m\"]: run_in: \"child\" is not \"daemon\" or \"process\"",
        ),
        (
            "[m]\nfile = 'lib.so'",
            "/etc/tepui/master.toml: [load.\"m\"]: file: lib.so is not an absolute path",
        ),
        (
            "[m]\nsha256 = 'abc'",
            "/etc/tepui/master.toml: [load.\"m\"]: sha256: expected 64 hexadecimal digits",
        ),
        (
            "m = 3",
            "/etc/tepui/master.toml: [load.\"m\"]: expected a table, found integer",
        ),
    ] {
        assert_eq!(
            config.add_load(file, tables(text)).unwrap_err().to_string(),
            message
        );
    }
}

#[test]
fn a_mesos_manifest_is_converted_by_the_schema() {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "on": {"type": "boolean"},
            "count": {"type": ["integer", "null"]},
            "names": {"type": "array", "items": {"type": "string"}},
            "mode": {"$ref": "#/$defs/Mode"},
            "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "groups": {"type": "object"},
        },
        "$defs": {"Mode": {"type": "string", "enum": ["a", "b"]}},
    });
    let manifest = json!({"libraries": [{"name": "acme", "modules": [{"name": "acme/group", "parameters": [
        {"key": "on", "value": "true"},
        {"key": "count", "value": "3"},
        {"key": "names", "value": "a, b"},
        {"key": "names", "value": "c"},
        {"key": "mode", "value": "b"},
        {"key": "share", "value": "0.5"},
        {"key": "groups", "value": "{\"x\": 1}"},
    ]}]}]});
    let mut config = ModuleConfig::default();
    config.set("acme/group", "count", json!(1));
    config
        .add_mesos_manifest("--modules", &manifest.to_string())
        .unwrap();
    let settings = schema::settings(&config, "acme/group", &schema).unwrap();
    let expected = json!({"count": 3, "on": true, "names": ["a", "b", "c"], "mode": "b", "share": 0.5, "groups": {"x": 1}});
    assert_eq!(Value::Object(settings), expected);
    assert_eq!(config.load("acme/group").file, Some("libacme.so".into()));

    let twice = config
        .add_mesos_manifest("other", &manifest.to_string())
        .unwrap_err();
    assert_eq!(
        twice.to_string(),
        "module 'acme/group' is given twice, in --modules and in other"
    );

    let mut config = ModuleConfig::default();
    let manifest = json!({"libraries": [{"modules": [{"name": "m", "parameters": [{"key": "count", "value": "many"}]}]}]});
    config
        .add_mesos_manifest("--modules", &manifest.to_string())
        .unwrap();
    let errors = schema::settings(&config, "m", &schema).unwrap_err();
    assert_eq!(
        errors,
        ["--modules: parameter 'count': \"many\" is not a whole number"]
    );
}

#[test]
fn settings_are_checked_and_unknown_ones_name_the_nearest() {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["root"],
        "properties": {"root": {"type": "string"}, "max_megabytes": {"type": "integer"}},
    });
    let mut config = ModuleConfig::default();
    config.set("m", "max_megabyte", json!(3));
    config.set("m", "max_megabytes", json!("3"));
    let errors = schema::settings(&config, "m", &schema).unwrap_err();
    assert_eq!(
        errors[0],
        "unknown setting 'max_megabyte'; did you mean 'max_megabytes'?"
    );
    assert!(
        errors[1..].iter().any(|e| e.starts_with("max_megabytes: ")),
        "{errors:?}"
    );
    assert!(
        errors[1..].iter().any(|e| e.contains("\"root\"")),
        "{errors:?}"
    );
    assert_eq!(errors.len(), 3);
}
