//! The programs that check a reload before it loads anything, and the one that hears of its end.

use super::faults::Code;
use super::simulation::generations::CHECK_TIMEOUT;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Effect, Event, GenerationId, Notice, Outcome, RequestId, RolloutStep, Spec, Start};

fn serving() -> World {
    serving_under(spec())
}

fn serving_under(spec: Spec) -> World {
    let mut world = World::new(1, Start::OnConnection, spec);
    world.checking.programs = 2;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn checking(world: &World) -> bool {
    world.core.snapshot(world.now).rollout.is_some_and(|(_, step)| step == RolloutStep::Checking)
}

/// A reload of which the last check hangs.
fn hanging() -> (World, RequestId) {
    hanging_under(spec())
}

fn hanging_under(spec: Spec) -> (World, RequestId) {
    let mut world = serving_under(spec);
    world.code = Code::CheckHangs;
    let request = world.reload();
    world.run_until(ms(10_000), "the last check", |world| world.checking.run.len() == 2);
    (world, request)
}

#[test]
fn a_start_is_not_checked_and_a_reload_is_by_one_program_after_the_other() {
    let mut world = serving();
    assert!(world.checking.run.is_empty(), "there is no better code to keep");
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
    assert_eq!(world.checking.run, [(GenerationId(2), 0), (GenerationId(2), 1)]);
    let checked = |notice: &&Notice| matches!(notice, Notice::Checking { .. });
    assert_eq!(world.notices.iter().filter(checked).count(), 2);
    world.lose_preparation();
    world.run_until(ms(60_000), "it is made again", |world| world.prepared.contains(&GenerationId(2)));
    assert_eq!(world.checking.run.len(), 2, "what serves is not checked again");
}

#[test]
fn while_visitors_are_answered_503_nothing_keeps_the_code_from_them_that_would_serve() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.checking.programs = 2;
    world.code = Code::ImportError;
    world.run_until(ms(10_000), "503", World::fallback);
    world.code = Code::CheckFails;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
    assert!(world.checking.run.is_empty() && world.notices.contains(&Notice::ChecksLeftOut(GenerationId(2))));
    // Now there is.
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers[&request]);
}

#[test]
fn a_check_that_fails_refuses_the_reload_and_nothing_was_loaded() {
    let mut world = serving();
    world.code = Code::CheckFails;
    let (request, spawns) = (world.reload(), world.spawns);
    world.run_until(ms(60_000), "an answer", |world| {
        assert!(!world.prepared.contains(&GenerationId(2)), "it was loaded");
        world.answers.contains_key(&request)
    });
    let why = "exit 1: unapplied migrations".to_owned();
    let refused = Outcome::Refused { generation: GenerationId(2), why: why.clone(), worker: None };
    assert_eq!(world.answers[&request], refused);
    assert_eq!((world.spawns, world.ready()), (spawns, 3));
    assert_eq!(world.core.snapshot(world.now).refusal.clone().map(|refusal| refusal.why), Some(why.clone()));
    assert_eq!(world.checking.heard[&GenerationId(2)], Err(why));
}

#[test]
fn a_check_that_cannot_be_run_refuses_the_reload_at_once() {
    let mut world = serving();
    world.checking.is_missing = true;
    let request = world.reload();
    world.run_until(ms(100), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(&world.answers[&request], Outcome::Refused { why, .. } if why.contains("/nowhere/check")));
    assert!(world.checking.run.is_empty());
    // And it keeps nobody from starting.
    let mut world = World::new(1, Start::AtOnce, spec());
    world.checking.is_missing = true;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
}

#[test]
fn a_check_has_its_time_and_no_more() {
    let (mut world, request) = hanging();
    let begun = world.now;
    world.run_for(CHECK_TIMEOUT - ms(10));
    assert!(checking(&world) && world.ready() == 3);
    world.run_until(ms(1_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.now.since(begun), CHECK_TIMEOUT);
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers);
}

#[test]
fn what_was_checked_for_long_has_the_whole_time_to_load() {
    let (mut world, request) = hanging();
    world.run_for(CHECK_TIMEOUT - ms(10));
    world.code = Code::PreparationHangs;
    let begun = world.now;
    world.event(Event::Checked { generation: GenerationId(2), verdict: Ok(()) });
    world.run_until(ms(100_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.now.since(begun), sockd_supervisor::PREPARE_TIMEOUT);
}

#[test]
fn a_stop_ends_the_check_and_does_not_wait_for_it() {
    let (mut world, request) = hanging();
    let mut core = world.core.clone();
    let effects = core.handle_event(world.now, Event::StopRequested);
    assert!(effects.iter().any(|effect| *effect == Effect::Release(GenerationId(2))), "{effects:?}");
    world.event(Event::StopRequested);
    assert_eq!(world.checking.running, None);
    world.run_until(ms(45_000), "the end", |world| world.exited);
    assert_eq!(world.answers[&request], Outcome::Stopping);
    assert!(world.checking.heard.is_empty(), "nothing came of it");
}

#[test]
fn a_second_reload_waits_for_the_check_and_gets_checks_of_its_own() {
    let (mut world, first) = hanging();
    let second = world.reload();
    world.run_for(ms(1_000));
    assert!(checking(&world) && world.checking.run.len() == 2, "it supersedes nobody");
    world.code = Code::Good;
    world.run_until(CHECK_TIMEOUT + ms(60_000), "both answers", World::all_answered);
    assert!(matches!(world.answers[&first], Outcome::Refused { generation: GenerationId(2), .. }));
    assert_eq!(world.answers[&second], Outcome::Serving(GenerationId(3)));
    assert_eq!(world.checking.run[2..], [(GenerationId(3), 0), (GenerationId(3), 1)]);
    let heard: Vec<_> = world.checking.heard.iter().map(|(id, verdict)| (id.0, verdict.is_ok())).collect();
    assert_eq!(heard, [(2, false), (3, true)]);
}

#[test]
fn a_standstill_of_sockd_takes_no_time_from_a_check() {
    // Whether it ends before the check's time is over or after; nobody beats and nobody is asked, so that no other deadline
    // comes.
    for (before, time) in [(60_000, 100_000), (10_000, 70_000)] {
        let (mut world, request) = hanging_under(Spec { probe: None, watchdog: None, ..spec() });
        world.run_for(ms(before));
        world.stand_still(ms(time), true);
        world.run_for(ms(25_000));
        assert!(checking(&world), "{:?}", world.answers.get(&request));
        world.run_until(CHECK_TIMEOUT, "an answer", |world| world.answers.contains_key(&request));
    }
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut world = serving();
    for generation in [GenerationId(1), GenerationId(2)] {
        let effects =
            world.core.handle_event(world.now, Event::Checked { generation, verdict: Err("late".to_owned()) });
        assert!(effects.iter().next().is_none(), "{effects:?}");
        let checks = Ok(sockd_supervisor::Checks::default());
        let effects = world.core.handle_event(world.now, Event::Read { generation, checks });
        assert!(effects.iter().next().is_none(), "{effects:?}");
    }
}
