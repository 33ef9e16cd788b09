//! The decision core in a simulated world: random walks with faults, and single situations step by step.

mod baseline;
mod checks;
mod fallback;
mod faults;
mod health;
mod history;
mod pause;
mod pool;
mod preparations;
mod rebinding;
mod rollouts;
mod scenarios;
mod simulation;
mod standstills;
mod status;
mod stopping;
mod trials;
mod unhealthy_workers;
mod unknown_programs;
mod visitors;
mod waits;
mod warming;

use faults::{Code, FAULTS};
use health::Sickness;
use simulation::sockets::AtPath;
use simulation::warming::FATES;
use simulation::{World, ms, spec};
use sockd_supervisor::{Event, ReleaseId, Share, Start, Trial, Warmth, WorkerEvent};

/// One seeded life: faults for a while, then peace; in peace the wanted state must be reached.
fn live(seed: u64) -> World {
    let start = if seed.is_multiple_of(2) { Start::OnConnection } else { Start::AtOnce };
    let mut spec = spec();
    spec.workers = 1 + (seed % 7) as u32;
    spec.surge = if seed.is_multiple_of(3) { 1 } else { spec.workers };
    spec.canary = !seed.is_multiple_of(5);
    let trial = Trial { share: Share::Percent(40), requests: 100, time: ms(30_000) };
    spec.trial = seed.is_multiple_of(4).then_some(trial);
    spec.ready_after = seed.is_multiple_of(4).then(|| ms(300));
    spec.max_age = seed.is_multiple_of(7).then(|| ms(60_000));
    spec.preloaded = seed.is_multiple_of(8);
    spec.warms = seed.is_multiple_of(2);
    spec.concludes = !seed.is_multiple_of(3);
    spec.silent_when_busy = seed.is_multiple_of(9);
    spec.own_socket = !seed.is_multiple_of(10);
    spec.probe = spec.probe.filter(|_| spec.own_socket && !seed.is_multiple_of(6));
    let mut world = World::new(seed, start, spec);
    world.shaky = seed.is_multiple_of(3);
    world.checking.programs = (seed % 4) as usize;
    world.traffic.per_second = seed % 9;
    for _ in 0..120 {
        let fate = world.roll(FATES.len() as u64) as usize;
        world.warming.fate = FATES[fate];
        match world.roll(28) {
            0 => {
                let _ = world.reload();
            }
            1 => {
                let _ = if world.roll(2) == 0 { world.reload() } else { world.roll_back(ReleaseId(1)) };
            }
            2 => world.code = Code::Good,
            3 => {
                let fault = world.roll(FAULTS.len() as u64) as usize;
                world.code = FAULTS[fault];
            }
            4 | 5 => {
                if let Some(id) = world.pick_ready() {
                    world.kill(id);
                }
            }
            6 => {
                if let Some(id) = world.pick_ready() {
                    world.freeze(id);
                }
            }
            7 => {
                if let Some(id) = world.pick_ready() {
                    world.event(Event::Worker(id, WorkerEvent::WantsRetirement));
                }
            }
            8 => {
                if let Some(id) = world.pick_any() {
                    world.kill(id);
                }
            }
            9 => world.lose_preparation(),
            10 => {
                if let Some(id) = world.pick_ready() {
                    let why = "three probes without an answer".to_owned();
                    world.event(Event::Worker(id, WorkerEvent::FoundSick { why }));
                }
            }
            11 => {
                world.spec.workers = 1 + world.roll(7) as u32;
            }
            12 | 13 => {
                if let Some(id) = world.pick_ready() {
                    world.sicken(id, Sickness::Silent);
                }
            }
            14 => {
                if let Some(id) = world.pick_ready() {
                    world.sicken(id, Sickness::Ill);
                }
            }
            15 => {
                if let Some(id) = world.pick_ready() {
                    world.heal(id);
                }
            }
            16 => {
                if let Some(id) = world.pick_ready() {
                    world.bloat(id);
                }
            }
            27 => {
                let to = if world.roll(3) == 0 { AtPath::Another } else { AtPath::Nothing };
                world.lose_path(to);
            }
            17 => world.event(Event::OneMoreWorker),
            18 => world.event(Event::OneFewerWorker),
            24 => {
                world.queue = world.roll(100) as u32;
                let most = ms(world.roll(60_000));
                let _ = world.pause(most);
            }
            25 => {
                let _ = world.resume();
            }
            26 => {
                let on = world.roll(2) == 0;
                let _ = world.maintain(on);
            }
            23 => {
                let _ = world.decide(seed.is_multiple_of(2));
            }
            22 => {
                if let Some(id) = world.pick_any() {
                    let _ = world.replace(id);
                }
            }
            21 => {
                let span = ms(world.roll(100_000));
                world.be_idle(span);
            }
            19 | 20 => {
                let (duration, everybody) = (ms(world.roll(100_000)), world.roll(2) == 0);
                world.stand_still(duration, everybody);
            }
            _ => {}
        }
        let rest = world.roll(4_000);
        world.run_for(ms(rest));
    }
    world.shaky = false;
    world.code = Code::Good;
    let _ = world.maintain(false);
    world.run_until(ms(600_000), "every request is answered", World::all_answered);
    world.run_until(ms(600_000), "the wanted state", |world| {
        let now = world.core.snapshot(world.now);
        let outgrown = |first| now.workers.iter().any(|worker| worker.worker < first);
        !matches!(now.warmth, Warmth::Warm(first) if outgrown(first))
            && now.wanted == Some(now.ready)
            && now.rollout.is_none()
            && now.pause.is_none()
            && !now.maintenance
            && !now.fallback
            && now.workers.len() as u32 == now.ready
            && now.unserved.is_none()
            && world.accept_from_socket()
    });
    world
}

#[test]
fn a_hundred_thousand_random_steps_keep_the_invariants_and_reach_the_wanted_state() {
    let (mut steps, mut seed) = (0, 0);
    while steps < 110_000 {
        seed += 1;
        let mut world = live(seed);
        if seed.is_multiple_of(2) {
            let end = world.roll(5_000);
            let _ = world.reload();
            world.run_for(ms(end));
        }
        world.hangs_in_conclusion = seed.is_multiple_of(11);
        world.event(Event::StopRequested);
        if seed.is_multiple_of(3) {
            world.event(Event::Interrupted { at_terminal: seed.is_multiple_of(2) });
        }
        world.run_until(ms(50_000), "the end", |world| world.exited);
        steps += world.steps;
    }
    println!("{seed} lives, {steps} steps");
}

#[test]
fn the_same_seed_gives_the_same_effects() {
    for seed in [3, 8, 21] {
        assert_eq!(live(seed).trace(), live(seed).trace());
    }
}

#[test]
fn another_seed_gives_another_life() {
    assert_ne!(live(3).trace(), live(9).trace());
}
