//! New code that visitors try before it takes every slot: taken back where it does worse, whatever else happens meanwhile.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{
    Event, FALSE_ALARMS, GenerationId, Notice, Outcome, Phase, RequestId, RolloutStep, SLOWER, Share, Spec, Start,
    Trial, WorkerSnapshot,
};

pub const TRIAL: Trial = Trial { share: Share::Workers(1), requests: 500, time: ms(300_000) };

fn tried() -> Spec {
    Spec { trial: Some(TRIAL), ..spec() }
}

fn serving(seed: u64, spec: Spec) -> World {
    let mut world = World::new(seed, Start::OnConnection, spec);
    world.traffic.per_second = 20;
    world.run_until(ms(20_000), "three workers", |world| world.ready() == 3);
    world
}

/// What becomes of a reload.
fn outcome(world: &mut World, request: RequestId) -> Outcome {
    world.run_until(ms(700_000), "an answer", |world| {
        assert!(world.ready() >= 3, "a visitor has fewer workers\n{}", world.story());
        world.answers.contains_key(&request)
    });
    world.answers[&request].clone()
}

fn counts(world: &World) -> bool {
    let tries = |(_, step)| matches!(step, RolloutStep::Trying { .. });
    let began = |notice: &Notice| matches!(notice, Notice::Trying { .. });
    world.core.snapshot(world.now).rollout.is_some_and(tries) && world.notices.iter().any(began)
}

fn refused(outcome: &Outcome, part: &str) -> bool {
    matches!(outcome, Outcome::Refused { why, .. } if why.contains(part))
}

/// How many of thousands are is counted by a unit test of the comparison; here the whole of a trial is played.
#[test]
fn of_a_hundred_good_releases_one_is_taken_back_at_most_and_of_as_many_bad_ones_one_goes_through() {
    assert!((FALSE_ALARMS * 100.0 - 1.0).abs() < 1e-9);
    for errors in [0, 100] {
        let taken_back = |more_errors: u64| {
            let lost = |seed: u64| {
                let mut world = serving(seed, tried());
                (world.traffic.errors, world.traffic.more_errors) = (errors, more_errors);
                let request = world.reload();
                refused(&outcome(&mut world, request), "requests failed with the new code")
            };
            (1..=100).filter(|seed| lost(errors * 7919 + more_errors + seed)).count()
        };
        let (good_lost, bad_kept) = (taken_back(0), 100 - taken_back(500));
        assert!(good_lost <= 1 && bad_kept <= 1, "{errors}: {good_lost}, {bad_kept}");
    }
}

#[test]
fn code_that_always_fails_meets_few_visitors() {
    for seed in 1..30 {
        let mut world = serving(seed, tried());
        (world.traffic.per_second, world.traffic.more_errors) = (8, 10_000);
        let request = world.reload();
        let outcome = outcome(&mut world, request);
        assert!(refused(&outcome, "requests failed with the new code"), "{outcome:?}");
        let Outcome::Refused { why, .. } = &outcome else { unreachable!() };
        let failed: u64 = why.split(' ').find_map(|word| word.parse().ok()).expect("a number");
        assert!((10..30).contains(&failed), "{why}");
        assert_eq!(world.core.snapshot(world.now).generation, GenerationId(1));
    }
}

#[test]
fn code_that_is_much_slower_is_taken_back_and_a_little_slower_is_not() {
    assert_eq!(SLOWER, 8);
    // Half take 10 ms with the old; 20 ms, and 100 ms.
    for (durations, expected) in [((0, 1), false), ((0, 2), true), ((2, 3), false)] {
        let mut world = serving(3, tried());
        world.traffic.durations = durations;
        let request = world.reload();
        let outcome = outcome(&mut world, request);
        assert_eq!(refused(&outcome, "half of the requests take"), expected, "{durations:?}: {outcome:?}");
    }
}

#[test]
fn one_worker_more_is_all_that_it_takes_and_the_rest_follows() {
    for (share, expected) in
        [(Share::Workers(1), 1), (Share::Percent(34), 2), (Share::Workers(9), 3), (Share::Percent(1), 1)]
    {
        let mut world = serving(5, Spec { trial: Some(Trial { share, ..TRIAL }), ..spec() });
        let request = world.reload();
        world.run_until(ms(60_000), "the trial", counts);
        let snapshot = world.core.snapshot(world.now);
        let of_new = snapshot.workers.iter().filter(|w| w.generation == GenerationId(2) && w.slot.is_some()).count();
        assert_eq!((of_new, world.ready()), (expected, 3 + expected as u32), "{share:?}");
        assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(2)));
        let done =
            |notice: &&Notice| matches!(notice, Notice::TrialDone { answers, wanted: 500, .. } if *answers >= 500);
        assert_eq!(world.notices.iter().filter(done).count(), 1);
    }
}

#[test]
fn where_memory_is_short_no_old_worker_leaves_for_it() {
    let mut world = serving(5, Spec { trial: Some(Trial { share: Share::Workers(3), ..TRIAL }), surge: 1, ..spec() });
    let request = world.reload();
    world.run_until(ms(60_000), "the trial", counts);
    let old = |w: &&WorkerSnapshot| w.generation == GenerationId(1) && w.phase == Phase::Ready;
    assert_eq!((world.ready(), world.core.snapshot(world.now).workers.iter().filter(old).count()), (4, 3));
    assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(2)));
}

#[test]
fn a_site_without_visitors_gets_its_new_code_when_the_time_is_over() {
    let mut world = serving(7, tried());
    world.traffic.per_second = 0;
    let request = world.reload();
    world.run_until(ms(60_000), "the trial", counts);
    let began = world.now;
    assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(2)));
    assert!(world.now.since(began) >= TRIAL.time, "{:?}", world.now.since(began));
    let done = |notice: &Notice| matches!(notice, Notice::TrialDone { answers: 0, .. });
    assert!(world.notices.iter().any(done));
}

#[test]
fn a_worker_that_dies_or_hangs_in_its_trial_takes_the_code_back_at_once() {
    for freeze in [false, true] {
        let mut world = serving(9, tried());
        world.traffic.per_second = 0;
        let request = world.reload();
        world.run_until(ms(60_000), "the trial", counts);
        let new =
            world.core.snapshot(world.now).workers.iter().find(|w| w.generation == GenerationId(2)).map(|w| w.worker);
        let new = new.expect("it is there");
        if freeze {
            world.freeze(new)
        } else {
            world.kill(new)
        }
        let outcome = outcome(&mut world, request);
        assert!(refused(&outcome, if freeze { "" } else { "SIGKILL" }), "{outcome:?}");
        assert_eq!(world.core.snapshot(world.now).generation, GenerationId(1));
    }
}

#[test]
fn somebody_decides_before_the_counts_do() {
    for promotes in [false, true] {
        let mut world = serving(11, tried());
        world.traffic.per_second = 0;
        assert_eq!(world.decide(promotes), if promotes { Outcome::NothingTried } else { Outcome::NothingToCallOff });
        let request = world.reload();
        if promotes {
            // Its worker starts.
            let tries = |(_, step)| matches!(step, RolloutStep::Trying { .. });
            world.run_until(ms(60_000), "the step", |world| world.core.snapshot(world.now).rollout.is_some_and(tries));
            assert_eq!(world.decide(true), Outcome::NothingTried);
        }
        world.run_until(ms(60_000), "the trial", counts);
        let decided = world.decide(promotes);
        let expected = if promotes { Outcome::Promoted(GenerationId(2)) } else { Outcome::CalledOff(GenerationId(2)) };
        assert_eq!(decided, expected);
        let outcome = outcome(&mut world, request);
        let good =
            if promotes { outcome == Outcome::Serving(GenerationId(2)) } else { refused(&outcome, "called it off") };
        assert!(good, "{outcome:?}");
    }
}

#[test]
fn a_stop_and_another_reload_in_the_middle_have_their_answers() {
    let mut world = serving(13, tried());
    world.traffic.per_second = 5;
    let (first, mut second) = (world.reload(), None);
    world.run_until(ms(60_000), "the trial", counts);
    second.replace(world.reload());
    assert_eq!(outcome(&mut world, first), Outcome::Serving(GenerationId(2)));
    world.run_until(ms(60_000), "the next trial", counts);
    world.event(Event::StopRequested);
    world.run_until(ms(60_000), "the end", |world| world.exited);
    assert_eq!(second.and_then(|request| world.answers.get(&request)), Some(&Outcome::Stopping));
}

#[test]
fn everybody_stands_still_in_its_middle_and_the_manager_waits_on() {
    for everybody in [false, true] {
        let mut world = serving(17, tried());
        world.traffic.per_second = 0;
        let request = world.reload();
        world.run_until(ms(60_000), "the trial", counts);
        world.run_for(ms(5_000));
        world.stand_still(ms(400_000), everybody);
        assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(2)));
    }
}

#[test]
fn where_nobody_serves_there_is_nothing_to_compare_with() {
    let mut world = World::new(1, Start::OnConnection, tried());
    world.code = Code::ImportError;
    world.run_until(ms(10_000), "503", World::fallback);
    world.code = Code::Good;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
    assert!(!world.notices.iter().any(|notice| matches!(notice, Notice::Trying { .. })));
}

#[test]
fn who_asks_for_a_trial_gets_it_whatever_the_configuration_says() {
    let mut world = serving(15, spec());
    let request = world.reload_with_trial(TRIAL);
    world.run_until(ms(60_000), "the trial", counts);
    assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(2)));
    // Also together with one that asks for none.
    let request = world.reload();
    let (tried, plain) = (world.reload_with_trial(TRIAL), world.reload());
    for request in [request, tried, plain] {
        assert!(matches!(outcome(&mut world, request), Outcome::Serving(_)));
    }
    let tries = |world: &World| world.notices.iter().filter(|n| matches!(n, Notice::Trying { .. })).count();
    assert_eq!(tries(&world), 2);
    // And no other.
    let request = world.reload();
    assert_eq!(outcome(&mut world, request), Outcome::Serving(GenerationId(5)));
    assert_eq!(tries(&world), 2);
}
