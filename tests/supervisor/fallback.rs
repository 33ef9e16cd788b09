//! The helper that answers 503: it ends, it cannot be started, it comes again.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, Notice, Start};

/// Nobody can serve, and visitors are answered 503.
fn turning_away() -> World {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.code = Code::ImportError;
    world.run_until(ms(10_000), "503", World::fallback);
    world.visitors = false;
    world
}

fn lose(world: &mut World) {
    world.lose_helper();
    assert!(!world.fallback());
}

fn count(world: &World, which: fn(&Notice) -> bool) -> usize {
    world.notices.iter().filter(|notice| which(notice)).count()
}

fn failed(notice: &Notice) -> bool {
    matches!(notice, Notice::FallbackFailed { .. })
}

fn restored(notice: &Notice) -> bool {
    matches!(notice, Notice::FallbackRestored)
}

fn failure(world: &World) -> Option<String> {
    world.core.overview(world.now).fallback_failure
}

#[test]
fn a_helper_that_ends_is_started_again_after_a_second_and_said_to_fail_once() {
    let mut world = turning_away();
    for _ in 0..5 {
        lose(&mut world);
        assert!(failure(&world).is_some());
        world.run_for(ms(999));
        assert!(!world.fallback(), "not earlier");
        world.run_for(ms(1));
        assert!(world.fallback());
        assert!(failure(&world).is_some(), "it may end again");
    }
    assert_eq!((count(&world, failed), count(&world, restored)), (1, 0));
    world.run_for(ms(1_000));
    assert_eq!((count(&world, failed), count(&world, restored)), (1, 1));
    assert_eq!(failure(&world), None);
    lose(&mut world);
    assert_eq!(count(&world, failed), 2, "a loss after that is another one");
}

#[test]
fn a_helper_that_is_not_wanted_any_more_is_not_started_again() {
    let mut world = turning_away();
    lose(&mut world);
    world.code = Code::Good;
    world.visitors = true;
    world.run_until(ms(120_000), "served", |world| world.ready() > 0);
    assert!(!world.fallback() && failure(&world).is_none());
    world.event(Event::FallbackLost { why: "the helper ended (exit 0)".to_owned() });
    world.run_for(ms(5_000));
    assert!(!world.fallback() && failure(&world).is_none(), "it ended because it was to");
}
