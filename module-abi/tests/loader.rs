//! The loader symbol has the name abi_stable looks for, and what is no library is refused in a line.

use std::fs;

use tepui_module_abi::{OpenError, open};

#[test]
fn the_sdk_writes_the_symbol_that_is_looked_for() {
    assert_eq!(
        tepui_module_abi::macro_support::ROOT_MODULE_LOADER_NAME,
        "_1as_0lib_1header_0root_bmodule_bloader"
    );
}

#[test]
fn other_files_are_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.so");
    fs::write(&file, "not a library").unwrap();
    let error = open(&file).unwrap_err();
    assert!(matches!(error, OpenError::NotLoadable { .. }));
    assert!(
        error
            .to_string()
            .contains("text.so: the system cannot load it: "),
        "{error}"
    );
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    let missing = open(&folder.path().join("missing.so")).unwrap_err();
    assert!(missing.to_string().contains("No such file"), "{missing}");
}
