//! Visitors who are turned away call the next attempt to start: not too early, and not too late.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, Phase, Spec, Start};
use std::time::Duration;

/// An attempt has just failed, and the next one would come by itself after more than this.
const LONG: Duration = ms(3_000);

fn waits_long(world: &World) -> bool {
    world.core.overview(world.now).next_attempt_in.is_some_and(|wait| wait > LONG)
}

/// How often workers were made, or something to make them of was read.
fn attempts(world: &World) -> usize {
    world.trace().iter().filter(|line| line.contains(" Spawn {") || line.contains(" Read {")).count()
}

#[test]
fn the_next_attempt_comes_with_the_first_visitor_a_second_after_the_last_one_failed() {
    for code in [Code::ImportError, Code::BrokenConfiguration] {
        let mut world = World::new(1, Start::AtOnce, spec());
        world.visitors = false;
        world.code = code;
        world.run_until(ms(60_000), "a long wait", waits_long);
        let before = attempts(&world);
        world.run_for(ms(999));
        world.event(Event::VisitorTurnedAway);
        assert_eq!(attempts(&world), before, "{code:?}: too early");
        world.run_for(ms(1));
        world.event(Event::VisitorTurnedAway);
        assert_eq!(attempts(&world), before + 1, "{code:?}: too late");
    }
}

#[test]
fn a_worker_that_still_leaves_keeps_no_visitor_from_calling_the_next_attempt() {
    let mut world = World::new(1, Start::AtOnce, Spec { start_timeout: ms(5_000), ..spec() });
    (world.visitors, world.stubborn) = (false, true);
    world.code = Code::NeverReady;
    world.run_until(ms(120_000), "a long wait", waits_long);
    world.run_for(ms(1_000));
    let leaves = world.core.snapshot(world.now).workers.iter().any(|worker| worker.phase == Phase::Terminating);
    let before = attempts(&world);
    world.event(Event::VisitorTurnedAway);
    assert!(leaves && attempts(&world) == before + 1, "{}", world.story());
}
