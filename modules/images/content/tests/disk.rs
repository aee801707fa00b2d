//! A disk that is full, or takes no more files, while an image is pulled. As root, who can mount a small one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tepui_image_content::{Digest, Error, Image, Progress, Settings, Source, Store};

/// A small disk.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        let none = MsFlags::empty();
        mount(Some("tmpfs"), at.path(), Some("tmpfs"), none, Some(options)).unwrap();
        Self(at)
    }

    fn count(&self, dir: &str) -> usize {
        fs::read_dir(self.0.path().join(dir)).unwrap().count()
    }

    async fn pull(&self, archive: &Path) -> Result<Image, Error> {
        let settings = Settings {
            dir: self.0.path().to_owned(),
            max_image_bytes: 64 << 20,
            max_image_files: 10_000,
        };
        let source = Source::Archive(archive.to_owned(), "box:1".to_owned());
        let store = Store::open(settings).unwrap();
        store.pull("box:1", &source, &Progress::default()).await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
}

/// What `docker save` writes, with one layer of these files and directories.
fn archive(at: &Path, files: &[(&str, usize)], directories: usize) -> PathBuf {
    let mut layer = tar::Builder::new(Vec::new());
    for (name, length) in files {
        add(&mut layer, name, &vec![1; *length]);
    }
    for number in 0..directories {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        let name = format!("d{number}");
        layer.append_data(&mut header, name, &[][..]).unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let diff_id = Digest::of(&layer).to_string();
    let config = json!({ "rootfs": { "diff_ids": [diff_id] } }).to_string();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["box:1"], "Layers": ["l.tar"] }]);
    let mut all = tar::Builder::new(Vec::new());
    add(&mut all, "manifest.json", manifest.to_string().as_bytes());
    add(&mut all, "c.json", config.as_bytes());
    add(&mut all, "l.tar", &layer);
    let path = at.join("box.tar");
    fs::write(&path, all.into_inner().unwrap()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_named_and_the_next_pull_succeeds() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT RUN: needs root");
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let large = archive(at.path(), &[("large", 3 << 20)], 0);
    let many = at.path().join("many");
    fs::create_dir(&many).unwrap();
    let many = archive(&many, &[], 200);
    for (options, image, ballast) in [
        ("size=4m", &large, 2 << 20),
        ("size=4m,nr_inodes=250", &many, 0),
    ] {
        let disk = Disk::mount(options);
        let in_the_way = disk.0.path().join("ballast");
        fs::create_dir(&in_the_way).unwrap();
        fs::write(in_the_way.join("bytes"), vec![1; ballast]).unwrap();
        for number in 0..100 {
            fs::create_dir(in_the_way.join(format!("{number}"))).unwrap();
        }
        let failed = disk.pull(image).await.unwrap_err();
        let said = failed.to_string();
        assert!(matches!(failed, Error::Disk(_)), "{failed:?}");
        assert!(said.contains("No space left on device"), "{said}");
        for dir in ["staging", "layers", "images"] {
            assert_eq!(disk.count(dir), 0, "{dir}");
        }
        fs::remove_dir_all(in_the_way).unwrap();
        disk.pull(image).await.unwrap();
        assert_eq!((disk.count("staging"), disk.count("layers")), (0, 1));
    }
    // A record of an image that cannot be written leaves no part of one.
    let small = at.path().join("small");
    fs::create_dir(&small).unwrap();
    let small = archive(&small, &[("a", 1)], 0);
    let disk = Disk::mount("size=1m");
    disk.pull(&small).await.unwrap();
    fs::remove_dir_all(disk.0.path().join("images")).unwrap();
    fs::create_dir(disk.0.path().join("images")).unwrap();
    fs::write(disk.0.path().join("ballast"), vec![1; 2 << 20]).unwrap_err();
    let failed = disk.pull(&small).await.unwrap_err();
    assert!(matches!(failed, Error::Disk(_)), "{failed:?}");
    assert_eq!(disk.count("images"), 0);
}
