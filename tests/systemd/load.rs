//! Visitors under way while a test does things to a site, and what they saw.
//!
//! Owns: the programs `load.py` (the visitors) and `kill.py` (an accident), and the figures made of a record.
//! Must never: judge; what may have been lost and how long anything may have taken is the test's to say.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::machine::{Machine, quote};

/// How many visitors there are at a time.
const CLIENTS: u32 = 8;
/// The visitors leave by themselves after this time: longer than any test, short of for ever.
const LIMIT: Duration = Duration::from_secs(900);
const BEGIN_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(60);

const RECORD: &str = "/run/visits";
const END: &str = "/run/visitors-may-leave";

/// Visitors who come again and again until [`Load::finish`].
pub struct Load<'machine> {
    machine: &'machine Machine,
}

impl<'machine> Load<'machine> {
    /// Sends visitors to these sockets (paths, or addresses with a port; `#POST /order` after one is what they ask). The first ones have been answered, well or
    /// not, when this returns.
    pub fn begin(machine: &'machine Machine, places: &[&str]) -> Self {
        machine.write_file("/opt/load.py", 0o755, include_str!("load.py"));
        machine.write_file("/opt/kill.py", 0o755, include_str!("kill.py"));
        machine
            .run(&format!(
                "rm -f {RECORD} {END}
                 systemd-run --quiet --collect --unit=visitors python3 /opt/load.py {RECORD} {END} {CLIENTS} {} {}",
                LIMIT.as_secs(),
                places.iter().map(|place| quote(place)).collect::<Vec<_>>().join(" ")
            ))
            .succeeded();
        let load = Self { machine };
        load.wait_for_visits(u64::from(CLIENTS));
        load
    }

    /// Where the visitors are.
    pub fn machine(&self) -> &'machine Machine {
        self.machine
    }

    /// Waits until so many more requests have come to their end, well or not.
    #[track_caller]
    pub fn wait_for_visits(&self, more: u64) {
        let script = format!(
            "wanted=$(($(wc -l 2>/dev/null <{RECORD} || echo 0) + {more}))
             end=$((SECONDS + {}))
             until [ -e {RECORD} ] && [ $(wc -l <{RECORD}) -ge $wanted ]; do
                 [ $SECONDS -lt $end ]; sleep 0.02
             done",
            BEGIN_LIMIT.as_secs()
        );
        self.machine.run(&script).succeeded();
    }

    /// Waits until the visitors have come for so many seconds in all.
    #[track_caller]
    pub fn wait_for_span(&self, seconds: f64) {
        let script = format!(
            "python3 - <<'EOF'
import json, os, sys
lines = open('{RECORD}').read().splitlines()
sys.exit(json.loads(lines[-1])['began'] - json.loads(lines[0])['began'] < {seconds})
EOF"
        );
        self.machine.wait_for("visitors to have come long enough", END_LIMIT, &script);
    }

    /// Kills a random ready worker of the serving generation, if `least` are ready.
    pub fn kill_a_worker(&self, unit: &str, seed: usize, least: usize) -> Option<Accident> {
        let said = self.machine.run(&format!("python3 /opt/kill.py {unit} {seed} {least}")).succeeded();
        let mut words = said.split_whitespace().map(|word| word.parse().expect("a number"));
        let span = (words.next()?, words.next()?);
        Some(Accident { span, most: 1 })
    }

    /// Lets the visitors leave and returns what they saw.
    pub fn finish(self) -> Record {
        self.machine.run(&format!("touch {END}")).succeeded();
        self.machine.wait_for("the visitors to leave", END_LIMIT, "! systemctl is-active visitors");
        let text = self.machine.run(&format!("cat {RECORD}")).succeeded();
        let mut visits: Vec<Visit> =
            text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect();
        visits.sort_by(|a, b| a.began.total_cmp(&b.began));
        Record { visits }
    }
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
pub struct Visit {
    /// When it began: seconds since 1970.
    pub began: f64,
    /// How long it took, in seconds.
    pub took: f64,
    /// The socket.
    pub place: String,
    /// The status of the answer; 0 without one.
    pub status: u16,
    /// The page.
    pub text: String,
    /// What went wrong; empty with an answer, whatever its status.
    pub error: String,
}

impl Visit {
    /// Whether the visitor did not get the page.
    pub fn failed(&self) -> bool {
        self.status != 200
    }

    /// When it ended: seconds since 1970.
    pub fn ended(&self) -> f64 {
        self.began + self.took
    }

    /// Whether it was under way at some time of a span.
    pub fn touches(&self, (from, to): Span) -> bool {
        self.began <= to && self.ended() >= from
    }
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { began, took, place, status, text, error } = self;
        write!(f, "at {began:.3} to {place}: {status} after {:.0} ms, {text:?}", took * 1000.0)?;
        if !error.is_empty() {
            write!(f, ", {error}")?;
        }
        Ok(())
    }
}

/// From one moment to another: seconds since 1970.
pub type Span = (f64, f64);

/// Something was killed within this span, and with it at most so many requests that were under way.
#[derive(Clone, Copy, Debug)]
pub struct Accident {
    /// From before to after it.
    pub span: Span,
    /// How many requests it may have cost.
    pub most: usize,
}

/// What the visitors saw, in the order of the requests' beginnings.
#[derive(Debug)]
pub struct Record {
    /// The requests.
    pub visits: Vec<Visit>,
}

impl Record {
    /// The requests without the page.
    pub fn failed(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(|visit| visit.failed())
    }

    /// The request that took longest, of those that touch none of these spans.
    pub fn longest(&self, except: &[Span]) -> &Visit {
        self.visits
            .iter()
            .filter(|visit| !except.iter().any(|span| visit.touches(*span)))
            .max_by(|a, b| a.took.total_cmp(&b.took))
            .expect("visits outside the spans")
    }

    /// The failed requests that none of these accidents explains.
    pub fn unexplained(&self, accidents: &[Accident]) -> Vec<&Visit> {
        let mut left: Vec<usize> = accidents.iter().map(|accident| accident.most).collect();
        self.failed()
            .filter(|visit| {
                let explains = |(accident, left): &(&Accident, &mut usize)| **left > 0 && visit.touches(accident.span);
                accidents.iter().zip(&mut left).find(explains).map(|(_, left)| *left -= 1).is_none()
            })
            .collect()
    }

    /// How many requests went to a place.
    pub fn to(&self, place: &str) -> usize {
        self.visits.iter().filter(|visit| visit.place == place).count()
    }
}

/// Requests, one a line, for people.
pub fn list<'a>(visits: impl IntoIterator<Item = &'a Visit>) -> String {
    visits.into_iter().map(|visit| format!("{visit}\n")).collect()
}
