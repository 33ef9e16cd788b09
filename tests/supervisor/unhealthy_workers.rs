//! Single situations of workers that are not well, played step by step.

use super::faults::Code;
use super::health::Sickness;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{
    Answers, Event, Irreplaceable, Notice, Outcome, Phase, Retirement, Start, WorkerEvent, WorkerId,
};
use std::collections::BTreeSet;

fn serving(spec: sockd_supervisor::Spec) -> World {
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn is_ready(world: &World, id: WorkerId) -> bool {
    world.core.snapshot(world.now).workers.iter().any(|w| w.worker == id && w.phase == Phase::Ready)
}

fn everybody(world: &World) -> BTreeSet<WorkerId> {
    world.core.snapshot(world.now).workers.iter().map(|w| w.worker).collect()
}

#[test]
fn a_silent_worker_is_found_within_half_a_minute_and_replaced_before_it_goes() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    world.sicken(victim, Sickness::Silent);
    let found = |world: &World| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerUnhealthy { place, .. } if place.worker == victim))
    };
    world.run_until(ms(30_000), "it is found", found);
    world.run_until(ms(2_000), "its successor has its place", |world| {
        assert!(world.ready() >= 3, "somebody was taken away");
        !is_ready(world, victim)
    });
    // Its requests get a while; then it tells where it hangs, and goes.
    world.run_until(ms(10_500), "it is aborted", |world| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerHangs { place, .. } if place.worker == victim))
    });
    world.run_until(ms(3_000), "it is gone", |world| !everybody(world).contains(&victim));
    assert_eq!(world.ready(), 3);
}

#[test]
fn a_worker_is_not_asked_while_nobody_is_served_and_in_earnest_once_it_failed() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    let found = |world: &World| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerUnhealthy { place, .. } if place.worker == victim))
    };
    world.be_idle(ms(300_000));
    world.sicken(victim, Sickness::Silent);
    world.run_for(ms(299_000));
    assert!(!found(&world) && is_ready(&world, victim), "nobody is stuck in it");
    // A question fails once visitors have come; they leave again, and it is asked nevertheless.
    world.run_for(ms(17_000));
    world.be_idle(ms(300_000));
    world.run_until(ms(30_000), "it is found", found);
}

#[test]
fn the_last_request_of_one_that_serves_them_one_by_one_may_take_no_longer_than_any_other() {
    let mut spec = spec();
    (spec.silent_when_busy, spec.watchdog, spec.probe) = (true, Some(ms(9_000)), None);
    for shows_heartbeats in [false, true] {
        let mut world = serving(spec.clone());
        let hung = world.pick_ready_that(shows_heartbeats).expect("there are both");
        world.freeze(hung);
        let request = world.reload();
        world.run_until(ms(8_000), "an answer", |world| world.answers.contains_key(&request));
        assert!(everybody(&world).contains(&hung));
        world.run_until(ms(9_500), "it tells where it hangs", |world| {
            world.notices.iter().any(|n| matches!(n, Notice::WorkerHangs { place, .. } if place.worker == hung))
        });
        world.run_until(ms(3_000), "it is gone", |world| !everybody(world).contains(&hung));
    }
}

#[test]
fn a_silent_worker_without_a_successor_is_not_left_where_visitors_get_stuck() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    world.code = Code::NeverReady;
    world.sicken(victim, Sickness::Silent);
    world.run_until(ms(92_000), "it is aborted", |world| !is_ready(world, victim));
    assert_eq!(world.ready(), 2, "the others serve on");
}

#[test]
fn one_that_answers_badly_stays_where_its_successor_would_answer_no_better() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    world.code = Code::IsIll;
    world.sicken(victim, Sickness::Ill);
    world.run_for(ms(300_000));
    assert!(is_ready(&world, victim) && world.ready() == 3, "nothing was gained by taking it away");
    assert!(world.spawns <= 3 + 20, "{} attempts in five minutes", world.spawns);
    world.code = Code::Good;
    world.run_until(ms(40_000), "a better one takes its place", |world| {
        assert!(world.ready() >= 3);
        !is_ready(world, victim)
    });
}

#[test]
fn one_failure_is_not_enough_and_a_good_answer_takes_it_back() {
    let mut world = serving(spec());
    let before = everybody(&world);
    let victim = world.pick_ready().expect("one of three");
    world.sicken(victim, Sickness::Silent);
    world.run_until(ms(20_000), "a failure", |world| {
        let now = world.core.snapshot(world.now);
        now.workers.iter().any(|w| w.worker == victim && matches!(w.last_probe, Some((_, Err(_)))))
    });
    world.heal(victim);
    world.run_for(ms(60_000));
    assert_eq!(everybody(&world), before, "nobody was replaced");
}

#[test]
fn one_that_finishes_requests_is_busy_and_not_silent() {
    let mut world = serving(spec());
    let before = everybody(&world);
    let victim = world.pick_ready().expect("one of three");
    world.sicken(victim, Sickness::Silent);
    for requests in 1..40 {
        world.run_for(ms(7_500));
        world.event(Event::Worker(victim, WorkerEvent::Served { requests }));
    }
    assert_eq!(everybody(&world), before, "it was busy");
    for _ in 0..6 {
        world.run_for(ms(7_500));
        world.event(Event::Worker(victim, WorkerEvent::Served { requests: 39 }));
    }
    assert!(!is_ready(&world, victim), "it finishes none any more");
}

#[test]
fn one_that_recovers_before_its_successor_is_proven_keeps_its_place() {
    let mut world = serving(spec());
    let before = everybody(&world);
    let victim = world.pick_ready().expect("one of three");
    world.code = Code::HangsInImport;
    world.sicken(victim, Sickness::Silent);
    world.run_until(ms(30_000), "its successor starts", |world| {
        world.core.snapshot(world.now).slots.iter().any(|slot| slot.successor.is_some())
    });
    world.heal(victim);
    world.run_until(ms(15_000), "it is well again", |world| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerRecovered(place) if place.worker == victim))
    });
    world.run_for(ms(60_000));
    assert_eq!(everybody(&world), before);
}

#[test]
fn failures_in_the_grace_after_the_start_do_not_count() {
    let mut slow = spec();
    slow.probe.as_mut().expect("it is asked").grace = ms(60_000);
    let mut world = serving(slow);
    let before = everybody(&world);
    for id in &before {
        world.sicken(*id, Sickness::Ill);
    }
    world.run_for(ms(55_000));
    before.iter().for_each(|id| world.heal(*id));
    world.run_for(ms(60_000));
    assert_eq!(everybody(&world), before);
}

#[test]
fn without_probes_nobody_is_asked() {
    let mut quiet = spec();
    quiet.probe = None;
    let mut world = serving(quiet);
    world.run_for(ms(120_000));
    assert!(world.core.snapshot(world.now).workers.iter().all(|w| w.last_probe.is_none()));
}

#[test]
fn age_replaces_one_at_a_time_and_not_all_in_the_same_moment() {
    let mut ageing = spec();
    ageing.max_age = Some(ms(600_000));
    let mut world = serving(ageing);
    let before = everybody(&world);
    world.run_for(ms(535_000));
    assert_eq!(everybody(&world), before, "too early");
    let mut replaced_at = Vec::new();
    let mut left = before.len();
    world.run_until(ms(70_000), "all are replaced", |world| {
        assert!(world.ready() >= 3);
        before.iter().all(|id| !everybody(world).contains(id))
    });
    for notice in &world.notices {
        if let Notice::WorkerRetires { why: Retirement::Age(age), .. } = notice {
            replaced_at.push(*age);
            left -= 1;
        }
    }
    assert_eq!(left, 0);
    replaced_at.sort();
    assert!(replaced_at[2] - replaced_at[0] > ms(1_000), "the jitter: {replaced_at:?}");
}

#[test]
fn one_that_grew_too_big_is_replaced_and_one_that_was_born_so_is_not_replaced_at_once() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    world.event(Event::Worker(victim, WorkerEvent::Measured { memory: 1 << 30 }));
    world.run_for(ms(20_000));
    assert!(is_ready(&world, victim), "it holds what it may");
    world.bloat(victim);
    world.run_until(ms(5_000), "a successor", |world| {
        assert!(world.ready() >= 3);
        !is_ready(world, victim)
    });
    let youngest = *everybody(&world).last().expect("three");
    world.bloat(youngest);
    world.run_for(ms(5_000));
    assert!(is_ready(&world, youngest), "it would only be followed by its like");
}

#[test]
fn one_that_is_to_be_replaced_on_request_leaves_once_its_successor_is_ready() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    for _ in 0..2 {
        assert_eq!(world.replace(victim), Outcome::Replacing(victim));
    }
    let announced = |notice: &&Notice| matches!(notice, Notice::WorkerRetires { why: Retirement::Request, .. });
    assert_eq!(world.notices.iter().filter(announced).count(), 1, "asked twice, and replaced once");
    world.run_until(ms(5_000), "a successor", |world| {
        assert!(world.ready() >= 3);
        !is_ready(world, victim)
    });
    let unreplaced = |why| Outcome::NotReplaced { worker: victim, why };
    assert_eq!(world.replace(victim), unreplaced(Irreplaceable::Leaving));
    world.run_until(ms(60_000), "it is gone", |world| world.core.snapshot(world.now).workers.len() == 3);
    assert_eq!(world.replace(victim), unreplaced(Irreplaceable::Unknown));
}

#[test]
fn one_whose_successor_cannot_start_stays_although_it_is_to_be_replaced() {
    let mut world = serving(spec());
    let victim = world.pick_ready().expect("one of three");
    world.code = Code::ImportError;
    assert_eq!(world.replace(victim), Outcome::Replacing(victim));
    world.run_for(ms(60_000));
    assert!(is_ready(&world, victim));
    world.code = Code::Good;
    world.run_until(ms(120_000), "a successor", |world| !is_ready(world, victim));
}

#[test]
fn neither_a_canary_nor_one_that_starts_is_replaced_on_request() {
    let mut world = serving(spec());
    let request = world.reload();
    let canary = |world: &World| {
        world.core.snapshot(world.now).workers.iter().find(|w| w.slot.is_none()).map(|w| (w.worker, w.phase))
    };
    world.run_until(ms(60_000), "a canary", |world| canary(world).is_some());
    let (id, phase) = canary(&world).expect("it was there");
    assert_eq!(phase, Phase::Starting);
    assert_eq!(world.replace(id), Outcome::NotReplaced { worker: id, why: Irreplaceable::Starting });
    world.run_until(ms(60_000), "it is proven", |world| canary(world).is_some_and(|(_, phase)| phase == Phase::Ready));
    assert_eq!(world.replace(id), Outcome::NotReplaced { worker: id, why: Irreplaceable::Canary });
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    world.event(Event::StopRequested);
    let worker = *everybody(&world).first().expect("they leave");
    assert_eq!(world.replace(worker), Outcome::Stopping);
}

#[test]
fn recycling_waits_for_the_end_of_a_rollout() {
    let mut world = serving(spec());
    let request = world.reload();
    world.run_for(ms(50));
    for id in everybody(&world) {
        world.event(Event::Worker(id, WorkerEvent::WantsRetirement));
    }
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    let spawned = world.trace().iter().filter(|line| line.contains("Spawn {")).count();
    assert_eq!(spawned, 3 + 1 + 3, "three, the canary, and three new ones");
}

#[test]
fn new_code_must_not_be_ill_even_once_while_the_old_is_there() {
    let mut world = serving(spec());
    let before = everybody(&world);
    let request = world.reload();
    world.run_until(ms(60_000), "it soaks", |world| {
        world.core.snapshot(world.now).rollout.is_some_and(|(_, step)| step == sockd_supervisor::RolloutStep::Soaking)
    });
    let fresh = *everybody(&world).last().expect("six");
    assert!(!before.contains(&fresh));
    world.event(Event::Worker(
        fresh,
        WorkerEvent::Judged { verdict: Err("500 where it was 200".to_owned()), answers: Answers::default() },
    ));
    assert!(matches!(world.answers.get(&request), Some(sockd_supervisor::Outcome::Refused { .. })));
    assert!(before.iter().all(|id| is_ready(&world, *id)));
}

#[test]
fn an_empty_place_is_filled_although_an_ill_worker_has_no_better_successor() {
    let mut world = serving(spec());
    let ill = world.core.snapshot(world.now).slots[0].current.expect("the first place is taken");
    world.code = Code::IsIll;
    world.sicken(ill, Sickness::Ill);
    world.run_until(ms(60_000), "a successor that is no better", |world| {
        world.core.snapshot(world.now).slots[0].retry_in.is_some_and(|wait| wait > ms(5_000))
    });
    let victim = world.core.snapshot(world.now).slots[2].current.expect("the last place is taken");
    world.kill(victim);
    world.run_until(ms(3_000), "the last place is taken again", |world| world.ready() == 3);
}

#[test]
fn one_that_holds_as_much_memory_as_it_may_stays() {
    let mut world = serving(spec());
    world.run_for(ms(20_000));
    let limit = spec().max_memory.expect("there is one");
    for (memory, expected) in [(limit, 0), (limit + 1, 1)] {
        let worker = world.pick_ready().expect("three are ready");
        world.event(Event::Worker(worker, WorkerEvent::Measured { memory }));
        let retires = |notice: &&Notice| matches!(notice, Notice::WorkerRetires { .. });
        assert_eq!(world.notices.iter().filter(retires).count(), expected, "{memory}");
    }
}

#[test]
fn one_that_recovers_has_its_successor_nevertheless_where_there_is_another_reason_for_it() {
    let found = |world: &World, id: WorkerId| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerUnhealthy { place, .. } if place.worker == id))
    };
    let recovered = |world: &World, id: WorkerId| {
        world.notices.iter().any(|n| matches!(n, Notice::WorkerRecovered(place) if place.worker == id))
    };
    for reloads in [false, true] {
        let mut world = serving(sockd_supervisor::Spec { soak: ms(120_000), ..spec() });
        let victim = world.core.snapshot(world.now).slots[0].current.expect("it serves");
        if reloads {
            world.spec.soak = ms(120_000);
            let _ = world.reload();
            world.run_until(ms(60_000), "all new ones are there", |world| world.ready() == 6);
        } else {
            world.code = Code::NeverReady;
            world.event(Event::Worker(victim, WorkerEvent::WantsRetirement));
        }
        let successor = world.core.snapshot(world.now).slots[0].successor;
        assert!(successor.is_some());
        world.sicken(victim, Sickness::Ill);
        world.run_until(ms(40_000), "it is found", |world| found(world, victim));
        world.heal(victim);
        world.run_until(ms(20_000), "it recovers", |world| recovered(world, victim));
        let slot = world.core.snapshot(world.now).slots[0].clone();
        assert_eq!((slot.current, slot.successor), (Some(victim), successor), "reloads: {reloads}");
    }
}
