//! Tells the crate when and by whom it was built, for `/version`. `SOURCE_DATE_EPOCH` makes it
//! reproducible.

use std::env;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=TEPUI_GIT_SHA");
    // The commit of the checkout as of this build; a later commit alone builds nothing anew.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    let sha = env::var("TEPUI_GIT_SHA").ok();
    if let Some(sha) = sha.or_else(|| git(&["rev-parse", "HEAD"])) {
        println!("cargo::rustc-env=TEPUI_GIT_SHA={sha}");
    }
    let given = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_secs()
    });
    println!("cargo::rustc-env=TEPUI_BUILD_TIME={seconds}");
    println!("cargo::rustc-env=TEPUI_BUILD_DATE={}", date(seconds));
    if given.is_none()
        && let Ok(user) = env::var("USER")
    {
        println!("cargo::rustc-env=TEPUI_BUILD_USER={user}");
    }
}

/// What git says; nothing where there is no git or no checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}

/// `2020-11-24 15:38:37`, in UTC.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01 in eras of 400 years, as in H. Hinnant's `civil_from_days`.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}
