//! The number of workers is changed beside the configuration: step by step, never below one, until the next reload.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use std::time::Duration;

use sockd_supervisor::{Event, GenerationId, MAX_WORKERS, Notice, Outcome, Phase, Spec, Start, WorkerEvent};

fn serving(workers: u32) -> World {
    let mut spec = spec();
    spec.workers = workers;
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(10_000), "all workers", |world| world.ready() == workers);
    world
}

fn settled(world: &World, workers: u32) -> bool {
    let now = world.core.snapshot(world.now);
    now.wanted == Some(workers) && now.ready == workers && now.workers.len() == workers as usize
}

#[test]
fn one_more_and_one_fewer_until_a_reload_has_taken_over() {
    let mut world = serving(3);
    world.event(Event::OneMoreWorker);
    world.run_until(ms(10_000), "four", |world| settled(world, 4));
    // A reload that is refused changes nothing.
    world.code = Code::ImportError;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    world.run_for(ms(60_000));
    assert!(settled(&world, 4));
    world.event(Event::OneFewerWorker);
    world.event(Event::OneFewerWorker);
    world.run_until(ms(60_000), "two", |world| settled(world, 2));
    world.code = Code::Good;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(3)));
    world.run_until(ms(60_000), "as configured", |world| settled(world, 3));
}

#[test]
fn what_is_asked_for_during_a_rollout_holds_after_it() {
    let mut world = serving(2);
    let request = world.reload();
    world.event(Event::OneMoreWorker);
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    world.run_until(ms(60_000), "three of the new generation", |world| settled(world, 3));
    assert_eq!(world.core.snapshot(world.now).generation, GenerationId(2));
}

#[test]
fn what_is_asked_for_while_a_reload_waits_for_the_one_before_holds_after_both() {
    let mut world = serving(2);
    let first = world.reload();
    world.run_until(ms(60_000), "the first one hands over", |world| {
        let now = world.core.snapshot(world.now);
        now.generation == GenerationId(2) && !world.answers.contains_key(&first)
    });
    let second = world.reload();
    world.event(Event::OneMoreWorker);
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&second));
    world.run_until(ms(60_000), "three of the last generation", |world| settled(world, 3));
    assert_eq!(world.core.snapshot(world.now).generation, GenerationId(3));
}

#[test]
fn there_is_always_one_and_there_are_never_too_many() {
    let mut world = serving(1);
    world.event(Event::OneFewerWorker);
    assert!(settled(&world, 1));
    assert!(world.notices.contains(&Notice::PoolResized { from: 1, to: 1 }));

    // Not with processes: it waits for its first visitor.
    let mut spec = spec();
    spec.workers = MAX_WORKERS - 1;
    let mut world = World::new(1, Start::OnConnection, spec);
    world.visitors = false;
    world.run_until(ms(10_000), "it is prepared", |world| world.core.snapshot(world.now).wanted.is_some());
    for from in [MAX_WORKERS - 1, MAX_WORKERS] {
        world.event(Event::OneMoreWorker);
        assert!(world.notices.contains(&Notice::PoolResized { from, to: MAX_WORKERS }));
    }
}

#[test]
fn restarts_are_counted_on_when_their_slot_is_gone() {
    let mut world = serving(3);
    let slots = world.core.snapshot(world.now).slots;
    for slot in slots {
        world.kill(slot.current.expect("it serves"));
    }
    world.run_until(ms(60_000), "three successors", |world| settled(world, 3));
    assert_eq!(world.core.snapshot(world.now).restarts, 3);
    world.event(Event::OneFewerWorker);
    world.run_until(ms(60_000), "two", |world| settled(world, 2));
    // A worker that is replaced while it is well is no restart.
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.core.snapshot(world.now).restarts, 3);
}

#[test]
fn the_one_that_goes_is_one_that_does_not_serve() {
    for victim in 0..3 {
        let mut world = serving(3);
        world.code = Code::NeverReady;
        let slots = world.core.snapshot(world.now).slots;
        world.kill(slots[victim].current.expect("it serves"));
        world.run_until(ms(60_000), "its successor starts", |world| {
            world.core.snapshot(world.now).workers.iter().any(|worker| worker.phase == Phase::Starting)
        });
        world.event(Event::OneFewerWorker);
        assert_eq!(world.ready(), 2, "one that serves was taken away");
        world.run_until(ms(60_000), "the other two are all", |world| settled(world, 2));
        world.run_for(ms(60_000));
        assert!(settled(&world, 2));
    }
}

#[test]
fn a_pool_that_waits_for_its_first_visitor_has_the_new_number_then() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.event(Event::OneMoreWorker);
    world.run_until(ms(60_000), "four", |world| settled(world, 4));
}

#[test]
fn two_deaths_in_a_row_are_an_accident_and_three_are_not() {
    let mut world = serving(1);
    for death in 1..=3 {
        let victim = world.pick_ready().expect("it is ready");
        world.kill(victim);
        let backs_off = world.core.snapshot(world.now).slots[0].retry_in.is_some();
        assert_eq!(backs_off, death == 3, "death {death}");
        world.run_until(ms(10_000), "its successor", |world| world.ready() == 1);
    }
}

/// The wait grows with the deaths, no matter what kills the workers; a visitor ends it.
#[test]
fn after_many_quick_deaths_a_visitor_is_served_soon() {
    let mut world = serving(2);
    let long = Duration::from_secs(20);
    let waits_long = |world: &World| {
        let slots = world.core.snapshot(world.now).slots;
        slots.iter().all(|slot| slot.retry_in.is_some_and(|wait| wait > long))
    };
    for death in 1.. {
        assert!(death < 50, "the wait does not grow");
        world.run_until(ms(10_000), "both", |world| world.ready() == 2);
        while let Some(victim) = world.pick_ready() {
            world.kill(victim);
        }
        if waits_long(&world) {
            break;
        }
    }
    world.run_until(ms(4_000), "a worker", |world| world.ready() > 0);
}

#[test]
fn the_one_that_goes_is_one_that_is_to_be_replaced_rather_than_one_that_stays() {
    for retires in [true, false] {
        let mut world = World::new(1, Start::OnConnection, Spec { canary: false, surge: 1, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| settled(world, 3));
        if retires {
            world.code = Code::NeverReady;
            let victim = world.core.snapshot(world.now).slots[0].current.expect("it serves");
            world.event(Event::Worker(victim, WorkerEvent::WantsRetirement));
        } else {
            // What is left of a reload that was called off serves until it is replaced.
            let _ = world.reload();
            let taken = |world: &World| {
                let now = world.core.snapshot(world.now);
                let first = now.slots[0].current;
                now.workers.iter().any(|w| Some(w.worker) == first && w.generation == GenerationId(2))
            };
            world.run_until(ms(60_000), "a new one has its place", taken);
            world.code = Code::NeverReady;
            let _ = world.decide(false);
        }
        let slots = world.core.snapshot(world.now).slots;
        assert!(slots[0].successor.is_some() && world.ready() == 3, "{}", world.story());
        world.event(Event::OneFewerWorker);
        let kept: Vec<_> = world.core.snapshot(world.now).slots.iter().map(|slot| slot.current).collect();
        assert_eq!(kept, [slots[2].current, slots[1].current], "retires: {retires}\n{}", world.story());
    }
}

#[test]
fn accidents_are_counted_within_ten_seconds() {
    for (late, backs_off) in [(0, false), (1, true)] {
        let mut world = serving(1);
        let die = |world: &mut World| {
            let victim = world.pick_ready().expect("it is ready");
            world.kill(victim);
            world.now
        };
        let first = die(&mut world);
        world.run_for(ms(8_900));
        let _ = die(&mut world);
        let rest = ms(10_000 - late) - world.now.since(first);
        world.run_for(rest);
        // Ready for less than a second, and the third within that time, or not.
        let third = die(&mut world);
        assert_eq!(third.since(first), ms(10_000 - late));
        assert_eq!(world.core.snapshot(world.now).slots[0].retry_in.is_some(), backs_off, "{late}\n{}", world.story());
    }
}
