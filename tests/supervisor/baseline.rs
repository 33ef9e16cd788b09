//! What is usual: new code is compared with the answers of those who serve, and with what was heard of them before.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{GenerationId, Outcome, Spec, Start};

/// Three workers that answer 500 from the beginning on, which nobody minds.
fn serving() -> World {
    let mut world = World::new(1, Start::OnConnection, Spec { watchdog: None, probe: None, ..spec() });
    world.code = Code::AnswersWorse;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn reload(world: &mut World) -> Outcome {
    let request = world.reload();
    world.run_until(ms(200_000), "an answer", |world| world.answers.contains_key(&request));
    world.answers[&request].clone()
}

/// From here on none of them answers.
fn freeze_all(world: &mut World) {
    let snapshot = world.core.snapshot(world.now);
    snapshot.workers.iter().for_each(|worker| world.freeze(worker.worker));
}

#[test]
fn what_was_heard_of_those_who_serve_counts_while_they_cannot_say() {
    let mut world = serving();
    assert_eq!(reload(&mut world), Outcome::Serving(GenerationId(2)));
    freeze_all(&mut world);
    assert_eq!(reload(&mut world), Outcome::Serving(GenerationId(3)), "it is no worse than the one before");
    freeze_all(&mut world);
    world.code = Code::Good;
    assert_eq!(reload(&mut world), Outcome::Serving(GenerationId(4)));
    freeze_all(&mut world);
    world.code = Code::AnswersWorse;
    let refused = matches!(reload(&mut world), Outcome::Refused { .. });
    assert!(refused, "the one before answered well");
}

#[test]
fn an_error_is_refused_where_nobody_was_ever_heard() {
    let mut world = serving();
    freeze_all(&mut world);
    assert!(matches!(reload(&mut world), Outcome::Refused { .. }));
}

#[test]
fn each_generation_asks_a_worker_that_serves_only_until_one_of_its_own_is_known() {
    let mut world = serving();
    let mark = world.trace().len();
    assert_eq!(reload(&mut world), Outcome::Serving(GenerationId(2)));
    let judged: Vec<_> = world.trace()[mark..].iter().filter(|line| line.contains("Judge {")).collect();
    let compared = judged.iter().filter(|line| line.contains("reference: Some")).count();
    assert!(judged.len() >= 4 && compared == 1, "{judged:#?}");
}
