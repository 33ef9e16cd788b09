//! What makes the workers: prepared again when it is lost or stuck, at once where it was well, and later each time where not.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Notice, Start};
use std::time::Duration;

/// The waits before the next preparations.
fn waits(world: &World) -> Vec<Duration> {
    let wait = |notice: &Notice| {
        if let Notice::PreparationFailed { retry_in, .. } = notice { *retry_in } else { None }
    };
    world.notices.iter().filter_map(wait).collect()
}

#[test]
fn one_that_makes_no_worker_has_not_been_well_while_it_was_waited_for() {
    let mut world = World::new(1, Start::AtOnce, spec());
    world.visitors = false;
    world.code = Code::NeverForks;
    world.run_for(ms(120_000));
    let waits = waits(&world);
    let expected = [0, 500, 1_000, 2_000, 4_000].map(ms);
    assert!(waits.len() >= expected.len(), "{waits:?}");
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected.mul_f64(0.75)..=expected.mul_f64(1.25)).contains(wait), "{waits:?}");
    }
}

#[test]
fn one_that_was_idle_for_long_was_well() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    for _ in 0..3 {
        world.run_for(ms(60_000));
        world.lose_preparation();
    }
    assert_eq!(waits(&world), [Duration::ZERO; 3]);
}
