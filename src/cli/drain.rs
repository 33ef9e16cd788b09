//! `sockd drain`: has balancers send no visitors any more, and waits until none is left.
//!
//! Owns: its options, and when an instance is idle.

mod unit_stop;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCandidates;
use tokio::time::sleep;

use super::instance::{Failure, answered, fail, find, in_event_loop, no_answer};
use super::whose::Whose;
use super::{complete, output};
use crate::config::duration;
use crate::control::{self, Instance, Request, Status};
use crate::exit;
use crate::systemd::UnitName;

/// Between two looks at who is served.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A balancer that has asked within this time is waited for until it has heard. They ask every second or two.
const BALANCER_IS_THERE: Duration = Duration::from_secs(60);

/// The options of `drain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sockd drain gunicorn --until-idle && systemctl reboot\n  \
                  sockd drain gunicorn --until-idle --max 5min; systemctl restart gunicorn\n\n\
                  What asks on status.listen hears it: /ready answers 503, HAProxy's agent-check drain. Visitors\n\
                  who come all the same are served. sockd ready, or a restart of the unit, ends it.\n\n\
                  --until-idle waits until the balancer has asked, if one did in the last minute, and no request is\n\
                  served any more; of servers that do not count requests, until no connection is open.\n\n\
                  Without a unit it is what a unit's ExecStop= names: it waits for the workers of a sockd that was\n\
                  killed.\n\n\
                  Exit codes:\n  0  drained; with --until-idle: idle\n  1  not drained, or not idle in time: why is on stderr")]
pub struct Arguments {
    /// The unit, with or without ".service"
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Wait until nothing is in flight
    #[arg(long)]
    until_idle: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "TIME", value_parser = duration::parse_positive, default_value = "60s", requires = "until_idle")]
    max: Duration,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let Some(unit) = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit)) else {
        if arguments.until_idle || arguments.whose.user {
            output::complain("name the unit: sockd drain UNIT --until-idle");
            return ExitCode::from(exit::USAGE);
        }
        return unit_stop::run();
    };
    match in_event_loop(drain(arguments, &unit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure.message),
    }
}

async fn drain(arguments: &Arguments, unit: &UnitName) -> Result<(), Failure> {
    let instance = find("drain", Some(unit)).await.map_err(no_answer)?;
    let answer = control::follow(&instance, Request::Drain { is_drained: true }, |_| ()).await;
    let message = answered(answer, "drain", &instance)?;
    print(&message)?;
    match arguments.until_idle {
        true => until_idle(&instance, arguments.max).await,
        false => Ok(()),
    }
}

fn print(line: &str) -> Result<(), Failure> {
    output::print(&format!("{line}\n")).map_err(|error| no_answer(format!("cannot write to stdout: {error}")))
}

async fn until_idle(instance: &Instance, max: Duration) -> Result<(), Failure> {
    let end = Instant::now() + max;
    loop {
        let status = control::status(instance).await.map_err(|error| no_answer(error.to_string()))?;
        if !status.balancers.is_drained {
            return Err(no_answer("somebody has ended the drain meanwhile".to_owned()));
        }
        let Some(why) = busy_with(&status) else {
            let note = match status.balancers.have_heard {
                true => "",
                false => "; no balancer has asked in the last minute",
            };
            return print(&format!("nothing is in flight{note}"));
        };
        if Instant::now() >= end {
            return Err(no_answer(format!("not idle after {max:?} ({why}); it stays drained")));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// What is waited for, if anything is.
fn busy_with(status: &Status) -> Option<String> {
    let balancers = &status.balancers;
    let is_there = |ago: u64| Duration::from_millis(ago) < BALANCER_IS_THERE;
    if !balancers.have_heard && balancers.asked_ago_ms.is_some_and(is_there) {
        return Some("the balancer has not asked yet".to_owned());
    }
    let waiting: u32 = status.listeners.iter().filter_map(|listener| listener.waiting).sum();
    let counted = status.workers.iter().filter_map(|worker| worker.requests.as_ref());
    let (busy, what): (u64, _) = match status.requests {
        Some(_) => (counted.map(|requests| requests.busy + requests.websockets).sum(), "requests served or waiting"),
        None => {
            (status.listeners.iter().filter_map(|l| l.in_flight).map(u64::from).sum(), "connections open or waiting")
        }
    };
    let all = busy + u64::from(waiting);
    (all > 0).then(|| format!("{what}: {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Balancers, Listener, Worker};
    use crate::control::requests::{Requests, WorkerRequests};

    #[test]
    fn idle_is_who_has_nothing_in_flight_and_whose_balancer_knows() {
        let heard = Balancers { is_drained: true, have_heard: true, asked_ago_ms: Some(10) };
        let listener = |waiting, in_flight| {
            vec![Listener { waiting: Some(waiting), in_flight: Some(in_flight), ..Listener::default() }]
        };
        let worker = |busy| {
            vec![Worker { requests: Some(WorkerRequests { busy, ..WorkerRequests::default() }), ..Worker::default() }]
        };
        let idle = Status { balancers: heard, ..Status::default() };
        assert_eq!(busy_with(&idle), None);
        let unheard = Balancers { have_heard: false, ..heard };
        assert!(busy_with(&Status { balancers: unheard, ..idle.clone() }).is_some_and(|why| why.contains("not asked")));
        let long_ago = Balancers { asked_ago_ms: Some(61_000), ..unheard };
        assert_eq!(busy_with(&Status { balancers: long_ago, ..idle.clone() }), None);
        let open = Status { listeners: listener(0, 2), ..idle.clone() };
        assert_eq!(busy_with(&open).as_deref(), Some("connections open or waiting: 2"));
        // A connection that is kept alive is no request.
        let counted = Status { requests: Some(Requests::default()), ..open };
        assert_eq!(busy_with(&counted), None);
        let waits = Status { listeners: listener(1, 0), ..counted.clone() };
        assert_eq!(busy_with(&waits).as_deref(), Some("requests served or waiting: 1"));
        let serves = Status { workers: worker(3), ..counted };
        assert_eq!(busy_with(&serves).as_deref(), Some("requests served or waiting: 3"));
    }
}
