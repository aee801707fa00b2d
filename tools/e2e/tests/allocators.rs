//! Who gets what, under one allocator and another.

use std::fs;

use tepui_e2e::scheduler::framework;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};

/// Gives agents of 1, 8, 1 and 1 CPUs to two frameworks that keep every offer. Whoever got the first
/// is 'a'; the answer says who got each.
fn who_gets_what(allocator: &str) -> String {
    let scratch = Scratch::new();
    let config = scratch.path().join("master.toml");
    fs::write(&config, format!("allocator = \"{allocator}\"\n")).expect("the scratch folder");
    let master = Daemon::master(scratch.path(), &[&format!("--config={}", config.display())]);
    let modules = master.get_text("/tepui/v1/modules");
    assert!(modules.contains(&format!("\"{allocator}\"")), "{modules}");
    let mut frameworks =
        ["one", "two"].map(|name| Scheduler::subscribe(master.address, framework(name, false)));
    let mut agents = Vec::new();
    let mut holders = Vec::new();
    for (index, cpus) in [1, 8, 1, 1].into_iter().enumerate() {
        let resources = format!(
            "--resources=cpus:{cpus};mem:{};disk:1024;ports:[]",
            cpus * 512
        );
        agents.push(Daemon::agent(
            scratch.path(),
            &format!("agent-{index}"),
            master.address,
            &[&resources],
        ));
        let held = index + 1;
        holders.push(wait_for(&format!("an offer of agent {index}"), || {
            for scheduler in &mut frameworks {
                scheduler.listen(std::time::Duration::from_millis(5));
            }
            let [one, two] =
                [&frameworks[0], &frameworks[1]].map(|scheduler| scheduler.offers.len());
            if one + two < held {
                return Err((one, two));
            }
            let before = holders.iter().filter(|holder| **holder == 0).count();
            Ok(usize::from(one == before))
        }));
    }
    let first = holders[0];
    holders
        .iter()
        .map(|holder| if *holder == first { 'a' } else { 'b' })
        .collect()
}

#[test]
fn fairness_looks_at_shares() {
    // After the second agent the first framework has 1 of 9 CPUs and the other 8: it catches up.
    assert_eq!(who_gets_what("hierarchical"), "abaa");
}

#[test]
fn turns_look_at_nothing() {
    assert_eq!(who_gets_what("round-robin"), "abab");
}
