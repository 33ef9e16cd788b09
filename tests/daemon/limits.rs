//! Many workers.

use std::collections::BTreeSet;

use rustix::process::Signal;

use super::instance::Instance;
use super::processes;

#[test]
fn two_hundred_workers_come_up_die_and_end() {
    let options = "--workers 200 --ready-after 200ms --start at-once";
    let web = Instance::on_unix().options(options).command(&["sleep", "infinity"]);
    web.status("serving, 200 of 200 workers, generation 1");
    let report = web.report();
    assert_eq!((report.workers.len(), report.slots.len(), report.wanted_workers), (200, 200, 200));
    let before: BTreeSet<_> = web.ready().iter().map(|pid| pid.as_raw_nonzero()).collect();
    assert_eq!(before.len(), 200);
    // A hundred at a time.
    let mark = web.mark();
    web.ready().into_iter().take(100).for_each(|pid| processes::signal(pid, Signal::KILL));
    let fewer = web.status_like(mark, "serving, 1");
    web.status_since(fewer.mark(), "serving, 200 of 200 workers, generation 1");
    let after: BTreeSet<_> = web.ready().iter().map(|pid| pid.as_raw_nonzero()).collect();
    assert_eq!(after.intersection(&before).count(), 100);
    web.stop();
}
