//! What is asked of a service that stops.

use super::simulation::{World, ms, spec};
use super::trials::TRIAL;
use sockd_supervisor::{Event, Notice, Outcome, Phase, ReleaseId, Start};

#[test]
fn whatever_is_asked_of_it_the_answer_is_that_it_stops() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.stubborn = true;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.event(Event::StopRequested);
    let asked = [
        world.reload(),
        world.roll_back(ReleaseId(1)),
        world.reload_with_trial(TRIAL),
        world.pause(ms(60_000)),
        world.resume(),
        world.maintain(true),
        world.maintain(false),
    ];
    asked.iter().for_each(|request| assert_eq!(world.answers.get(request), Some(&Outcome::Stopping)));
    let worker = world.core.snapshot(world.now).workers[0].worker;
    assert_eq!(world.replace(worker), Outcome::Stopping);
    assert_eq!(world.decide(true), Outcome::NothingTried);
    assert_eq!(world.decide(false), Outcome::NothingToCallOff);
    world.event(Event::OneMoreWorker);
    world.run_until(ms(33_000), "the end", |world| world.exited);
}

#[test]
fn what_was_to_be_tried_again_is_not() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.stubborn = true;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    // A place and what makes the workers wait for their next attempts.
    world.code = super::faults::Code::BrokenConfiguration;
    world.lose_preparation();
    let waits = |world: &World| world.core.overview(world.now).next_attempt_in.is_some_and(|wait| wait > ms(1_000));
    world.run_until(ms(60_000), "a wait", waits);
    world.event(Event::StopRequested);
    let from = world.trace().len();
    world.run_until(ms(33_000), "the end", |world| world.exited);
    assert!(!world.trace()[from..].iter().any(|line| line.contains(" Read {")), "{}", world.story());
}

#[test]
fn a_stop_that_is_asked_for_again_is_said_to_be_once() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.stubborn = true;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    for repeated in [0, 1, 1] {
        world.event(Event::StopRequested);
        assert_eq!(world.notices.iter().filter(|notice| **notice == Notice::StopRepeated).count(), repeated);
    }
    world.run_until(ms(33_000), "the end", |world| world.exited);
}

#[test]
fn who_drains_is_asked_to_stop_as_well() {
    let mut world = World::new(1, Start::OnConnection, spec());
    (world.lasting_connections, world.stubborn) = (true, true);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    let workers = world.core.snapshot(world.now).workers;
    let drains: Vec<_> = workers.iter().filter(|worker| worker.phase == Phase::Draining).collect();
    assert!(drains.len() >= 3);
    let from = world.trace().len();
    world.event(Event::StopRequested);
    let asked = |id| world.trace()[from..].iter().any(|line| line.contains(&format!("Signal({id:?}, Stop)")));
    assert!(drains.iter().all(|worker| asked(worker.worker)), "{}", world.story());
}
