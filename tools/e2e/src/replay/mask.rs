//! What differs between two runs of the same cluster, replaced by its kind.
//!
//! Rules look at a value's key and at its form, never at a whole body, and keep everything else
//! byte for byte: the order of keys, white space, whether a number has a decimal point.

/// Keys whose numbers are points in time.
const TIMES: &[&str] = &[
    "timestamp",
    "mtime",
    "nanoseconds",
    "start_time",
    "build_time",
];

/// Keys whose values belong to the release that was built.
const RELEASE: &[&str] = &["version", "build_date", "build_user", "git_sha", "git_tag"];

/// Keys whose numbers belong to the machine.
const MACHINE: &[&str] = &[
    "cpus_system_time_secs",
    "cpus_user_time_secs",
    "executor_pid",
    "mem_free_bytes",
    "mem_rss_bytes",
    "mem_total_bytes",
];

/// What is compared of a container's statistics: the rest depends on the isolators.
const STATISTICS: &[&str] = &[
    "cpus_soft_limit",
    "cpus_system_time_secs",
    "cpus_user_time_secs",
    "mem_limit_bytes",
    "mem_rss_bytes",
    "mem_soft_limit_bytes",
    "timestamp",
];

/// A masked text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// The text with each changing part replaced by its kind.
    pub text: String,
    /// The ids that were replaced, in their order.
    pub ids: Vec<String>,
}

/// Which numbers are figures of the machine or of the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    /// Those whose key says so.
    Named,
    /// Those, and the amounts of scalar resources: what is free while tasks end.
    Amounts,
    /// All numbers.
    All,
}

impl Figures {
    /// All numbers of a metrics snapshot are figures.
    fn of_path(path: &str) -> Self {
        if path.contains("/metrics/snapshot") || path.contains("/system/stats.json") {
            Self::All
        } else {
            Self::Named
        }
    }
}

/// Lists of things that have no order: Mesos shows them as its hash maps have them, or as they end.
const UNORDERED: &[&str] = &[
    "agents",
    "completed_executors",
    "completed_frameworks",
    "completed_tasks",
    "configs",
    "containers",
    "executors",
    "frameworks",
    "infos",
    "launched_tasks",
    "offered_resources",
    "offered_resources_full",
    "offers",
    "slaves",
    "tasks",
    "terminated_tasks",
];

/// Masks a JSON body. `path` is the request's: all numbers of a metrics snapshot are figures.
/// Text that is not JSON comes back masked as text.
/// Lists have no order, and leave out what names one of the tasks in `without`.
pub fn json(body: &str, path: &str, without: &[String]) -> String {
    // `/tasks` sorts; it has to be compared in its order.
    let without = (!path.contains("/tasks")).then_some(without);
    masked(body, Figures::of_path(path), without).text
}

/// As [`json`], with the ids that were there; lists stay in their order.
pub fn json_with_ids(body: &str, figures: Figures) -> Masked {
    masked(body, figures, None)
}

fn masked(body: &str, figures: Figures, without: Option<&[String]>) -> Masked {
    let mut walker = Walker {
        text: body,
        place: 0,
        out: Masked::default(),
        figures,
        without,
    };
    let is_json = walker.value(&[]).is_some();
    if !is_json || walker.place != body.len() {
        let mut out = Masked::default();
        mask_text(body, &mut out);
        return out;
    }
    // Only a build from a checkout, ours or Mesos', knows its commit.
    let text = walker.out.text.replace(r#""git_sha":"<release>","#, "");
    Masked { text, ..walker.out }
}

/// Masks ids, addresses and dates in a text.
pub fn text(text: &str) -> String {
    let mut out = Masked::default();
    mask_text(text, &mut out);
    out.text
}

fn mask_text(text: &str, out: &mut Masked) {
    let mut rest = text;
    'next: while let Some(first) = rest.chars().next() {
        for (length_of, mask) in PATTERNS {
            if let Some(length) = length_of(rest) {
                out.text.push_str(mask);
                if matches!(*mask, "<id>" | "<uuid>") {
                    out.ids.push(rest[..length].to_owned());
                }
                rest = &rest[length..];
                continue 'next;
            }
        }
        out.text.push(first);
        rest = &rest[first.len_utf8()..];
    }
}

/// Says how long a pattern is at the start of a text; `None` when it is not there.
type LengthOf = fn(&str) -> Option<usize>;

const PATTERNS: &[(LengthOf, &str)] = &[
    (id, "<id>"),
    (uuid, "<uuid>"),
    (|text| numbered(text, "127.0.0.1:"), "<address>"),
    (|text| numbered(text, "localhost:"), "<address>"),
    (
        |text| numbered(text, "slave(").filter(|&n| text[n..].starts_with(')')),
        "slave(<n>",
    ),
    (date, "<date>"),
];

/// `UUID-S1`, `UUID-O12`, `UUID-0003`: agent, offer, framework.
fn id(text: &str) -> Option<usize> {
    let start = uuid(text)?;
    ["-S", "-O", "-"]
        .iter()
        .find_map(|mark| Some(start + numbered(&text[start..], mark)?))
}

fn uuid(text: &str) -> Option<usize> {
    let form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    let is_uuid = text.len() >= form.len()
        && form
            .bytes()
            .zip(text.bytes())
            .all(|(form, byte)| match form {
                b'-' => byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            });
    is_uuid.then_some(form.len())
}

fn numbered(text: &str, prefix: &str) -> Option<usize> {
    let digits = text
        .strip_prefix(prefix)?
        .bytes()
        .take_while(u8::is_ascii_digit)
        .count();
    (digits > 0).then_some(prefix.len() + digits)
}

/// `Sun, 22 Nov 2026 12:18:44 GMT`
fn date(text: &str) -> Option<usize> {
    let form = "Aaa, 00 Aaa 0000 00:00:00 GMT";
    let is_date = text.len() >= form.len()
        && form
            .bytes()
            .zip(text.bytes())
            .all(|(form, byte)| match form {
                b'A' => byte.is_ascii_uppercase(),
                b'a' => byte.is_ascii_lowercase(),
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
    is_date.then_some(form.len())
}

/// Copies JSON and replaces scalars. Functions return `None` where the text is not JSON.
struct Walker<'a> {
    text: &'a str,
    place: usize,
    out: Masked,
    figures: Figures,
    /// What lists without an order leave out; `None` where lists keep their order.
    without: Option<&'a [String]>,
}

impl<'a> Walker<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.place).copied()
    }

    fn copy_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.copy(1);
        }
    }

    fn copy(&mut self, length: usize) {
        self.out
            .text
            .push_str(&self.text[self.place..self.place + length]);
        self.place += length;
    }

    fn value(&mut self, keys: &[&'a str]) -> Option<()> {
        self.copy_white_space();
        match self.peek()? {
            b'{' if keys.last().is_some_and(|key| key.ends_with("statistics")) => {
                let (members, between) = self.elements(b'}', |walker| walker.member(keys))?;
                let is_kept = |member: &String| {
                    let key = member.split('"').nth(1).unwrap_or_default();
                    STATISTICS.contains(&key)
                };
                let mut members: Vec<String> = members.into_iter().filter(is_kept).collect();
                // Of an isolator that shows more, the order is another one too.
                members.sort();
                self.push_list('{', &members, '}', &between);
            }
            // Maps of protobuf, which have no order.
            b'{' if matches!(keys.last(), Some(&("guarantees" | "limits"))) => {
                let (mut members, between) = self.elements(b'}', |walker| walker.member(keys))?;
                members.sort();
                self.push_list('{', &members, '}', &between);
            }
            b'{' => self.list(b'}', |walker| walker.member(keys))?,
            b'[' if self.without.is_some()
                && keys.last().is_none_or(|key| UNORDERED.contains(key)) =>
            {
                let (mut elements, between) = self.elements(b']', |walker| walker.value(keys))?;
                elements.retain(|element| !self.is_left_out(element));
                elements.sort();
                self.push_list('[', &elements, ']', &between);
            }
            b'[' => self.list(b']', |walker| walker.value(keys))?,
            b'"' => {
                let token = self.string()?;
                self.out.text.push('"');
                mask_string(&token[1..token.len() - 1], keys, &mut self.out);
                self.out.text.push('"');
            }
            _ => {
                let rest = &self.text[self.place..];
                let length = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']);
                let token = &rest[..length.unwrap_or(rest.len())];
                serde_json::from_str::<serde_json::Value>(token).ok()?;
                self.place += token.len();
                let masked = mask_number(token, keys, self.figures);
                self.out.text.push_str(&masked);
            }
        }
        self.copy_white_space();
        Some(())
    }

    fn list(&mut self, end: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.copy(1);
        self.copy_white_space();
        if self.peek()? == end {
            self.copy(1);
            return Some(());
        }
        loop {
            self.copy_white_space();
            element(self)?;
            let next = self.peek()?;
            if next != b',' && next != end {
                return None;
            }
            self.copy(1);
            if next == end {
                return Some(());
            }
        }
    }

    /// Masks the elements of a list or the members of an object one by one; with what stands between.
    fn elements(
        &mut self,
        end: u8,
        mut element: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<(Vec<String>, String)> {
        let before = std::mem::take(&mut self.out);
        let mut elements = Vec::new();
        self.list(end, |walker| {
            let outside = std::mem::take(&mut walker.out);
            element(walker)?;
            elements.push(std::mem::replace(&mut walker.out, outside).text);
            Some(())
        })?;
        let between = std::mem::replace(&mut self.out, before).text;
        Some((elements, between))
    }

    fn push_list(&mut self, start: char, elements: &[String], end: char, between: &str) {
        self.out.text.push(start);
        self.out.text.push_str(&elements.join(","));
        self.out.text.push(end);
        // White space counts here too.
        let space = between.replace([start, ',', end], "");
        self.out.text.push_str(&space);
    }

    fn member(&mut self, keys: &[&'a str]) -> Option<()> {
        let key = self.string()?;
        mask_text(key, &mut self.out);
        self.copy_white_space();
        if self.peek()? != b':' {
            return None;
        }
        self.copy(1);
        self.value(&[keys, &[&key[1..key.len() - 1]]].concat())
    }

    fn is_left_out(&self, element: &str) -> bool {
        let without = self.without.unwrap_or_default();
        without
            .iter()
            .any(|task| element.contains(&format!("\"{task}\"")))
    }

    /// Takes a string token with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.place..];
        let mut escaped = false;
        if !rest.starts_with('"') {
            return None;
        }
        for (place, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.place += place + 1;
                    return Some(&rest[..=place]);
                }
                _ => {}
            }
        }
        None
    }
}

/// Members that are uuids as bytes, or messages of one.
fn is_uuid(key: &str) -> bool {
    key == "uuid" || key.ends_with("_uuid")
}

fn mask_string(value: &str, keys: &[&str], out: &mut Masked) {
    let key = keys.last().copied().unwrap_or_default();
    let is_flag = keys.contains(&"flags") || keys.contains(&"get_flags");
    if RELEASE.contains(&key) && !is_flag {
        out.text.push_str("<release>");
    } else if is_uuid(key)
        || (key == "value" && keys.iter().rev().nth(1).is_some_and(|of| is_uuid(of)))
    {
        out.text.push_str("<uuid>");
        out.ids.push(value.to_owned());
    } else if is_flag && value.starts_with('/') {
        out.text.push_str("<path>");
    } else {
        mask_text(value, out);
    }
}

fn mask_number(token: &str, keys: &[&str], figures: Figures) -> String {
    let key = keys.last().copied().unwrap_or_default();
    let is_number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    // The form stays: a time that is written as an integer once and as a double now differs.
    let form = if token.contains(['.', 'e', 'E']) {
        ".0"
    } else {
        ""
    };
    if !is_number {
        token.to_owned()
    } else if TIMES.contains(&key) || key.ends_with("_time") {
        format!("<time>{form}")
    } else if key == "port" {
        format!("<port>{form}")
    } else if figures == Figures::All
        || MACHINE.contains(&key)
        || (figures == Figures::Amounts && keys.ends_with(&["scalar", "value"]))
    {
        format!("<figure>{form}")
    } else {
        token.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_ids_addresses_and_dates() {
        let uuid = "2bb699ce-5753-4d4d-ad59-74064e38038a";
        for (from, to) in [
            (format!("slave {uuid}-S1 of {uuid}"), "slave <id> of <uuid>"),
            (format!("{uuid}-0017/{uuid}-O3"), "<id>/<id>"),
            ("master@127.0.0.1:15050".to_owned(), "master@<address>"),
            ("//localhost:15050".to_owned(), "//<address>"),
            ("slave(2)@x".to_owned(), "slave(<n>)@x"),
            ("Sun, 22 Nov 2026 12:18:44 GMT".to_owned(), "<date>"),
            ("é 2bb699ce-5753".to_owned(), "é 2bb699ce-5753"),
        ] {
            assert_eq!(text(&from), to);
        }
    }

    #[test]
    fn json_keeps_order_form_and_white_space() {
        let body = r#"{"b" : 1, "a":[1.50,{"start_time":12.25,"mtime":3}], "version":"1.11.0",
            "port":5050,"flags":{"work_dir":"/tmp/x","port":"5050","version":"false"},"uuid":"AAA="}"#;
        let masked = r#"{"b" : 1, "a":[1.50,{"start_time":<time>.0,"mtime":<time>}], "version":"<release>",
            "port":<port>,"flags":{"work_dir":"<path>","port":"5050","version":"false"},"uuid":"<uuid>"}"#;
        assert_eq!(json(body, "/state", &[]), masked);
        assert_eq!(
            json(r#"{"a/b":1.5}"#, "/metrics/snapshot", &[]),
            r#"{"a/b":<figure>.0}"#
        );
        assert_eq!(json("{not json", "/state", &[]), "{not json");
        assert_eq!(json(r#"{"a":1}x"#, "/state", &[]), r#"{"a":1}x"#);
    }

    #[test]
    fn what_has_no_order_is_compared_without_one() {
        let without = ["gone".to_owned()];
        let masked = |body: &str| json(body, "/state", &without);
        let one = r#"{"tasks":[{"id":"a"},{"id":"gone"},{"id":"b"}],"limits":{"cpus":1,"mem":2}}"#;
        let other = r#"{"tasks":[{"id":"b"},{"id":"a"}],"limits":{"mem":2,"cpus":1}}"#;
        assert_eq!(masked(one), masked(other));
        // Two tasks are not one, white space counts, and other lists keep their order.
        assert_ne!(masked(r#"{"tasks":[1,1]}"#), masked(r#"{"tasks":[1]}"#));
        assert_ne!(masked(r#"{"tasks":[1, 2]}"#), masked(r#"{"tasks":[1,2]}"#));
        assert_ne!(
            masked(r#"{"statuses":[1,2]}"#),
            masked(r#"{"statuses":[2,1]}"#)
        );
        let sorted = |body: &str| json(body, "/master/tasks?limit=1", &without);
        assert_ne!(sorted(r#"{"tasks":[1,2]}"#), sorted(r#"{"tasks":[2,1]}"#));
    }

    #[test]
    fn of_statistics_only_what_every_isolator_shows_counts() {
        let masked = |body: &str| json(body, "/containers", &[]);
        let ours =
            r#"[{"statistics":{"cpus_soft_limit":0.2,"mem_anon_bytes":5,"mem_rss_bytes":7}}]"#;
        let theirs = r#"[{"statistics":{"cpus_soft_limit":0.2,"mem_rss_bytes":9}}]"#;
        assert_eq!(masked(ours), masked(theirs));
        let other = r#"[{"statistics":{"cpus_soft_limit":0.3,"mem_rss_bytes":9}}]"#;
        assert_ne!(masked(ours), masked(other));
    }
}
