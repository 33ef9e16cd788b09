//! What the overview says, which `sockd status` shows: it must come true.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Outcome, Spec, Start};

fn prepared(world: &World) -> usize {
    world.trace().iter().filter(|line| line.contains("Prepare(")).count()
}

/// A reload to code that is worse is refused; returns whether the code that was refused waits for the next worker.
fn refuse(world: &mut World) -> bool {
    world.code = Code::AnswersWorse;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers);
    awaits_successors(world)
}

fn awaits_successors(world: &World) -> bool {
    world.core.overview(world.now).refusal.expect("it was refused").awaits_successors
}

#[test]
fn the_next_attempt_comes_when_it_is_said_to_come_and_not_before() {
    for fault in [Code::BrokenConfiguration, Code::ImportError] {
        let mut world = World::new(1, Start::AtOnce, spec());
        world.code = fault;
        world.visitors = false;
        let attempts = |world: &World| prepared(world) as u64 + world.spawns;
        for _ in 0..4 {
            world.run_until(ms(60_000), "a wait", |world| world.core.overview(world.now).next_attempt_in.is_some());
            let (wait, before) = (world.core.overview(world.now).next_attempt_in.expect("a wait"), attempts(&world));
            if !wait.is_zero() {
                world.run_for(wait - ms(1));
                assert_eq!(attempts(&world), before, "{fault:?}: earlier than in {wait:?}");
            }
            world.run_for(ms(1));
            assert_eq!(attempts(&world), before + 1, "{fault:?}: not in {wait:?}");
        }
        world.code = Code::Good;
        world.run_until(ms(60_000), "three workers", |world| world.ready() == 3);
        assert_eq!(world.core.overview(world.now).next_attempt_in, None);
    }
}

#[test]
fn a_refusal_says_whether_the_next_worker_would_load_what_was_refused() {
    for preloaded in [false, true] {
        let mut world = World::new(1, Start::OnConnection, Spec { preloaded, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        assert_eq!(refuse(&mut world), !preloaded);
        // What is made again is made of what lies on disk.
        world.lose_preparation();
        world.run_for(ms(5_000));
        assert!(awaits_successors(&world));
    }
}

#[test]
fn code_that_is_silent_to_its_judge_is_refused_for_its_silence() {
    let silent = Spec { ready_after: Some(ms(300)), says_ready: false, ..spec() };
    let mut world = World::new(1, Start::OnConnection, silent);
    world.import = Some(ms(500));
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.code = Code::HangsInImport;
    let request = world.reload();
    world.run_until(ms(70_000), "an answer", |world| world.answers.contains_key(&request));
    let Outcome::Refused { why, .. } = &world.answers[&request] else { panic!("{:?}", world.answers) };
    assert!(why.starts_with("GET /: no answer"), "the start timeout came before the verdict: {why}");
}

#[test]
fn nobody_is_answered_503_while_good_code_is_on_its_way() {
    for seed in 1..=8 {
        let start = if seed % 2 == 0 { Start::OnConnection } else { Start::AtOnce };
        let mut world = World::new(seed, start, spec());
        world.run_until(ms(10_000), "three workers", |world| {
            assert!(!world.fallback(), "{start:?}: the first visitor was turned away");
            world.ready() == 3
        });
    }
}
