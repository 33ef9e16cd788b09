//! What goes into the history, and reloads back to a release that served before.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{
    Event, GenerationId, Outcome, Proof, RecordResult, ReleaseId, RequestId, Share, Source, Spec, Start, Trial,
};

const OLD: ReleaseId = ReleaseId(7);

fn serving() -> World {
    let mut world = World::new(1, Start::OnConnection, spec());
    world.checking.programs = 2;
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn answered(world: &mut World, request: RequestId) -> Outcome {
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&request));
    world.answers[&request].clone()
}

#[test]
fn a_start_and_a_reload_are_recorded_with_what_proved_them() {
    let mut world = serving();
    let request = world.reload();
    assert_eq!(answered(&mut world, request), Outcome::Serving(GenerationId(2)));
    let [start, reload] = &*world.checking.history else { panic!("{:?}", world.checking.history) };
    assert_eq!((&start.result, start.generation, start.proof.workers), (&RecordResult::Started, GenerationId(1), 3));
    assert_eq!((&reload.result, &*reload.requests), (&RecordResult::Serving, &[request][..]));
    assert_eq!(reload.proof, Proof { checks: 2, canary: true, tried: 0, workers: 3, soak: spec().soak });
    assert!(reload.took >= spec().soak, "{reload:?}");
}

#[test]
fn a_refusal_tells_how_far_the_new_code_came() {
    for (code, taken_back) in [(Code::CheckFails, false), (Code::ImportError, false)] {
        let mut world = serving();
        world.code = code;
        let request = world.reload();
        assert!(matches!(answered(&mut world, request), Outcome::Refused { .. }));
        let last = world.checking.history.last().expect("it is recorded");
        assert_eq!(matches!(last.result, RecordResult::TakenBack { .. }), taken_back, "{last:?}");
        assert_eq!(last.proof.workers > 0, taken_back, "{last:?}");
    }
    // Workers that were ready for visitors are taken back.
    let mut spec = spec();
    spec.canary = false;
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world.code = Code::CrashesSoonAfterReady;
    let request = world.reload();
    assert!(matches!(answered(&mut world, request), Outcome::Refused { .. }));
    let last = world.checking.history.last().expect("it is recorded");
    assert!(matches!(last.result, RecordResult::TakenBack { .. }), "{last:?}");
}

#[test]
fn a_reload_that_a_stop_cuts_short_is_recorded_as_that() {
    // Before the new code is proven, and when workers of it are ready for visitors.
    for (until, checks, canary) in [("loaded", 2, false), ("complete", 2, true)] {
        let mut world = serving();
        let request = world.roll_back(OLD);
        world.run_until(ms(60_000), until, |world| match until {
            "loaded" => world.prepared.contains(&GenerationId(2)),
            _ => world.ready() == 6,
        });
        // Who waits for a reload that has not begun is answered, and there is nothing to record.
        let waiting = world.reload();
        world.event(Event::StopRequested);
        for request in [request, waiting] {
            assert_eq!(answered(&mut world, request), Outcome::Stopping);
        }
        world.run_until(ms(60_000), "the end", |world| world.exited);
        let [_, cut_short] = &*world.checking.history else { panic!("{:?}", world.checking.history) };
        assert_eq!((&cut_short.result, cut_short.generation), (&RecordResult::CutShort, GenerationId(2)));
        assert_eq!((&*cut_short.requests, cut_short.source), (&[request][..], Source::Release(OLD)));
        assert_eq!((cut_short.proof.checks, cut_short.proof.canary), (checks, canary), "{cut_short:?}");
        assert!(cut_short.took > ms(0), "{cut_short:?}");
    }
    // What has ended is not cut short, although those who asked wait until the old workers have left.
    let mut world = serving();
    let request = world.reload();
    let recorded = |world: &World| world.checking.history.len() == 2;
    world.run_until(ms(60_000), "its record", recorded);
    world.event(Event::StopRequested);
    assert_eq!(answered(&mut world, request), Outcome::Serving(GenerationId(2)));
    world.run_until(ms(60_000), "the end", |world| world.exited);
    assert!(recorded(&world) && world.checking.history[1].result == RecordResult::Serving);
}

#[test]
fn a_start_that_fails_is_recorded_once_and_its_success_too() {
    let mut world = World::new(1, Start::AtOnce, spec());
    world.code = Code::ImportError;
    world.run_until(ms(60_000), "503", World::fallback);
    world.run_for(ms(20_000));
    world.code = Code::Good;
    world.run_until(ms(120_000), "three workers", |world| world.ready() == 3);
    let [failed, started] = &*world.checking.history else { panic!("{:?}", world.checking.history) };
    assert!(matches!(&failed.result, RecordResult::NotStarted { why } if !why.is_empty()), "{failed:?}");
    assert_eq!(started.result, RecordResult::Started);
}

#[test]
fn a_rollback_is_read_from_its_release_as_often_as_it_is_read_and_proven_like_any_reload() {
    let mut world = serving();
    let request = world.roll_back(OLD);
    assert_eq!(answered(&mut world, request), Outcome::Serving(GenerationId(2)));
    let last = world.checking.history.last().expect("it is recorded");
    assert_eq!((last.source, last.proof.canary, last.proof.checks), (Source::Release(OLD), true, 2));
    world.lose_preparation();
    world.run_until(ms(60_000), "it is made again", |world| world.prepared.contains(&GenerationId(2)));
    let read = &world.checking.sources;
    assert_eq!(read.iter().filter(|read| **read == (GenerationId(2), Source::Release(OLD))).count(), 2, "{read:?}");
    // A plain reload goes where the configuration leads.
    let request = world.reload();
    assert_eq!(answered(&mut world, request), Outcome::Serving(GenerationId(3)));
    assert_eq!(world.checking.sources.last(), Some(&(GenerationId(3), Source::Configured)));
}

#[test]
fn a_release_that_does_not_work_any_more_is_refused_and_the_old_workers_serve_on() {
    let mut world = serving();
    world.code = Code::ImportError;
    let request = world.roll_back(OLD);
    assert!(matches!(answered(&mut world, request), Outcome::Refused { generation: GenerationId(2), .. }));
    assert_eq!(world.ready(), 3);
}

#[test]
fn requests_share_a_rollout_only_where_they_want_the_same_and_keep_their_order() {
    let mut world = serving();
    let first = world.reload();
    let (plain, also_plain) = (world.reload(), world.reload());
    let (back, elsewhere, last) = (world.roll_back(OLD), world.roll_back(ReleaseId(8)), world.reload());
    for (request, generation) in [(first, 2), (plain, 3), (also_plain, 3), (back, 4), (elsewhere, 5), (last, 6)] {
        assert_eq!(answered(&mut world, request), Outcome::Serving(GenerationId(generation)), "{request}");
    }
    let request = world.roll_back(OLD);
    world.event(Event::StopRequested);
    assert_eq!(answered(&mut world, request), Outcome::Stopping);
}

#[test]
fn what_visitors_tried_and_was_taken_back_is_recorded_with_their_answers() {
    let trial = Trial { share: Share::Workers(1), requests: 500, time: ms(300_000) };
    for (more_errors, taken_back) in [(0, false), (10_000, true)] {
        let mut world = World::new(5, Start::OnConnection, Spec { trial: Some(trial), ..spec() });
        world.traffic.per_second = 20;
        world.run_until(ms(20_000), "three workers", |world| world.ready() == 3);
        world.traffic.more_errors = more_errors;
        let request = world.reload();
        world.run_until(ms(700_000), "an answer", |world| world.answers.contains_key(&request));
        let last = world.checking.history.last().expect("it is recorded");
        assert_eq!(matches!(last.result, RecordResult::TakenBack { .. }), taken_back, "{last:?}");
        assert!(if taken_back { (10..30).contains(&last.proof.tried) } else { last.proof.tried >= 500 }, "{last:?}");
    }
}
