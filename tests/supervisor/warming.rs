//! A warm template: asked for where nobody waits, used where it works, and harmless where it does not.

use super::faults::Code;
use super::simulation::warming::Fate;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, GenerationId, Notice, Outcome, Phase, Spec, Start, Warmth};

fn warming() -> Spec {
    Spec { preloaded: true, warms: true, ..spec() }
}

/// Three workers, and what is to come of the copy.
fn serving(fate: Fate) -> World {
    let mut world = World::new(1, Start::OnConnection, warming());
    world.warming.fate = fate;
    world.run_until(ms(20_000), "three workers", |world| world.ready() == 3);
    world
}

fn warmth(world: &World) -> Warmth {
    world.core.snapshot(world.now).warmth.clone()
}

/// Whether every worker was made by the copy, and nobody else is there.
fn all_are_warm(world: &World) -> bool {
    let now = world.core.snapshot(world.now);
    now.workers.len() == 3
        && now.workers.iter().all(|w| w.phase == Phase::Ready && world.warming.made.contains(&w.worker))
}

#[test]
fn at_a_start_it_is_asked_for_after_the_first_visitors_and_the_workers_are_replaced() {
    let mut world = World::new(1, Start::OnConnection, warming());
    world.run_until(ms(20_000), "a worker", |world| world.ready() == 1);
    let ready = world.now;
    world.run_until(ms(20_000), "a copy", |world| !world.warming.asked.is_empty());
    assert!(world.now.since(ready) >= ms(1_000), "the first visitors wait: {:?}", world.now.since(ready));
    world.run_until(ms(60_000), "warm workers", |world| {
        assert!(world.ready() >= 1, "a visitor has nobody\n{}", world.story());
        all_are_warm(world)
    });
    assert!(matches!(warmth(&world), Warmth::Warm(_)));
    assert!(world.notices.contains(&Notice::Warm(GenerationId(1))));
    let spawns = world.spawns;
    world.run_for(ms(600_000));
    assert_eq!(world.spawns, spawns, "each is replaced once");
}

#[test]
fn no_worker_that_serves_goes_before_its_successor_is_proven() {
    let mut world = serving(Fate::Works);
    world.run_until(ms(60_000), "warm workers", |world| {
        assert!(world.ready() >= 3, "a visitor has fewer workers\n{}", world.story());
        all_are_warm(world)
    });
}

#[test]
fn what_is_not_preloaded_is_not_warmed() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.run_until(ms(20_000), "three workers", |world| world.ready() == 3);
    world.run_for(ms(60_000));
    assert!(world.warming.asked.is_empty());
    assert_eq!(warmth(&world), Warmth::Unwarmed);
}

#[test]
fn a_copy_that_is_refused_or_hangs_changes_nothing() {
    for fate in [Fate::IsRefused, Fate::Hangs] {
        let mut world = serving(fate);
        let spawns = world.spawns;
        world.run_for(ms(60_000));
        assert_eq!((world.spawns, world.ready()), (spawns, 3), "{fate:?}");
        let refused = world.notices.iter().any(|notice| matches!(notice, Notice::NotWarm { .. }));
        assert_eq!(refused, fate == Fate::IsRefused);
        let request = world.reload();
        world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
        assert!(matches!(world.answers[&request], Outcome::Serving(_)), "{fate:?}: {:?}", world.answers);
    }
}

#[test]
fn a_worker_that_does_not_get_ready_ends_it_and_the_old_ones_serve_on() {
    let mut world = serving(Fate::MakesUselessWorkers);
    world.run_until(ms(60_000), "the way back", |world| {
        assert!(world.ready() >= 3, "a visitor has fewer workers\n{}", world.story());
        matches!(warmth(world), Warmth::Refused(_))
    });
    world.run_for(ms(600_000));
    assert_eq!(world.warming.made.len(), 1, "one failure is enough");
    let victim = world.pick_ready().expect("three are ready");
    world.kill(victim);
    world.run_until(ms(60_000), "three workers", |world| world.ready() == 3);
}

#[test]
fn no_reload_is_refused_for_its_workers() {
    let mut world = serving(Fate::Hangs);
    world.warming.fate = Fate::MakesUselessWorkers;
    // Time enough for a copy, beside a rollout.
    world.fork_time = Some(ms(3_000));
    let request = world.reload();
    world.run_until(ms(200_000), "an answer", |world| {
        assert!(world.ready() >= 3, "a visitor has fewer workers\n{}", world.story());
        world.answers.contains_key(&request)
    });
    assert!(!world.warming.made.is_empty(), "none was made by it\n{}", world.story());
    assert!(matches!(world.answers[&request], Outcome::Serving(_)), "{:?}", world.answers);
    assert!(matches!(warmth(&world), Warmth::Refused(_)));
}

#[test]
fn broken_code_is_refused_with_it_as_without() {
    for code in [Code::ImportError, Code::AnswersWorse] {
        let mut world = serving(Fate::Works);
        world.run_until(ms(60_000), "warm workers", all_are_warm);
        world.code = code;
        let request = world.reload();
        world.run_until(ms(200_000), "an answer", |world| world.answers.contains_key(&request));
        assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{code:?}: {:?}", world.answers);
        world.run_until(ms(60_000), "warm workers alone", all_are_warm);
    }
}

#[test]
fn during_a_rollout_it_is_asked_for_at_once() {
    let mut world = serving(Fate::Works);
    world.run_until(ms(60_000), "warm workers", all_are_warm);
    let request = world.reload();
    let canary = |world: &World| {
        world.core.snapshot(world.now).workers.iter().any(|w| w.generation == GenerationId(2) && w.ready_for.is_some())
    };
    world.run_until(ms(60_000), "a canary", canary);
    assert!(world.warming.asked.contains(&GenerationId(2)));
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    world.run_until(ms(60_000), "warm workers", all_are_warm);
}

#[test]
fn one_that_ends_leaves_the_workers_as_they_are() {
    let mut world = serving(Fate::Ends);
    world.run_until(ms(60_000), "its end", |world| matches!(warmth(world), Warmth::Refused(_)));
    world.run_until(ms(60_000), "three workers alone", |world| {
        world.ready() == 3 && world.core.snapshot(world.now).workers.len() == 3
    });
    let spawns = world.spawns;
    world.run_for(ms(600_000));
    assert_eq!((world.spawns, world.ready()), (spawns, 3));
}

#[test]
fn what_is_prepared_again_is_warmed_again() {
    let mut world = serving(Fate::Works);
    world.run_until(ms(60_000), "warm workers", all_are_warm);
    world.lose_preparation();
    assert_eq!(warmth(&world), Warmth::Unwarmed);
    let victim = world.pick_ready().expect("three are ready");
    world.kill(victim);
    world.run_until(ms(60_000), "a warm template", |world| matches!(warmth(world), Warmth::Warm(_)));
}

#[test]
fn an_unasked_copy_is_not_used() {
    let mut world = serving(Fate::Hangs);
    world.run_until(ms(20_000), "a copy", |world| !world.warming.asked.is_empty());
    world.event(Event::NotWarm { generation: GenerationId(7), why: "of nobody".to_owned() });
    let effects = world.core.handle_event(world.now, Event::Warmed(GenerationId(7)));
    assert_eq!(effects.into_iter().count(), 0);
}
