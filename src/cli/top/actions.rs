//! What a key leads to outside: a reload, the end of a worker, its stacks, the journal.
//!
//! Owns: who is asked. Never: changes anything that was not confirmed, or anything by itself: the supervisor does.

use std::process::ExitStatus;

use tokio::task::spawn_blocking;

use super::model::{Said, Target};
use crate::cli::instance::who_may;
use crate::cli::{logs, output, reload};
use crate::control::{self, Instance};
use crate::systemd::{Manager, UnitName};

/// Reloads as `sockd reload` does; `step` is called for each line of progress.
pub async fn reload(target: Target, step: impl FnMut(&str)) -> Said {
    let instance = match instance(&target).await {
        Ok(instance) => instance,
        Err(why) => return failed(format!("cannot reload {}: {why}", target.name)),
    };
    match reload::ask(&instance, reload::Command::Reload(None), true, false, step).await {
        Ok(message) => Said { lines: vec![format!("{}: {message}", target.name)], failed: false },
        Err(mut failure) => {
            failure.details.push(format!("{}: {}", target.name, failure.message));
            Said { lines: failure.details, failed: true }
        }
    }
}

/// Has a worker replaced.
pub async fn replace(target: Target, worker: u64) -> Said {
    let instance = match instance(&target).await {
        Ok(instance) => instance,
        Err(why) => return failed(format!("cannot ask {}: {why}", target.name)),
    };
    match control::replace(&instance, worker).await {
        Ok(outcome) => Said { lines: vec![format!("{}: {}", target.name, outcome.message)], failed: !outcome.ok },
        Err(error) if error.is_denial() => failed(format!("cannot end it: {}", who_may(instance.uid))),
        Err(error) => failed(format!("{}: {error}", target.name)),
    }
}

/// Asks where the threads of a worker stand, which goes on meanwhile.
///
/// # Errors
/// Why that is not known.
pub async fn stacks(target: &Target, worker: u64) -> Result<Vec<String>, String> {
    let instance = instance(target).await?;
    let stacks = control::stacks(&instance, worker).await.map_err(|error| error.to_string())?;
    match stacks.threads.is_empty() {
        true => Err("it has ended".to_owned()),
        false => Ok(stacks.threads.into_iter().flat_map(|thread| thread.lines).collect()),
    }
}

/// Asks what a worker wrote last. Where that cannot be known, it wrote nothing.
pub async fn last_lines(target: &Target, worker: u64) -> Vec<String> {
    match instance(target).await {
        Ok(instance) => control::last_lines(&instance, worker).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

fn failed(line: String) -> Said {
    Said { lines: vec![line], failed: true }
}

/// Where the supervisor is asked. Others, workers for one, can listen under a name like sockd's: the one that is not the main
/// process of its unit is asked only where our own user runs it.
async fn instance(target: &Target) -> Result<Instance, String> {
    let instance = control::of_process(target.pid).await.map_err(|error| error.to_string())?;
    match target.is_main || instance.uid == rustix::process::geteuid().as_raw() {
        true => Ok(instance),
        false => Err("it is in no unit, and another user runs it".to_owned()),
    }
}

/// Shows what the journal holds, and what comes, until Ctrl-C.
pub async fn journal(unit: String, user: bool, worker: Option<u64>) -> Result<(), String> {
    output::say("Ctrl-C goes back to sockd top.\n");
    let shown = move || -> Result<ExitStatus, String> {
        let name = UnitName::complete(&unit).map_err(|error| error.to_string())?;
        let name = if user { name.of(Manager::User) } else { name.of(Manager::System) };
        let mut journalctl = logs::journalctl(&name, worker).map_err(|(_, why)| why)?;
        journalctl.arg("--follow").status().map_err(|error| format!("cannot run journalctl: {error}"))
    };
    let status = spawn_blocking(shown).await.map_err(|error| error.to_string())??;
    // Ctrl-C ends it by the signal, or with success.
    match status.success() || std::os::unix::process::ExitStatusExt::signal(&status).is_some() {
        true => Ok(()),
        false => Err(format!("journalctl has failed ({status})")),
    }
}
