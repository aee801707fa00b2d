//! Every target on its corpus, and on copies of it with a byte changed, lost or cut off.

use std::fs;
use std::path::{Path, PathBuf};

use tepui_fuzz::TARGETS;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn nothing_in_the_corpus_fails() {
    for (name, run) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 3, "{name} has a corpus of {}", inputs.len());
        for (path, input) in inputs {
            println!("{}", path.display());
            run(&input);
        }
    }
}

#[test]
fn nothing_damaged_fails() {
    for (name, run) in TARGETS {
        for (path, input) in corpus(name) {
            println!("{}", path.display());
            // Evenly spread, so that a long input does not take all the time.
            let step = input.len() / 64 + 1;
            for place in (0..input.len()).step_by(step) {
                let mut changed = input.clone();
                for value in [0, b'"', b'}', 0x80, 0xff] {
                    changed[place] = value;
                    run(&changed);
                }
                changed.remove(place);
                run(&changed);
                run(&input[..place]);
            }
        }
    }
}
