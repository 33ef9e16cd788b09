//! Reloads, step by step: who starts when, who is asked, and what is left of one that is refused.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{GenerationId, Notice, Outcome, Phase, RolloutStep, Snapshot, Spec, Start, WorkerSnapshot};

const NEW: GenerationId = GenerationId(2);

fn serving(spec: Spec) -> World {
    let workers = spec.workers;
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(20_000), "all workers", |world| world.ready() == workers);
    world
}

/// How many of the new workers start, and how many are there.
fn new(snapshot: &Snapshot) -> (usize, usize) {
    let starts = |w: &&WorkerSnapshot| w.phase == Phase::Starting;
    let there = |w: &&WorkerSnapshot| {
        w.generation == NEW && w.slot.is_some() && matches!(w.phase, Phase::Starting | Phase::Ready)
    };
    let there = snapshot.workers.iter().filter(there);
    (there.clone().filter(starts).count(), there.count())
}

#[test]
fn a_large_pool_is_replaced_in_batches_of_which_half_is_awaited() {
    let mut world = serving(Spec { workers: 64, surge: 64, ..spec() });
    let request = world.reload();
    let (mut starting, mut there, mut most) = (0, 0, 0);
    while !world.answers.contains_key(&request) {
        assert!(world.step());
        let now = world.core.snapshot(world.now);
        let before = (starting, there);
        (starting, there) = new(&now);
        most = most.max(starting);
        let replaces = now.rollout.is_some_and(|(_, step)| step == RolloutStep::Replacing);
        if replaces && most > 1 && there < 64 {
            assert!(starting > 2, "half of the batch is there, and no other starts\n{}", world.story());
        }
        // One of them was ready in this step, if any.
        let added = there > before.1;
        assert!(!added || before.0 <= 3, "{} start, and others are added\n{}", before.0, world.story());
    }
    assert_eq!(world.answers[&request], Outcome::Serving(NEW));
    assert_eq!(most, 4);
}

#[test]
fn each_new_worker_is_asked_while_it_soaks_and_no_old_one_is_for_it() {
    let mut world = serving(Spec { watchdog: None, probe: None, ..spec() });
    let request = world.reload();
    let soaks = |notice: &Notice| matches!(notice, Notice::Soaking { .. });
    world.run_until(ms(60_000), "it soaks", |world| world.notices.iter().any(soaks));
    let (from, begun) = (world.trace().len(), world.now);
    world.run_for(ms(1_000));
    assert!(world.now.since(begun) <= spec().soak / 2);
    let asked = |world: &World| {
        let asked = world.trace()[from..].iter().filter(|line| line.contains(" Judge {") || line.contains(" Probe {"));
        asked.cloned().collect::<Vec<_>>()
    };
    let new: Vec<_> =
        world.core.snapshot(world.now).workers.iter().filter(|w| w.generation == NEW).map(|w| w.worker).collect();
    let lines = asked(&world);
    let once = |id: &sockd_supervisor::WorkerId| {
        lines.iter().filter(|line| line.contains(&format!("Judge {{ worker: {id:?},"))).count() == 1
    };
    assert!(new.len() == 3 && lines.len() == 3 && new.iter().all(once), "{lines:#?}");
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Serving(NEW));
}

#[test]
fn a_worker_that_starts_goes_with_the_reload_also_where_an_old_one_is_gone() {
    let mut world = serving(Spec { canary: false, ..spec() });
    world.code = Code::NeverReady;
    let request = world.reload();
    world.run_until(ms(10_000), "one of the new ones starts", |world| new(&world.core.snapshot(world.now)).0 == 1);
    let victim = world.core.snapshot(world.now).slots[0].current.expect("it serves");
    world.kill(victim);
    let _ = world.decide(false);
    assert!(matches!(world.answers[&request], Outcome::Refused { .. }));
    assert_eq!(new(&world.core.snapshot(world.now)), (0, 0));
    world.code = Code::Good;
    world.run_until(ms(70_000), "three workers", |world| world.ready() == 3);
}
