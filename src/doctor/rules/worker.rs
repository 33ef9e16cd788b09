//! Whether the service runs and its workers live, and which settings of its unit will break it.

use super::examined::Examined;
use super::start;
use crate::control::message::WorkerState;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::fix::{Fix, drop_in};
use crate::doctor::remedy;
use crate::doctor::target;

pub fn examine(facts: &Facts) -> Examined {
    let service = &facts.service;
    if let Some(finding) = held_back(facts) {
        return Examined::well(text(facts)).with(vec![finding]);
    }
    let mut findings = Vec::new();
    match start::cause(facts) {
        Some(cause) if cause.link == Link::Worker => findings.push(cause),
        Some(cause) if cause.severity == Severity::Warning => {}
        Some(_) if !target::runs(service) => return Examined::follows(format!("{} cannot start", service.name)),
        Some(_) => {
            let ready = facts.status.as_ref().map_or(0, |status| ready(&status.workers));
            return Examined::follows(format!("{ready} workers are ready"));
        }
        None => findings.extend(state(facts)),
    }
    if service.load_state == "loaded" {
        findings.extend(settings(facts));
    }
    if !target::runs(service) && facts.sockets.iter().all(|socket| socket.active_state != "active") {
        return Examined::unseen(format!("{} does not run, and no connection starts it", service.name)).with(findings);
    }
    Examined::well(text(facts)).with(findings)
}

/// No worker serves because somebody wants so: whatever else looks broken for it is not.
fn held_back(facts: &Facts) -> Option<Finding> {
    let status = facts.status.as_ref()?;
    let name = &facts.service.name;
    let finding = |what: &str| Finding::error("held-back", Link::Worker, what);
    if status.maintenance.is_some() {
        let finding = finding("no worker serves: somebody has switched maintenance on");
        let end = format!("when the work is done: sockd maintenance {name} off");
        return Some(finding.why("visitors get 503 until it is ended, also after a restart").by_hand(end));
    }
    status.pause.as_ref()?;
    let finding = finding("no worker serves: somebody has paused the site, a migration may be running");
    let end = format!("wait, or when that is done: sockd resume {name}");
    Some(finding.why("visitors wait in the queue; the pause ends by itself").by_hand(end))
}

fn ready(workers: &[crate::control::message::Worker]) -> usize {
    workers.iter().filter(|worker| worker.state == WorkerState::Ready).count()
}

fn text(facts: &Facts) -> String {
    let service = &facts.service;
    if let Some(status) = &facts.status {
        if status.maintenance.is_some() || status.pause.is_some() {
            return "no worker serves, on purpose".to_owned();
        }
        if status.wanted_workers == 0 {
            return format!("{} waits for the first connection", service.name);
        }
        return format!("{} of {} workers are ready", ready(&status.workers), status.wanted_workers);
    }
    if !target::runs(service) {
        return format!("{} does not run; the first connection starts it", service.name);
    }
    match &facts.processes {
        Some(processes) if processes.len() > 1 => format!("{} runs, {} processes", service.name, processes.len()),
        Some(_) | None => format!("{} runs", service.name),
    }
}

/// What is wrong with a service whose start is not known to fail for a reason.
fn state(facts: &Facts) -> Option<Finding> {
    let service = &facts.service;
    let name = &service.name;
    let again = target::again(facts);
    let finding = |id, what: String| Finding::error(id, Link::Worker, what);
    let last = facts.journal.iter().rev().find(|line| !line.trim().is_empty());
    let last = last.map_or(String::new(), |line| format!("; its last line is: {}", line.trim()));
    if service.result == "oom-kill" {
        let what = format!("{name} was ended because the system had no memory left for one of its processes");
        let why = "OOMPolicy=stop ends the whole service with one process; with continue the other workers live on";
        let fix = drop_in(name, "oom-policy", "Service", &["OOMPolicy=continue"]);
        return Some(finding("oom-killed", what).why(why).fix(fix.then(again)));
    }
    match service.active_state.as_str() {
        "failed" if service.result == "start-limit-hit" => {
            let what = format!("{name} has failed (start-limit-hit)");
            let why = format!("it ended more often than StartLimitBurst= allows, and systemd gave up{last}");
            Some(finding("service-start-limit", what).why(why).fix(again))
        }
        "failed" => {
            let what = format!("{name} has failed ({}, status {})", service.result, service.exec_main_status);
            let why = format!("it ended by itself{last}");
            Some(finding("service-failed", what).why(why).fix(again))
        }
        "activating" if service.sub_state.starts_with("auto-restart") => {
            let what = format!("{name} ends again and again: {} restarts", service.n_restarts);
            let why = format!("systemd restarts it each time{last}");
            Some(finding("restart-loop", what).why(why).fix(again))
        }
        "inactive" if facts.sockets.is_empty() => {
            let what = format!("{name} is not started");
            let why = "it has no socket unit, so that no visitor can start it";
            Some(
                finding("service-not-started", what)
                    .why(why)
                    .fix(target::start(facts, Fix::run(format!("systemctl enable --now {name}")))),
            )
        }
        _ => no_worker(facts),
    }
}

/// sockd answers 503 itself, as far as it can, and no traceback says why.
fn no_worker(facts: &Facts) -> Option<Finding> {
    let status = facts.status.as_ref().filter(|status| status.fallback)?;
    let deaths = status.slots.iter().filter_map(|slot| slot.last_death.as_ref());
    // What cannot even be started has not died.
    let why = match deaths.max_by_key(|death| death.at_unix_ms) {
        Some(death) => format!("the last one: {}", death.reason),
        None => status.status_line.clone(),
    };
    let finding = Finding::error("no-worker", Link::Worker, "no worker can start; sockd keeps trying").why(why);
    let by_hand = format!("correct what `journalctl -u {} -n 50` shows", facts.service.name);
    Some(finding.by_hand(by_hand).fix(target::load(facts)))
}

/// The code on disk is code that sockd has refused: the workers go on with what they have loaded.
fn refused_reload(facts: &Facts) -> Option<Finding> {
    let status = facts.status.as_ref().filter(|status| !status.fallback)?;
    let refused = status.reload.last_refused.as_ref()?;
    let name = &facts.service.name;
    let what = format!("the code on disk was refused by the last reload: {}", refused.reason);
    let preloads = facts.service.exec_start.iter().any(|word| word == "--preload");
    let next = match preloads {
        true => "a restart would load it",
        false => {
            "a restart would load it, and so would the successor of a worker that dies; with `preload` only a restart"
        }
    };
    let by_hand = match target::import_traceback(facts).and_then(|found| found.place) {
        Some((file, line)) => format!("correct {file}:{line}"),
        None => format!("correct what `journalctl -u {name} -n 50` shows"),
    };
    let finding = Finding::warning("reload-refused", Link::Worker, what);
    let why = format!("the workers serve the code from before; {next}");
    Some(finding.why(why).by_hand(by_hand).fix(target::load(facts)))
}

/// sockd starts a program that starts the server: what it promises for each worker holds for the whole of them.
fn opaque(facts: &Facts) -> Option<Finding> {
    let opaque = facts.program.opaque.as_ref()?;
    let finding = Finding::warning("server-hidden", Link::Worker, opaque);
    let why =
        "whatever starts the server stands between: sockd sees one process, and neither its workers nor their code";
    let (place, fix) = remedy::changed_by_hand(facts);
    let by_hand = format!("write the server's own line in {place}, as the Python that runs it, with -m and its module");
    Some(finding.why(why).by_hand(by_hand).fix(fix))
}

/// Settings of the unit that are known to break a site sooner or later.
fn settings(facts: &Facts) -> Vec<Finding> {
    let service = &facts.service;
    let name = &service.name;
    let mut findings = Vec::new();
    findings.extend(refused_reload(facts));
    if service.need_daemon_reload {
        let what = format!("{name} was changed after systemd read it");
        let why = "systemd goes on with what it has read until `daemon-reload`, and the service until it is restarted";
        findings.push(Finding::warning("daemon-reload", Link::Worker, what).why(why).fix(remedy::renew(facts)));
    }
    if service.oom_policy == "stop" {
        let what = format!("{name} has OOMPolicy=stop");
        let why = "when the system is out of memory, one killed worker ends the whole service";
        let fix = drop_in(name, "oom-policy", "Service", &["OOMPolicy=continue"]);
        findings.push(Finding::warning("oom-policy", Link::Worker, what).why(why).fix(fix));
    }
    if target::runs_sockd(service) && !service.delegate {
        let what = format!("{name} has no Delegate=yes");
        let why = "sockd gives each worker a control group of its own only where systemd lets it";
        let fix = drop_in(name, "delegate", "Service", &["Delegate=yes"]);
        let finding = Finding::warning("delegate", Link::Worker, what).why(why);
        findings.push(finding.fix(target::prove(facts).then(fix).then(target::again(facts))));
    }
    findings.extend(opaque(facts));
    if service.unit_file_state == "disabled" && facts.sockets.is_empty() {
        let what = format!("{name} is not enabled");
        let finding = Finding::warning("service-not-enabled", Link::Worker, what);
        findings.push(
            finding.why("nobody starts it after the next boot").fix(Fix::run(format!("systemctl enable {name}"))),
        );
    }
    findings
}
