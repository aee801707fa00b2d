//! What tasks say while they wait for their images: on a terminal a line for each that changes, else a line each time.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tepui_proto::v1::{TaskStatus, task_status::Source};

/// The lines on the terminal, by task. Without a terminal there are none.
#[derive(Default)]
pub(super) struct Pulls {
    all: MultiProgress,
    lines: BTreeMap<String, ProgressBar>,
}

impl Pulls {
    /// Shows a status; `line` is how it is printed.
    pub(super) fn show(&mut self, status: &TaskStatus, line: &str) {
        let id = &status.task_id.value;
        if !is_progress(status) {
            if let Some(ended) = self.lines.remove(id) {
                ended.finish_and_clear();
                self.all.remove(&ended);
            }
            return self.print(line);
        }
        if self.all.is_hidden() {
            return self.print(line);
        }
        let all = &self.all;
        let shown = self.lines.entry(id.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("a valid template");
            all.add(ProgressBar::new_spinner().with_style(style))
        });
        shown.set_message(line.to_owned());
        shown.tick();
    }

    fn print(&self, line: &str) {
        self.all.suspend(|| eprintln!("{line}"));
    }

    /// Makes room for what others print; the lines come back with what is shown next.
    pub(super) fn make_room(&self) {
        // A terminal that cannot be cleared is none.
        let _ = self.all.clear();
    }
}

/// Whether an agent says only how far a pull is: it does so without reason, and wants no acknowledgement.
fn is_progress(status: &TaskStatus) -> bool {
    status.uuid.is_none() && status.reason.is_none() && status.source() == Source::Agent
}
