//! Layers that would do harm: refused or kept inside, and nothing outside is written. As root, since overlayfs' marks
//! are root's.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use tar::{Builder, EntryType, Header};
use tepui_image_content::{Allowance, Archive, Error, is_whiteout, unpack};

/// Writes a name or a link into a header as it is, `..` and all.
fn header(name: &str, kind: EntryType, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

type Entry<'a> = (&'a str, EntryType, &'a str);

/// An archive of entries: name, kind, and the content of a file or where a link leads.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let is_file = *kind == EntryType::Regular;
        let (link, content) = if is_file { ("", *text) } else { (*text, "") };
        let header = header(name, *kind, link, content.len() as u64);
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const DIR: EntryType = EntryType::Directory;

struct Tried {
    at: tempfile::TempDir,
    result: Result<(), Error>,
}

impl Tried {
    fn new(layer: impl Read) -> Self {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir(at.path().join("layer")).unwrap();
        fs::create_dir(at.path().join("outside")).unwrap();
        fs::write(at.path().join("outside/secret"), "secret").unwrap();
        let result = unpack(
            layer,
            &at.path().join("layer"),
            &Allowance::new(1 << 20, 1000),
        );
        Self { at, result }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.at.path().join("layer").join(path)
    }

    /// Nothing beside the layer has changed.
    fn check_outside(&self, what: &str) {
        let outside = self.at.path().join("outside");
        let names: Vec<_> = fs::read_dir(self.at.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{what}: {names:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{what}");
        let secret = outside.join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret", "{what}");
        assert_eq!(fs::metadata(secret).unwrap().nlink(), 1, "{what}");
    }

    #[track_caller]
    fn check_refused(&self, words: &str) {
        self.check_outside(words);
        match &self.result {
            Err(Error::Refused(said)) => assert!(said.contains(words), "{said}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("NOT RUN: needs root");
    }
    is_root
}

#[test]
fn what_leads_out_of_a_layer_is_refused_or_stays_inside() {
    if !is_root() {
        return;
    }
    for (entries, words) in [
        (&[("../outside/x", FILE, "x")][..], "leads out of it"),
        (&[("a/../../outside/x", FILE, "x")], "leads out of it"),
        (&[("a", HARD, "../outside/secret")], "leads out of it"),
        (&[("a", HARD, "missing")], "is no file of its layer"),
        (
            &[("l", LINK, "../outside"), ("a", HARD, "l/secret")],
            "is no file of its layer",
        ),
        (
            &[(".wh.gone", FILE, ""), ("a", HARD, "gone")],
            "is no file of its layer",
        ),
        (&[("sda", EntryType::Block, "")], "is a device"),
        (&[("a/null", EntryType::Char, "")], "is a device"),
        (&[("a", LINK, "")], "is a link to nowhere"),
        (&[("a", EntryType::new(b'Z'), "")], "unknown kind"),
        (&[(".wh...", FILE, "")], "takes away no name"),
        (&[("", FILE, "x")], "root is no directory"),
        (
            &[("a", FILE, "x"), ("a/b", FILE, "y")],
            "cannot be unpacked",
        ),
    ] {
        Tried::new(&*archive(entries)).check_refused(words);
    }
    // Links lead as they do in a container whose root is the layer.
    let outside = |at: &Path| at.join("outside").to_string_lossy().into_owned();
    let at = tempfile::tempdir().unwrap();
    for to in [
        "../outside",
        "../../../../../../../../../../outside",
        &outside(at.path()),
        "/etc",
    ] {
        let tried = Tried::new(&*archive(&[
            ("l", LINK, to),
            ("l/x", FILE, "x"),
            ("l/.wh.secret", FILE, ""),
        ]));
        tried.check_outside(to);
    }
    let tried = Tried::new(&*archive(&[
        ("usr", DIR, ""),
        ("lib", LINK, "/usr"),
        ("lib/x", FILE, "x"),
        ("/abs", FILE, "y"),
    ]));
    tried.result.as_ref().unwrap();
    assert_eq!(fs::read_to_string(tried.path("usr/x")).unwrap(), "x");
    assert_eq!(fs::read_to_string(tried.path("abs")).unwrap(), "y");
    // A file does not go through a link of its own name.
    let tried = Tried::new(&*archive(&[
        ("l", LINK, "../outside/secret"),
        ("l", FILE, "x"),
    ]));
    tried.result.as_ref().unwrap();
    tried.check_outside("through a link");
    assert!(tried.path("l").symlink_metadata().unwrap().is_file());
}

#[test]
fn bombs_and_broken_archives_are_refused() {
    if !is_root() {
        return;
    }
    let mut long = Builder::new(Vec::new());
    let zeros = vec![0; 2 << 20];
    long.append(&header("big", FILE, "", zeros.len() as u64), &*zeros)
        .unwrap();
    Tried::new(&*long.into_inner().unwrap()).check_refused("max_image_bytes");
    let many: Vec<String> = (0..1001).map(|number| format!("f{number}")).collect();
    let entries: Vec<Entry<'_>> = many.iter().map(|name| (name.as_str(), FILE, "")).collect();
    Tried::new(&*archive(&entries)).check_refused("too many files");
    // A name that is longer than anything else of the file.
    let mut name = Builder::new(Vec::new());
    name.append(
        &header("n", EntryType::GNULongName, "", zeros.len() as u64),
        &*zeros,
    )
    .unwrap();
    Tried::new(&*name.into_inner().unwrap()).check_refused("the description of a file is too long");
    // The same by a header that says a thousand times more, of which nothing is kept in memory.
    let endless = header("n", EntryType::GNULongName, "", 1 << 30);
    let content = endless.as_bytes().chain(io::repeat(b'n').take(1 << 30));
    let tried = Tried::new(content);
    tried.check_refused("the description of a file is too long");
    // An archive of docker save is read by the same bound.
    let saved = tried.at.path().join("outside/saved.tar");
    let mut file = fs::File::create(&saved).unwrap();
    file.write_all(endless.as_bytes()).unwrap();
    file.set_len(4 << 20).unwrap();
    let said = Archive::open(&saved).unwrap_err().to_string();
    assert!(
        said.contains("the description of a file is too long"),
        "{said}"
    );
    // A file that says it is sparse and huge.
    let mut sparse = header("sparse", EntryType::GNUSparse, "", 0);
    sparse
        .as_gnu_mut()
        .unwrap()
        .realsize
        .copy_from_slice(b"77777777777\0");
    sparse.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&sparse, &[][..]).unwrap();
    let tried = Tried::new(&*builder.into_inner().unwrap());
    assert!(
        matches!(tried.result, Err(Error::Refused(_))),
        "{:?}",
        tried.result
    );
    let whole = archive(&[("a", FILE, &"x".repeat(8192))]);
    Tried::new(&whole[..4096]).check_refused("");
    let mut changed = whole;
    changed[0] = b'b';
    Tried::new(&*changed).check_refused("is no archive");
    let mut garbage = Vec::new();
    write!(garbage, "{}", "no archive ".repeat(100)).unwrap();
    Tried::new(&*garbage).check_refused("is no archive");
}

#[test]
fn permissions_and_what_is_taken_away_are_kept() {
    if !is_root() {
        return;
    }
    let mut builder = Builder::new(Vec::new());
    let mut su = header("bin/su", FILE, "", 1);
    su.set_mode(0o4755);
    su.set_uid(7);
    su.set_gid(8);
    su.set_cksum();
    builder.append(&su, &b"x"[..]).unwrap();
    builder
        .append(&header("dev/sda", EntryType::Block, "", 0), &[][..])
        .unwrap();
    let commit = "52 comment=0123456789012345678901234567890123456789\n";
    builder
        .append(
            &header("pax_global_header", EntryType::XGlobalHeader, "", 52),
            commit.as_bytes(),
        )
        .unwrap();
    for name in [
        "bin/.wh.gone",
        "etc/.wh..wh..opq",
        "etc/.wh..wh.plnk",
        "etc/kept",
    ] {
        builder.append(&header(name, FILE, "", 0), &[][..]).unwrap();
    }
    let tried = Tried::new(&*builder.into_inner().unwrap());
    tried.result.as_ref().unwrap();
    let su = fs::metadata(tried.path("bin/su")).unwrap();
    // As in Mesos. The root is mounted without devices, but with set-user-id programs.
    assert_eq!(
        (su.permissions().mode() & 0o7777, su.uid(), su.gid()),
        (0o4755, 7, 8)
    );
    assert!(!tried.path("dev/sda").exists());
    assert!(!tried.path("pax_global_header").exists());
    assert!(is_whiteout(&tried.path("bin/gone")).unwrap());
    assert!(!is_whiteout(&tried.path("etc/kept")).unwrap());
    assert_eq!(fs::read_dir(tried.path("etc")).unwrap().count(), 1);
    let mut value = [0; 4];
    let length =
        rustix::fs::getxattr(tried.path("etc"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
}
