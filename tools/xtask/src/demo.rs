//! `cargo xtask demo`: the main job on embedded defaults.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build, run, target_dir};

const TASK: &str = "echo Hello from task $MESOS_EXECUTOR_ID on $(hostname)";

/// Builds a release set, starts a cluster with it, runs one task there and stops.
pub(crate) fn demo() -> Result<()> {
    let built = build::release()?;
    let work_dir = target_dir().join(format!("demo-{}", std::process::id()));
    let mut cluster = start(&built.dir, &work_dir)?;
    let outcome = wait_ready(&mut cluster).and_then(|master| {
        println!("$ tepui run --master {master} --command '{TASK}' --follow");
        run(Command::new(built.dir.join("tepui")).args([
            "run",
            "--master",
            &master,
            "--command",
            TASK,
            "--follow",
        ]))
    });
    stop(cluster)?;
    std::fs::remove_dir_all(&work_dir).ok();
    outcome
}

fn start(dir: &Path, work_dir: &Path) -> Result<Child> {
    // Ports of its own, so that a cluster that already runs here is left alone.
    let args = ["local", "--port", "0", "--agent-port", "0", "--work-dir"];
    println!("$ tepui {} {}", args.join(" "), work_dir.display());
    Command::new(dir.join("tepui"))
        .args(args)
        .arg(work_dir)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start tepui local")
}

/// The master's address, from the line `ready: master http://ADDRESS ...`.
fn wait_ready(cluster: &mut Child) -> Result<String> {
    let output = cluster.stdout.as_mut().expect("the output is piped");
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(rest) = line.strip_prefix("ready: master http://") {
            return Ok(rest.split_whitespace().next().unwrap_or(rest).to_owned());
        }
    }
    bail!("tepui local ended before it was ready")
}

/// Ends the cluster as Ctrl-C would.
fn stop(mut cluster: Child) -> Result<()> {
    run(Command::new("kill").args(["-INT", &cluster.id().to_string()]))?;
    let status = cluster.wait()?;
    if !status.success() {
        bail!("tepui local: {status}");
    }
    println!("stopped");
    Ok(())
}
