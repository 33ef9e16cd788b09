//! sockd stands still, alone or with everybody: no time runs out for anybody meanwhile.

use super::health::Sickness;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, Notice, Outcome, Phase, Probe, Signal, Spec, Start, WorkerEvent};

fn serving() -> World {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn workers(world: &World) -> Vec<(sockd_supervisor::WorkerId, Phase)> {
    world.core.snapshot(world.now).workers.iter().map(|worker| (worker.worker, worker.phase)).collect()
}

#[test]
fn workers_that_serve_go_on_serving() {
    for everybody in [false, true] {
        let mut world = serving();
        let old = workers(&world);
        for time in [1_000, 29_000, 31_000, 3_600_000] {
            world.stand_still(ms(time), everybody);
            world.run_for(ms(40_000));
            assert_eq!(workers(&world), old, "after {time} ms, everybody: {everybody}\n{}", world.story());
        }
        assert!(world.notices.iter().any(|notice| matches!(notice, Notice::StoodStill(_))));
    }
}

#[test]
fn the_deadline_comes_first_and_the_heartbeats_wait() {
    let mut world = serving();
    let old = workers(&world);
    world.stand_still(ms(60_000), false);
    // As late as can be: all that was due is due before anything is read.
    drop(world.core.handle_timeout(world.now));
    for (id, _) in &old {
        world.event(Event::Worker(*id, WorkerEvent::Heartbeat));
    }
    world.run_for(ms(20_000));
    assert_eq!(workers(&world), old);
}

#[test]
fn one_that_hangs_is_found_all_the_same() {
    for shows_heartbeats in [false, true] {
        let mut world = World::new(1, Start::OnConnection, Spec { probe: None, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        let victim = world.pick_ready_that(shows_heartbeats).expect("there are both");
        world.freeze(victim);
        world.stand_still(ms(60_000), true);
        world.run_until(ms(31_000 + 1_000), "it is found", |world| {
            world.trace().iter().any(|line| line.contains(&format!("{:?}, {:?}", victim, Signal::Abort)))
        });
    }
}

#[test]
fn a_reload_is_not_refused_for_a_standstill() {
    for moment in 0..60 {
        for everybody in [false, true] {
            let mut world = serving();
            let request = world.reload();
            world.run_for(ms(moment * 100));
            world.stand_still(ms(200_000), everybody);
            world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
            assert!(matches!(world.answers[&request], Outcome::Serving(_)), "{:?}\n{}", world.answers, world.story());
        }
    }
}

#[test]
fn one_that_shows_a_heartbeat_from_before_the_standstill_is_given_its_time() {
    let mut world = serving();
    let old = workers(&world);
    // Read late in its time, right after standstills that made up most of it.
    for _ in 0..40 {
        world.run_for(ms(6_000));
        world.stand_still(ms(29_000), true);
    }
    world.run_for(ms(60_000));
    assert_eq!(workers(&world), old, "{}", world.story());
}

#[test]
fn what_a_worker_shows_is_read_only_when_its_time_is_over() {
    let mut world = World::new(1, Start::OnConnection, Spec { probe: None, ..spec() });
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.run_for(ms(600_000));
    let reads = world.trace().iter().filter(|line| line.contains("ReadHeartbeat")).count();
    let shown = world.processes.keys().filter(|id| id.0.is_multiple_of(2)).count();
    assert!((shown * 20..=shown * 27).contains(&reads), "{reads} times in ten minutes");
}

#[test]
fn one_that_beats_is_not_taken_to_hang_for_what_a_standstill_took_of_its_time() {
    for phase in 0..15 {
        let mut world = World::new(1, Start::OnConnection, Spec { probe: None, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        let old = workers(&world);
        world.run_for(ms(20_000 + phase * 500));
        // It ends just before the time of a heartbeat would be over.
        world.stand_still(ms(23_500), true);
        world.run_for(ms(60_000));
        assert_eq!(workers(&world), old, "{phase}\n{}", world.story());
    }
}

#[test]
fn one_that_was_asked_meanwhile_is_asked_again() {
    // Also where nothing else is due for long.
    let alone = Spec { workers: 1, watchdog: None, ..spec() };
    for (everybody, spec, interval) in
        [(false, spec(), 10), (true, spec(), 10), (false, alone.clone(), 600), (true, alone, 600)]
    {
        let probe = spec.probe.map(|probe| Probe { interval: ms(interval * 1_000), ..probe });
        let mut world = World::new(1, Start::OnConnection, Spec { probe, ..spec.clone() });
        world.run_until(ms(10_000), "all workers", |world| world.ready() == spec.workers);
        let victim = world.pick_ready().expect("it is ready");
        world.sicken(victim, Sickness::Silent);
        let asked = format!("Probe {{ worker: {victim:?},");
        let is_asked = |world: &World| world.trace().last().is_some_and(|line| line.contains(&asked));
        world.run_until(ms(interval * 2_000), "it is asked", is_asked);
        world.stand_still(ms(20_000), everybody);
        let from = world.notices.len();
        let found = |n: &Notice| matches!(n, Notice::WorkerUnhealthy { place, .. } if place.worker == victim);
        world.run_until(ms(interval * 6_000), "it is found", |world| world.notices[from..].iter().any(found));
    }
}
