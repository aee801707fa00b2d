//! Real parts for images: Debian's `docker-registry`, `skopeo` and `umoci`, and a program to put into images.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tepui_proto::v1;

use crate::scheduler::task;
use crate::{Scratch, wait_for};

/// What these tests need beside the daemons: Debian's packages of the same names, and busybox-static.
const PROGRAMS: [&str; 4] = ["docker-registry", "skopeo", "umoci", "/bin/busybox"];

/// Whether everything is there, and root; says what is missing.
pub fn available() -> bool {
    let is_there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).exists())
    };
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|program| !is_there(program))
        .collect();
    let is_root = nix::unistd::geteuid().is_root();
    if !missing.is_empty() || !is_root {
        eprintln!("NOT RUN: needs root and {PROGRAMS:?}; missing: {missing:?}, root: {is_root}");
    }
    missing.is_empty() && is_root
}

/// Runs a program to its good end.
#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// Makes `dir/NAME.pem` and `dir/NAME.key`: a certificate for this machine that signs itself and is no authority.
pub fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    let (at, of) = (certificate.to_string_lossy(), key.to_string_lossy());
    let request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext \
                   subjectAltName=IP:127.0.0.1,DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    let request: Vec<&str> = request.split_whitespace().collect();
    run(
        "openssl",
        &[&request[..], &["-keyout", &of, "-out", &at]].concat(),
    );
    (certificate, key)
}

/// Makes an image layout at `dir/NAME` with the tag `latest`, of three layers: busybox with some files; one that takes
/// `/gone` away; one that replaces `/etc/layer`. Its entry point is `cat`, its command `layer`, its working directory
/// `/etc`.
pub fn layout(dir: &Path, name: &str) -> PathBuf {
    let layout = dir.join(name);
    let root = dir.join(format!("{name}.root"));
    for part in ["bin", "etc", "gone"] {
        fs::create_dir_all(root.join(part)).expect("a folder");
    }
    busybox(&root);
    fs::write(root.join("gone/file"), "").expect("a file");
    fs::write(root.join("etc/layer"), "bottom\n").expect("a file");
    let top = dir.join(format!("{name}.top"));
    fs::write(&top, format!("top of {name}\n")).expect("a file");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (at, root, top) = (text(&layout), text(&root), text(&top));
    let image = format!("{at}:latest");
    let image = image.as_str();
    run("umoci", &["init", "--layout", &at]);
    run("umoci", &["new", "--image", image]);
    run("umoci", &["insert", "--image", image, &root, "/"]);
    run(
        "umoci",
        &["insert", "--image", image, "--whiteout", "/gone"],
    );
    run("umoci", &["insert", "--image", image, &top, "/etc/layer"]);
    let config = [
        "--config.env=FROM=image",
        "--config.env=BOTH=image",
        "--config.workingdir=/etc",
        "--config.entrypoint=/bin/cat",
        "--config.cmd=layer",
    ];
    run(
        "umoci",
        &[&["config", "--image", image][..], &config].concat(),
    );
    layout
}

/// Makes an image layout at `dir/NAME` with the tag `latest`, of one layer: busybox and what has to be there for others
/// to be mounted on.
pub fn one_layer(dir: &Path, name: &str) -> PathBuf {
    let layout = dir.join(name);
    let root = dir.join(format!("{name}.root"));
    for part in ["bin", "dev", "etc", "mnt/mesos/sandbox", "proc", "sys"] {
        fs::create_dir_all(root.join(part)).expect("a folder");
    }
    for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        fs::write(root.join(file), "").expect("a file");
    }
    busybox(&root);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (at, root) = (text(&layout), text(&root));
    let image = format!("{at}:latest");
    run("umoci", &["init", "--layout", &at]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["insert", "--image", &image, &root, "/"]);
    let config = ["--config.env=FROM=image", "--config.workingdir=/etc"];
    run(
        "umoci",
        &[&["config", "--image", &image][..], &config].concat(),
    );
    layout
}

/// Adds a layer to a layout's image: the file `/noise` of so many bytes that nothing makes smaller.
pub fn add_noise(layout: &Path, bytes: u64) {
    let file = layout.with_extension("noise");
    let random = File::open("/dev/urandom").expect("a device");
    let mut noise = File::create(&file).expect("a file");
    std::io::copy(&mut std::io::Read::take(random, bytes), &mut noise).expect("room");
    let (image, file) = (
        format!("{}:latest", layout.display()),
        file.display().to_string(),
    );
    run("umoci", &["insert", "--image", &image, &file, "/noise"]);
}

/// Writes an archive of `docker save` with one image once more, as `to`, with its entry in the manifest and its
/// configuration changed.
pub fn rewrite(
    archive: &Path,
    to: &Path,
    change: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value),
) {
    let dir = to.with_extension("unpacked");
    fs::create_dir(&dir).expect("a folder");
    let (from, at) = (archive.display().to_string(), dir.display().to_string());
    run("tar", &["-xf", &from, "-C", &at]);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(dir.join(name)).expect("a file")).expect("JSON")
    };
    let mut manifest = read("manifest.json");
    let name = manifest[0]["Config"].as_str().expect("a name").to_owned();
    let mut config = read(&name);
    change(&mut manifest[0], &mut config);
    for (name, json) in [("manifest.json", manifest), (&name, config)] {
        fs::write(dir.join(name), json.to_string()).expect("own file");
    }
    let to = to.display().to_string();
    run("tar", &["-cf", &to, "-C", &at, "."]);
    fs::remove_dir_all(dir).expect("own folder");
}

/// Puts a shell and some programs into `bin` of a root.
pub fn busybox(root: &Path) {
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    for applet in ["cat", "echo", "id", "ls", "pwd", "sh", "sleep", "touch"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
}

/// The digest of the last layer of a layout's only image.
pub fn last_layer(layout: &Path) -> String {
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
    };
    let index = read(layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let manifest = read(
        layout
            .join("blobs/sha256")
            .join(digest.replace("sha256:", "")),
    );
    let layers = manifest["layers"].as_array().expect("layers");
    let last = layers.last().expect("a layer");
    last["digest"].as_str().expect("a digest").to_owned()
}

/// A registry on this machine; ends when it is dropped.
pub struct Registry {
    child: Child,
    log: PathBuf,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Registry {
    /// Starts one that keeps its images in `dir`. `more` is YAML for its `http` and what follows it.
    pub fn start(dir: &Path, more: &str) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let config = dir.join("config.yml");
        let data = dir.join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:0\n{more}\n",
            data.display()
        );
        fs::write(&config, text).expect("a file");
        let log = dir.join("log");
        let output = File::create(&log).expect("a file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output)
            .spawn()
            .expect("docker-registry");
        let address = wait_for("the registry", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let after = text.split_once("listening on ").map(|(_, rest)| rest);
            let address = after.and_then(|rest| rest.split(['"', ',', ' ', '\n']).next());
            address.map(str::to_owned).ok_or(text)
        });
        Self {
            child,
            log,
            address,
        }
    }

    /// Pushes a layout under a name; `args` are for skopeo.
    pub fn push(&self, layout: &Path, name: &str, args: &[&str]) {
        let from = format!("oci:{}:latest", layout.display());
        let to = format!("docker://{}/{name}", self.address);
        run(
            "skopeo",
            &[&["copy", "--quiet"][..], args, &[&from, &to]].concat(),
        );
    }

    /// Ends it as a crash would. What was pushed to it stays.
    pub fn kill(mut self) {
        self.child.kill().expect("an own child");
        self.child.wait().expect("an own child");
    }

    /// How often something with these words was answered.
    pub fn answered(&self, words: &str) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("HTTP/1.") && line.contains(words))
            .count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task of an image. Without a command it runs what the image says. What it prints is in its sandbox.
pub fn of_image(id: &str, image: &str, command: Option<&str>) -> v1::TaskInfo {
    let mut task = task(id, command.unwrap_or_default(), 0.1, 32.0);
    if command.is_none() {
        task.command = Some(v1::CommandInfo {
            shell: Some(false),
            ..Default::default()
        });
    }
    task.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        mesos: Some(v1::container_info::MesosInfo {
            image: Some(docker(image)),
        }),
        ..Default::default()
    });
    task
}

/// A Docker image of this name.
pub fn docker(name: &str) -> v1::Image {
    v1::Image {
        r#type: v1::image::Type::Docker.into(),
        docker: Some(v1::image::Docker {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What a task has printed.
pub fn stdout(scratch: &Scratch, agent: &str, id: &str) -> String {
    let agents = scratch.path().join(agent).join("slaves");
    let latest = walk(&agents, &format!("executors/{id}/runs/latest/stdout"));
    fs::read_to_string(latest).expect("its output")
}

/// The first path below a folder that ends like this.
pub fn walk(dir: &Path, end: &str) -> PathBuf {
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let candidate = dir.join(end);
        if candidate.exists() {
            return candidate;
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        waiting.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir() && !path.is_symlink()),
        );
    }
    panic!("nothing ends with {end} below {}", dir.display());
}
