//! Archives good and bad: what they unpack to, and what must not come of them.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use serde_json::json;
use tepui_module_proto::fetcher::Uri;

use common::{Answers, Bench, Server, answer, cached, gzip, names, ok, read, tar, uri, walk, zip};

#[tokio::test]
async fn archives_are_unpacked_by_their_suffix() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let bench = Bench::new(json!({}));
    let at = bench.sandbox("archives");
    let plain = tar(&[
        ("./lib64/", Directory, ""),
        ("lib", Symlink, "lib64"),
        ("lib/a", Regular, ""),
        ("b", Link, "lib64/a"),
        ("cert", Symlink, "/etc/ssl"),
        ("n\u{e9}", Regular, ""),
    ]);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&plain).unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.add_directory("lib", options).unwrap();
    zip.start_file("lib/a", options).unwrap();
    zip.write_all(b"lib/a").unwrap();
    zip.add_symlink("b", "lib/a", options).unwrap();
    for (name, bytes) in [
        ("x.tar", plain.clone()),
        ("x.tgz", gzip(&plain)),
        ("x.tbz2", bzip2.finish().unwrap()),
        ("x.tar.xz", xz.finish().unwrap()),
        ("x.zip", zip.finish().unwrap().into_inner()),
    ] {
        fs::write(at.join(name), bytes).unwrap();
        for keep in [false, true] {
            let mut one = uri(at.join(name).display().to_string());
            one.cache = keep;
            let sandbox = bench
                .fetch(&format!("{name}-{keep}"), vec![one])
                .await
                .unwrap();
            assert_eq!(read(&sandbox, "lib/a"), "lib/a", "{name}");
            assert_eq!(read(&sandbox, "b"), "lib/a", "{name}");
            assert_eq!(
                sandbox.join(name).exists(),
                !keep,
                "{name} stays unless cached"
            );
            let mode = fs::metadata(sandbox.join("lib/a")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o755, "{name}: set-id bits are dropped");
        }
    }
    fs::write(at.join("one.gz"), gzip(b"text")).unwrap();
    let gz = at.join("one.gz").display().to_string();
    let as_it_is = Uri {
        extract: false,
        output_file: "kept.gz".to_owned(),
        ..uri(gz.clone())
    };
    let sandbox = bench.fetch("gz", vec![uri(gz), as_it_is]).await.unwrap();
    assert_eq!(read(&sandbox, "one"), "text");
    assert_eq!(names(&sandbox), ["kept.gz", "one", "one.gz", "stderr"]);
}

#[tokio::test]
async fn nothing_leads_out_of_a_sandbox() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let bench = Bench::new(json!({}));
    let at = bench.sandbox("archives");
    let outside = bench.sandbox("outside");
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.display().to_string();
    let secret = outside.join("secret").display().to_string();
    let hostile: [&[(&str, tar::EntryType, &str)]; 7] = [
        &[("../outside/new", Regular, "")],
        &[("a", Symlink, &out), ("a/new", Regular, "")],
        &[("a", Symlink, ".."), ("a/outside/new", Regular, "")],
        &[("a", Link, "../outside/secret")],
        &[
            ("a", Symlink, &secret),
            ("b", Link, "a"),
            ("b", Regular, ""),
            ("c", Char, ""),
        ],
        &[("a", Char, "")],
        &[("a", Fifo, "")],
    ];
    for (number, entries) in hostile.iter().enumerate() {
        fs::write(at.join("x.tar"), tar(entries)).unwrap();
        let value = at.join("x.tar").display().to_string();
        let error = bench
            .fetch(&format!("s{number}"), vec![uri(value)])
            .await
            .unwrap_err();
        assert!(error.contains("Failed to extract 'x.tar'"), "{error}");
    }
    for (number, entries) in [
        &[("../outside/new", Regular, "")][..],
        &[("a", Symlink, &out), ("a/new", Regular, "")],
        &[("a", Symlink, ".."), ("a/outside/new", Regular, "")],
    ]
    .iter()
    .enumerate()
    {
        fs::write(at.join("x.zip"), zip(entries)).unwrap();
        let value = at.join("x.zip").display().to_string();
        let fetched = bench.fetch(&format!("z{number}"), vec![uri(value)]).await;
        let error = fetched.unwrap_err();
        assert!(error.contains("leads out of the sandbox"), "{error}");
    }
    // An absolute path means one in the sandbox, as `tar` and `unzip` have it.
    fs::write(at.join("x.zip"), zip(&[("/etc/x", Regular, "")])).unwrap();
    let value = at.join("x.zip").display().to_string();
    let sandbox = bench.fetch("absolute-zip", vec![uri(value)]).await.unwrap();
    assert_eq!(read(&sandbox, "etc/x"), "/etc/x");
    fs::write(at.join("x.tar"), tar(&[("/etc/x", Regular, "")])).unwrap();
    let value = at.join("x.tar").display().to_string();
    let sandbox = bench
        .fetch("absolute", vec![uri(value.clone())])
        .await
        .unwrap();
    assert_eq!(read(&sandbox, "etc/x"), "/etc/x");
    // A link that is already there.
    let sandbox = bench.sandbox("linked");
    symlink(&outside, sandbox.join("dir")).unwrap();
    symlink(outside.join("secret"), sandbox.join("file")).unwrap();
    let named = |output_file: &str| Uri {
        output_file: output_file.to_owned(),
        extract: false,
        ..uri(value.clone())
    };
    bench
        .fetch("linked", vec![named("dir/new")])
        .await
        .unwrap_err();
    bench.fetch("linked", vec![named("file")]).await.unwrap();
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(read(&outside, "secret"), "secret");
}

#[tokio::test]
async fn what_is_too_much_is_refused_by_the_name_of_the_bound() {
    use tar::EntryType::{Directory, Regular};
    let large = vec![b'x'; 4000];
    let endless = answer("200 OK", "", &large);
    let server = Server::start(Answers::from([
        ("/large", (ok(&large), false)),
        ("/endless", (endless, false)),
    ]));
    let write = [
        "sh",
        "-c",
        "head -c 4000 /dev/zero > \"$1\"",
        "{uri}",
        "{path}",
    ];
    let bench = Bench::new(json!({
        "max_download_bytes": 3000, "max_unpacked_bytes": 5000, "max_unpacked_files": 3,
        "programs": {"acme": write},
    }));
    let at = bench.sandbox("sources");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(at.join(name), bytes).unwrap();
        at.join(name).display().to_string()
    };
    let mut sparse = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6000);
    header.set_mode(0o644);
    sparse
        .append_data(&mut header, "zeros", &[0; 6000][..])
        .unwrap();
    let bomb = gzip(&sparse.into_inner().unwrap());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("zeros", options).unwrap();
    zip.write_all(&[0; 6000]).unwrap();
    let many = ["a/", "b/", "c/", "d/"].map(|name| (name, Directory, ""));
    for (value, bound) in [
        (server.at("/large"), "max_download_bytes"),
        (server.at("/endless"), "max_download_bytes"),
        (put("large", &large), "max_download_bytes"),
        ("acme://x/large".to_owned(), "max_download_bytes"),
        (put("bomb.gz", &gzip(&[0; 6000])), "max_unpacked_bytes"),
        (put("bomb.tgz", &bomb), "max_unpacked_bytes"),
        (
            put("bomb.zip", &zip.finish().unwrap().into_inner()),
            "max_unpacked_bytes",
        ),
        (put("many.tgz", &gzip(&tar(&many))), "max_unpacked_files"),
    ] {
        for one in [uri(value.clone()), cached(value.clone())] {
            let error = bench.fetch("s", vec![one]).await.unwrap_err();
            assert!(error.contains(bound), "{value}: {error}");
        }
    }
    // A name that is longer than all else.
    let mut long = tar::Header::new_gnu();
    long.set_entry_type(tar::EntryType::GNULongName);
    long.set_size(1 << 30);
    long.set_cksum();
    let name = at.join("name.tar");
    fs::write(&name, long.as_bytes()).unwrap();
    fs::File::options()
        .write(true)
        .open(&name)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let plain = Bench::new(json!({}));
    let error = plain
        .fetch("s", vec![uri(name.display().to_string())])
        .await;
    let error = error.unwrap_err();
    assert!(
        error.contains("the description of a file is too long"),
        "{error}"
    );
    let list = at.join("list.zip");
    fs::write(&list, zip_list(u16::MAX, 600)).unwrap();
    let error = plain
        .fetch("s", vec![uri(list.display().to_string())])
        .await;
    let error = error.unwrap_err();
    assert!(
        error.contains("the archive's list of files is too long"),
        "{error}"
    );
    // What is within the bounds goes on to be brought.
    let fits = put("fits.tgz", &gzip(&tar(&[("f", Regular, "")])));
    let sandbox = bench.fetch("fits", vec![uri(fits)]).await.unwrap();
    assert_eq!(read(&sandbox, "f"), "f");
}

/// The end of a zip archive: a list of so many files, whose names have so many bytes.
fn zip_list(files: u16, name: u16) -> Vec<u8> {
    let mut entry = b"PK\x01\x02".to_vec();
    entry.resize(46 + usize::from(name), b'a');
    entry[4..46].fill(0);
    entry[28..30].copy_from_slice(&name.to_le_bytes());
    let mut archive = entry.repeat(files.into());
    let length = u32::try_from(archive.len()).unwrap();
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&[files.to_le_bytes(), files.to_le_bytes()].concat());
    archive.extend_from_slice(&length.to_le_bytes());
    archive.extend_from_slice(&[0; 6]);
    archive
}

/// Needs root; `cargo xtask test` says so where it is missing.
#[tokio::test]
async fn a_disk_that_is_full_is_named_and_keeps_nothing_in_the_cache() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: only root can mount a small disk");
        return;
    }
    let disk = Disk::mount();
    let server = Server::start(Answers::from([("/large", (ok(&vec![1; 3 << 20]), false))]));
    let work = disk.0.path().join("work");
    fs::create_dir(&work).unwrap();
    let bench = Bench::new(json!({"fetcher_cache_dir": work}));
    for one in [uri(server.at("/large")), cached(server.at("/large"))] {
        let is_cached = one.cache;
        let sandbox = match is_cached {
            // The cache is on the small disk, the sandbox is not.
            true => "s".to_owned(),
            false => disk.0.path().join("sandbox").display().to_string(),
        };
        let error = bench.fetch(&sandbox, vec![one]).await.unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
        let _ = fs::remove_dir_all(disk.0.path().join("sandbox"));
    }
    let left = walk(&work).into_iter().filter(|path| path.is_file());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// A disk of two megabytes.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Self {
        let at = tempfile::tempdir().unwrap();
        let options = Some("size=2m");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at.path(), Some("tmpfs"), none, options).unwrap();
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
