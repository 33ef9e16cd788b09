//! Single situations, each played step by step.

use super::faults::{Code, FAULTS};
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, GenerationId, Notice, Outcome, Phase, Spec, Start, Time, WorkerEvent, WorkerRef};

fn serving() -> World {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

#[test]
fn the_first_worker_starts_alone_and_the_others_follow_its_proof() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.run_until(ms(10_000), "a first worker", |world| world.spawns == 1);
    world.run_until(ms(10_000), "it is ready", |world| {
        assert!(world.spawns == 1 || world.ready() >= 1, "a second worker was started before the first was proven");
        world.ready() == 1
    });
    assert_eq!(world.spawns, 3);
}

#[test]
fn nothing_starts_without_a_connection() {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.visitors = false;
    let mut quiet = World::new(1, Start::OnConnection, spec());
    quiet.visitors = false;
    world.run_until(ms(10_000), "the visit that was under way", |world| world.spawns > 0);
    let waiting = quiet.core.snapshot(quiet.now);
    assert!(waiting.waiting && waiting.workers.is_empty());
}

#[test]
fn every_broken_deploy_is_refused_and_the_old_workers_serve_on() {
    for fault in FAULTS {
        // Only public sockets tell that a worker listens elsewhere, so that one gets past the canary.
        let mut world = serving();
        world.checking.programs = 2;
        let old: Vec<_> = world.core.snapshot(world.now).workers.iter().map(|w| w.worker).collect();
        world.code = fault;
        let request = world.reload();
        world.run_until(ms(200_000), "an answer", |world| {
            assert!(world.ready() >= 3, "{fault:?} took a worker away");
            world.answers.contains_key(&request)
        });
        assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{fault:?}: {:?}", world.answers);
        world.run_for(ms(60_000));
        let now = world.core.snapshot(world.now);
        let left: Vec<_> = now.workers.iter().map(|w| w.worker).collect();
        assert_eq!(left, old, "{fault:?}");
        assert_eq!(now.generation, GenerationId(1));
        assert!(now.refusal.is_some());
        world.code = Code::Good;
        let request = world.reload();
        world.run_until(ms(60_000), "the next one", |world| world.answers.contains_key(&request));
        assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(3)), "the next reload starts clean");
        assert!(world.core.snapshot(world.now).refusal.is_none());
    }
}

#[test]
fn a_dead_workers_place_is_not_taken_by_code_that_was_refused() {
    let mut world = serving();
    world.code = Code::AnswersWorse;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers);
    let victim = world.pick_ready().expect("three are ready");
    let from = world.trace().len();
    world.kill(victim);
    world.run_until(ms(60_000), "the slot backs off", |world| {
        assert!(world.ready() <= 2, "a worker of the code that was refused serves");
        world.core.snapshot(world.now).slots.iter().any(|slot| slot.retry_in.is_some())
    });
    world.run_for(ms(60_000));
    assert_eq!(world.ready(), 2, "the others serve on");
    let spawned: Vec<_> = world.trace()[from..].iter().filter(|line| line.contains("Spawn {")).collect();
    assert!(spawned.len() > 1 && spawned.iter().all(|line| line.contains("role: Canary")), "{spawned:#?}");
    world.code = Code::Good;
    world.run_until(ms(60_000), "three workers, once the code is fixed", |world| world.ready() == 3);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::SlotProven(_))), "it is said what went first");
}

#[test]
fn a_preloaded_generation_replaces_its_dead_from_memory_while_a_refusal_stands() {
    let mut spec = spec();
    spec.preloaded = true;
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.code = Code::AnswersWorse;
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers);
    for _ in 0..3 {
        let victim = world.pick_ready().expect("three are ready");
        let from = world.trace().len();
        world.kill(victim);
        world.run_until(ms(60_000), "a worker died", |world| world.ready() == 2);
        world.run_until(ms(60_000), "three workers", |world| world.ready() == 3);
        let spawned: Vec<_> = world.trace()[from..].iter().filter(|line| line.contains("Spawn {")).collect();
        assert!(spawned.len() == 1 && spawned[0].contains("role: Serving"), "{spawned:#?}");
    }
    // Once its template has been made again it holds what lies on disk, which is doubted.
    let lost = "the template ended".to_owned();
    world.event(Event::PreparationLost { generation: GenerationId(1), why: lost });
    world.run_for(ms(5_000));
    let from = world.trace().len();
    let victim = world.pick_ready().expect("three are ready");
    world.kill(victim);
    world.run_for(ms(60_000));
    assert_eq!(world.ready(), 2, "the others serve on");
    let spawned: Vec<_> = world.trace()[from..].iter().filter(|line| line.contains("Spawn {")).collect();
    assert!(!spawned.is_empty() && spawned.iter().all(|line| line.contains("role: Canary")), "{spawned:#?}");
}

#[test]
fn a_preparation_may_take_as_long_as_it_says() {
    let mut world = serving();
    world.code = Code::PreparationHangs;
    world.lose_preparation();
    let loads = |world: &World| world.trace().last().is_some_and(|line| line.contains("Load("));
    world.run_until(ms(10_000), "it is loaded again", loads);
    let from = world.notices.len();
    let given_up =
        |world: &World| world.notices[from..].iter().any(|notice| matches!(notice, Notice::PreparationFailed { .. }));
    world.event(Event::Preparing { generation: GenerationId(1), limit: ms(150_000) });
    world.run_for(ms(149_000));
    assert!(!given_up(&world));
    world.run_until(ms(2_000), "it is given up", given_up);
    world.code = Code::Good;
    let victim = world.pick_ready().expect("they live on");
    world.kill(victim);
    world.run_until(ms(60_000), "three again", |world| world.ready() == 3);
}

#[test]
fn orders_without_an_answer_are_the_fault_of_the_template_that_got_them() {
    // A worker's own time may be over before.
    for (start_timeout, given_up_after) in [(ms(60_000), ms(10_000)), (ms(5_000), ms(5_000))] {
        let mut world = serving();
        let mut spec = spec();
        spec.start_timeout = start_timeout;
        world.spec = spec;
        let request = world.reload();
        world.run_until(ms(60_000), "the reload", |world| world.answers.contains_key(&request));
        world.run_for(ms(60_000));
        world.code = Code::NeverForks;
        let from = world.notices.len();
        while let Some(victim) = world.pick_ready() {
            world.kill(victim);
        }
        let ordered = world.now;
        world.run_until(ms(20_000), "503", World::fallback);
        assert_eq!(world.now.since(ordered), given_up_after);
        let why = world.core.overview(world.now).failing.expect("it fails");
        let template = start_timeout > given_up_after;
        assert_eq!(why == "the template has not made a worker within 10s", template, "{why}");
        let blamed = |notice: &Notice| matches!(notice, Notice::PreparationFailed { generation: GenerationId(2), .. });
        assert!(world.notices[from..].iter().any(blamed), "{:?}", &world.notices[from..]);
        // It is tried again, seldom.
        let spawns = world.spawns;
        world.run_for(ms(120_000));
        assert!(world.spawns > spawns && world.spawns < spawns + 30, "{} orders", world.spawns - spawns);
        let hangs = |notice: &Notice| matches!(notice, Notice::WorkerHangs { .. });
        assert!(!world.notices[from..].iter().any(hangs), "nobody was there to hang");
        world.code = Code::Good;
        world.run_until(ms(45_000), "three again", |world| world.ready() == 3);
    }
}

#[test]
fn many_orders_may_take_long_as_long_as_workers_come_of_them() {
    let mut many = spec();
    many.workers = 45;
    let mut world = World::new(1, Start::OnConnection, many);
    world.fork_time = Some(ms(1_000));
    world.run_until(ms(60_000), "all workers", |world| world.ready() == 45);
    let failed = |notice: &Notice| matches!(notice, Notice::PreparationFailed { .. } | Notice::WorkerFailed { .. });
    assert!(!world.notices.iter().any(failed), "{}", world.story());
}

/// A hook before the fork may take as long as a worker's start, and those who wait for their turn are not to blame.
#[test]
fn each_order_may_take_as_long_as_a_start_where_hooks_come_first() {
    let mut patient = spec();
    patient.order_timeout = patient.start_timeout;
    let failed = |notice: &Notice| matches!(notice, Notice::PreparationFailed { .. } | Notice::WorkerFailed { .. });
    let mut world = World::new(1, Start::OnConnection, patient.clone());
    world.fork_time = Some(ms(45_000));
    world.run_until(ms(240_000), "all workers", |world| world.ready() == 3);
    assert!(!world.notices.iter().any(failed), "{}", world.story());
    // One that never returns is given up with the start.
    let mut world = World::new(1, Start::OnConnection, patient);
    world.code = Code::NeverForks;
    world.run_until(ms(70_000), "503", World::fallback);
    assert!(world.now.since(Time::from_nanos(1_000_000_000)) >= ms(60_000), "{}", world.story());
}

#[test]
fn accidents_are_not_held_against_good_code() {
    for seed in 1..20 {
        let mut world = World::new(seed, Start::OnConnection, spec());
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        for accident in 0..60 {
            if accident % 3 == 0 {
                world.lose_preparation();
            }
            let victim = world.pick_ready().expect("three are ready");
            world.kill(victim);
            world.run_for(ms(1));
            // A template takes 0.3 s to load, a worker 0.8 s.
            world.run_until(ms(1_500), "three again", |world| world.ready() == 3);
            world.run_for(ms(1_000));
        }
    }
}

#[test]
fn code_that_ends_right_after_an_answer_gets_no_public_socket() {
    let mut refused_early = 0;
    for seed in 1..40 {
        let mut world = World::new(seed, Start::OnConnection, spec());
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        world.code = Code::CrashesSoonAfterReady;
        let from = world.trace().len();
        let request = world.reload();
        world.run_until(ms(200_000), "an answer", |world| world.answers.contains_key(&request));
        assert!(matches!(world.answers[&request], Outcome::Refused { .. }), "{:?}", world.answers);
        refused_early += u32::from(!world.trace()[from..].iter().any(|line| line.contains("role: Serving")));
    }
    // It lives for up to 1.5 s: in some worlds longer than the canary is watched.
    assert!(refused_early > 5, "the canary's end was seen in {refused_early} worlds");
}

#[test]
fn a_stop_does_not_wait_for_a_worker_that_hangs_before_its_first_word() {
    for seed in 1..40 {
        let mut spec = spec();
        spec.ready_after = None;
        let mut world = World::new(seed, Start::OnConnection, spec);
        world.code = Code::HangsInImport;
        world.run_until(ms(10_000), "a first worker", |world| world.spawns == 1);
        world.run_for(ms(100));
        world.event(Event::StopRequested);
        world.run_until(ms(2_500), "the end", |world| world.exited);
    }
}

#[test]
fn a_good_reload_never_has_fewer_than_all_workers_ready() {
    for surge in [1, 2, 3] {
        let mut world = serving();
        world.spec.surge = surge;
        let request = world.reload();
        world.run_until(ms(60_000), "an answer", |world| {
            assert!(world.ready() >= 3);
            assert!(world.ready() <= 3 + surge, "surge {surge}, {} ready", world.ready());
            world.answers.contains_key(&request)
        });
        assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
        world.run_until(ms(60_000), "the old ones leave", |world| world.core.snapshot(world.now).workers.len() == 3);
    }
}

#[test]
fn clients_that_stay_connected_are_notified_at_the_end_of_the_drain_before_a_kill() {
    // A worker that heeds its signals leaves by itself; one that does not is killed after a grace.
    for (seed, stubborn) in [(1, false), (2, true)] {
        let mut world = World::new(seed, Start::OnConnection, spec());
        world.lasting_connections = true;
        world.stubborn = stubborn;
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        let request = world.reload();
        world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
        assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
        // The answer came when they had had a second.
        let drained = world.now;
        let old = |world: &World| {
            let now = world.core.snapshot(world.now);
            now.workers.iter().filter(|w| w.generation == GenerationId(1) && w.phase == Phase::Draining).count()
        };
        world.run_for(ms(28_900));
        assert_eq!(old(&world), 3, "they drain until drain-timeout");
        assert_eq!(world.ready(), 3, "the new generation serves meanwhile");
        let first = |place: &WorkerRef| place.generation == GenerationId(1);
        let notified = |world: &World| {
            world.notices.iter().filter(|n| matches!(n, Notice::DrainOver(place) if first(place))).count()
        };
        assert_eq!(notified(&world), 0);
        world.run_until(ms(8_000), "the old ones are gone", |world| old(world) == 0);
        assert_eq!(notified(&world), 3);
        let killed = world.notices.iter().filter(|n| matches!(n, Notice::WorkerKilled(place) if first(place))).count();
        assert_eq!(killed, if stubborn { 3 } else { 0 });
        let took = world.now.since(drained);
        assert_eq!(took >= ms(34_000), stubborn, "{took:?}");
    }
}

#[test]
fn a_reload_is_done_when_the_old_workers_have_left_or_had_the_time_to_hear_that_they_shall() {
    for lasting in [false, true] {
        let mut world = World::new(2, Start::OnConnection, spec());
        world.lasting_connections = lasting;
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        let request = world.reload();
        let taken_over = |world: &World| world.notices.iter().any(|n| matches!(n, Notice::RolloutDone(_)));
        world.run_until(ms(60_000), "the new ones take over", taken_over);
        assert!(world.answers.is_empty(), "the old ones may accept once more");
        let began = world.now;
        let second = world.reload();
        world.run_until(ms(1_500), "an answer", |world| world.answers.contains_key(&request));
        assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
        let old = |world: &World| {
            world.core.snapshot(world.now).workers.iter().any(|worker| worker.generation == GenerationId(1))
        };
        assert_eq!(old(&world), lasting);
        assert_eq!(world.now.since(began) >= ms(1_000), lasting);
        world.run_until(ms(60_000), "the next rollout's end", |world| world.answers.contains_key(&second));
        assert_eq!(world.answers[&second], Outcome::Serving(GenerationId(3)));
    }
}

#[test]
fn requests_during_a_rollout_share_the_next_one() {
    let mut world = serving();
    let first = world.reload();
    world.run_for(ms(100));
    let second = world.reload();
    let third = world.reload();
    world.run_until(ms(60_000), "answers", World::all_answered);
    assert_eq!(world.answers[&first], Outcome::Serving(GenerationId(2)));
    assert_eq!(world.answers[&second], Outcome::Serving(GenerationId(3)));
    assert_eq!(world.answers[&third], Outcome::Serving(GenerationId(3)));
}

#[test]
fn a_reload_that_was_asked_for_begins_when_the_one_before_ends_and_nothing_else_happens() {
    // Nobody beats and nobody is asked: no other deadline comes.
    let mut world = World::new(1, Start::OnConnection, Spec { probe: None, watchdog: None, ..spec() });
    world.lasting_connections = false;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    let old: Vec<_> = world.core.snapshot(world.now).workers.iter().map(|worker| worker.worker).collect();
    let first = world.reload();
    let watches = |world: &World| {
        matches!(world.core.snapshot(world.now).rollout, Some((_, sockd_supervisor::RolloutStep::Soaking)))
    };
    world.run_until(ms(30_000), "the new workers are watched", watches);
    // So that nobody is left whose end would be an event.
    old.into_iter().for_each(|id| world.kill(id));
    let second = world.reload();
    world.run_until(ms(30_000), "both answers", World::all_answered);
    assert_eq!(world.answers[&first], Outcome::Serving(GenerationId(2)));
    assert_eq!(world.answers[&second], Outcome::Serving(GenerationId(3)));
}

#[test]
fn a_reload_before_the_first_connection_proves_and_sleeps_again() {
    for (code, good) in [(Code::Good, true), (Code::ImportError, false)] {
        let mut world = World::new(1, Start::OnConnection, spec());
        world.code = code;
        let request = world.reload();
        // Its own first visitor is put off by asking before it comes.
        while !world.answers.contains_key(&request) && world.core.overview(world.now).waiting {
            assert!(world.step(), "nothing happens any more");
        }
        let now = world.core.snapshot(world.now);
        if now.waiting {
            assert_eq!(matches!(world.answers[&request], Outcome::Waiting(_)), good);
            assert!(now.workers.iter().all(|w| w.slot.is_none()), "no worker serves before the first connection");
        }
    }
}

/// A unit's ExecStop= sends one, and systemd the next.
#[test]
fn a_stop_hurries_at_the_third_signal_and_at_a_terminal_at_the_second() {
    for (at_terminal, signals) in [(false, 3), (true, 2)] {
        let mut world = serving();
        for _ in 0..signals {
            assert!(!world.notices.contains(&Notice::Hurrying));
            world.event(Event::Interrupted { at_terminal });
        }
        assert!(world.notices.contains(&Notice::Hurrying));
    }
}

#[test]
fn a_stop_during_a_reload_answers_it_and_ends() {
    let mut world = serving();
    let request = world.reload();
    world.run_for(ms(200));
    world.event(Event::StopRequested);
    assert_eq!(world.answers[&request], Outcome::Stopping);
    world.run_until(ms(33_000), "the end", |world| world.exited);
}

/// gunicorn's on_exit, and child_exit for the last workers.
#[test]
fn what_makes_the_workers_concludes_once_when_the_last_of_them_is_gone_and_is_waited_for_with_a_bound() {
    for (hangs, reloads, most) in [(false, 0, 700), (false, 1, 700), (true, 0, 10_100)] {
        let mut concluding = spec();
        concluding.concludes = true;
        let mut world = World::new(1, Start::OnConnection, concluding);
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        for _ in 0..reloads {
            let request = world.reload();
            world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
        }
        world.hangs_in_conclusion = hangs;
        world.event(Event::StopRequested);
        world.run_until(ms(45_000), "its last work", |world| !world.concluded.is_empty());
        assert!(!world.exited);
        world.run_until(ms(most), "the end", |world| world.exited);
        assert_eq!(world.concluded, [GenerationId(1 + reloads)]);
    }
    // One that is only asked for does not wait for what is not there yet.
    let mut world = World::new(1, Start::OnConnection, spec());
    world.event(Event::StopRequested);
    assert!(world.exited && world.concluded.is_empty());
}

#[test]
fn broken_code_is_tried_seldom_and_served_soon_after_it_is_fixed() {
    let mut world = World::new(5, Start::OnConnection, spec());
    world.code = Code::ImportError;
    world.run_until(ms(10_000), "503", World::fallback);
    world.visitors = false;
    world.run_for(ms(60_000));
    assert!(world.spawns <= 10, "{} attempts in a minute", world.spawns);
    let mut world = World::new(5, Start::OnConnection, spec());
    world.code = Code::ImportError;
    world.run_until(ms(10_000), "503", World::fallback);
    world.run_for(ms(60_000));
    assert!(world.spawns <= 60, "visitors called {} attempts in a minute", world.spawns);
    world.code = Code::Good;
    world.run_until(ms(3_000), "served within three seconds", |world| world.ready() > 0);
    assert!(!world.fallback());
}

#[test]
fn a_killed_worker_is_replaced_at_once_the_first_time() {
    let mut world = serving();
    world.run_for(ms(15_000));
    let victim = world.pick_ready().expect("one of three");
    let spawns = world.spawns;
    world.kill(victim);
    assert_eq!(world.spawns, spawns + 1);
    world.run_until(ms(5_000), "three workers", |world| world.ready() == 3);
    let request = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    let restarts: u32 = world.core.snapshot(world.now).slots.iter().map(|slot| slot.restarts).sum();
    assert_eq!(restarts, 1, "a reload restarts nobody");
}

#[test]
fn a_worker_without_heartbeat_is_aborted_and_replaced() {
    for shows_heartbeats in [false, true] {
        let mut world = World::new(1, Start::OnConnection, Spec { probe: None, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        // What it has shown until then was read more than once.
        world.run_for(ms(100_000));
        let victim = world.pick_ready_that(shows_heartbeats).expect("there are both");
        world.freeze(victim);
        world.run_until(ms(30_100), "the hang is found", |world| {
            world.notices.iter().any(|n| matches!(n, Notice::WorkerHangs { place, .. } if place.worker == victim))
        });
        world.run_until(ms(10_000), "it is reaped", |world| {
            let now = world.core.snapshot(world.now);
            now.ready == 3 && now.workers.iter().all(|w| w.worker != victim)
        });
    }
}

#[test]
fn retirement_replaces_first_and_one_at_a_time() {
    let mut world = serving();
    let all: Vec<_> = world.core.snapshot(world.now).workers.iter().map(|w| w.worker).collect();
    for id in &all {
        world.event(Event::Worker(*id, WorkerEvent::WantsRetirement));
    }
    world.run_until(ms(60_000), "three new workers", |world| {
        let now = world.core.snapshot(world.now);
        assert!(now.ready >= 3);
        let starting = now.workers.iter().filter(|w| w.phase == Phase::Starting).count();
        assert!(starting <= 1, "{starting} replaced at once");
        now.workers.iter().filter(|w| w.phase == Phase::Ready).all(|w| !all.contains(&w.worker))
    });
}

#[test]
fn a_lost_template_is_rebuilt_and_its_workers_live_on() {
    let mut world = serving();
    let spawns = world.spawns;
    world.lose_preparation();
    world.run_for(ms(5_000));
    assert_eq!(world.ready(), 3);
    assert_eq!(world.spawns, spawns, "no worker was touched");
    let victim = world.pick_ready().expect("one of three");
    world.kill(victim);
    world.run_until(ms(5_000), "a new worker", |world| world.ready() == 3);
}

#[test]
fn a_thousand_workers_come_up_and_go_down() {
    let mut spec = spec();
    spec.workers = 1000;
    spec.surge = 1000;
    let mut world = World::new(2, Start::AtOnce, spec);
    world.run_until(ms(60_000), "a thousand workers", |world| world.ready() == 1000);
    world.event(Event::StopRequested);
    world.run_until(ms(33_000), "the end", |world| world.exited);
}

#[test]
fn code_in_memory_that_never_worked_is_read_again_once_it_is_fixed() {
    let mut preloaded = spec();
    preloaded.preloaded = true;
    let mut world = World::new(3, Start::OnConnection, preloaded);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.code = Code::ImportError;
    world.lose_preparation();
    world.run_for(ms(5_000));
    while let Some(victim) = world.pick_ready() {
        world.kill(victim);
    }
    world.run_until(ms(20_000), "503", World::fallback);
    world.run_for(ms(20_000));
    world.code = Code::Good;
    world.run_until(ms(4_000), "served", |world| world.ready() > 0);
}

#[test]
fn a_canary_vouches_for_nothing_that_is_prepared_after_it() {
    for seed in 1..=8 {
        let mut world = World::new(seed, Start::AtOnce, Spec { preloaded: true, probe: None, ..spec() });
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        world.code = Code::AnswersWorse;
        let request = world.reload();
        world.run_until(ms(10_000), "an answer", |world| world.answers.contains_key(&request));
        // Its code was read again since, and what is on disk was refused: a canary goes first.
        world.code = Code::Good;
        world.lose_preparation();
        world.run_for(ms(2_000));
        let victim = world.pick_ready().expect("three are");
        let mark = world.trace().len();
        world.kill(victim);
        let traced = |world: &World, mark: usize, what: &str| world.trace()[mark..].iter().any(|l| l.contains(what));
        world.run_until(ms(10_000), "a canary is asked", |world| traced(world, mark, "Judge {"));
        world.code = Code::AnswersWorse;
        let mark = world.trace().len();
        world.lose_preparation();
        world.run_until(ms(10_000), "the next worker", |world| traced(world, mark, "Spawn {"));
        assert!(traced(&world, mark, "role: Canary"), "{}", world.story());
        world.code = Code::Good;
        world.run_until(ms(60_000), "three workers again", |world| world.ready() == 3);
    }
}

/// It may serve a socket of its own making, which is none of ours: that is for its owner to read in the log.
#[test]
fn a_service_whose_workers_listen_elsewhere_starts_with_a_warning() {
    let mut world = World::new(1, Start::AtOnce, spec());
    world.code = Code::BindsElsewhere;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::WorkerWithoutSocket(_))));
}
