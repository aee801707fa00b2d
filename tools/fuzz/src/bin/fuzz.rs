//! libFuzzer on the target that `TEPUI_FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use tepui_fuzz::{TARGETS, Target, target};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("TEPUI_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            panic!("TEPUI_FUZZ_TARGET is {name:?}, not one of {known:?}")
        })
    });
    run(data);
});
