//! What users read of the flags is what the daemons take.

use std::path::Path;

#[test]
fn the_page_of_flags_is_made_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FLAGS.md");
    let page = tepui_daemon::flags::page();
    if std::env::var_os("TEPUI_WRITE_FLAGS").is_some() {
        std::fs::write(&path, &page).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/FLAGS.md");
    let differs = found.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        found == page,
        "docs/FLAGS.md is not what the flags say, first at {differs:?}: write it anew with \
         `TEPUI_WRITE_FLAGS=1 cargo test -p tepui-daemon --test flags_page`"
    );
}
