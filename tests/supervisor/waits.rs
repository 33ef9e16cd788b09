//! What the service manager is asked to wait for, and that nothing wakes an instance that is well. The simulated manager
//! ends the service where it was not asked to wait so long.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{GenerationId, Notice, Outcome, Spec, Start};

fn serving(spec: Spec, lasting_connections: bool) -> World {
    let mut world = World::new(1, Start::OnConnection, spec);
    (world.lasting_connections, world.stubborn) = (lasting_connections, lasting_connections);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

#[test]
fn a_stop_of_which_each_step_takes_as_long_as_it_may_comes_to_its_end() {
    let mut world = serving(Spec { concludes: true, ..spec() }, true);
    world.hangs_in_conclusion = true;
    world.event(sockd_supervisor::Event::StopRequested);
    world.run_until(ms(60_000), "the end", |world| world.exited);
    assert_eq!(world.concluded, [GenerationId(1)]);
}

#[test]
fn a_reload_that_soaks_longer_than_anything_else_comes_to_its_end() {
    let mut world = serving(spec(), true);
    world.spec.soak = ms(300_000);
    let request = world.reload();
    world.run_until(ms(320_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
}

#[test]
fn a_first_worker_that_takes_its_time_is_waited_for() {
    let mut world = World::new(1, Start::AtOnce, Spec { start_timeout: ms(300_000), ..spec() });
    world.code = Code::NeverReady;
    world.run_until(ms(310_000), "its own time is over first", World::fallback);
}

#[test]
fn nothing_wakes_an_instance_of_which_nobody_is_asked_or_beats() {
    let world = serving(Spec { probe: None, watchdog: None, ..spec() }, false);
    assert_eq!(world.core.poll_timeout(), None);
}

/// As long as it says, whatever it may take otherwise.
#[test]
fn a_start_and_a_reload_that_load_long_are_waited_for() {
    for start in [Start::AtOnce, Start::OnConnection] {
        let mut world = World::new(1, start, spec());
        let mut generation = GenerationId(1);
        if start == Start::OnConnection {
            world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
            generation = GenerationId(2);
        }
        world.code = Code::PreparationHangs;
        if start == Start::OnConnection {
            let _ = world.reload();
        }
        let loads = |world: &World| world.trace().last().is_some_and(|line| line.contains("Load("));
        world.run_until(ms(10_000), "it is loaded", loads);
        let begun = world.now;
        world.event(sockd_supervisor::Event::Preparing { generation, limit: ms(150_000) });
        let failed = |notice: &Notice| matches!(notice, Notice::PreparationFailed { .. });
        world.run_until(ms(151_000), "it is given up", |world| world.notices.iter().any(failed));
        assert!(world.now.since(begun) > ms(149_000), "{:?}", world.now.since(begun));
    }
}

#[test]
fn a_start_in_whose_middle_sockd_stands_still_is_waited_for() {
    for everybody in [false, true] {
        let mut world = World::new(1, Start::AtOnce, spec());
        world.code = Code::NeverReady;
        world.run_for(ms(5_000));
        world.stand_still(ms(200_000), everybody);
        world.run_until(ms(70_000), "its time is over", World::fallback);
    }
}
