//! A pause: when it begins and ends, who starts and who does not, and what is said to whom.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, GenerationId, Notice, Outcome, Signal, Spec, Start, Unpausable};

fn serving(spec: Spec) -> World {
    let mut world = World::new(1, Start::OnConnection, spec);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn paused(spec: Spec, most: u64) -> World {
    let mut world = serving(spec);
    let request = world.pause(ms(most));
    world.run_until(ms(most), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::Paused { .. }), "{:?}", world.answers);
    world
}

fn spawned(world: &World) -> usize {
    world.trace().iter().filter(|line| line.contains("Spawn {") && line.contains("role: Serving")).count()
}

#[test]
fn workers_leave_none_starts_and_all_are_back_when_it_is_resumed() {
    let mut world = paused(spec(), 60_000);
    let before = spawned(&world);
    world.run_for(ms(8_000));
    assert_eq!((world.ready(), spawned(&world)), (0, before));
    assert!(!world.fallback(), "visitors wait");
    let request = world.resume();
    world.run_until(ms(10_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Resumed { serves: true });
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    let again = world.resume();
    assert_eq!(world.answers[&again], Outcome::NothingToResume);
}

#[test]
fn one_that_is_forgotten_ends_by_itself() {
    let mut world = paused(spec(), 20_000);
    world.run_for(ms(19_000));
    assert_eq!(world.ready(), 0);
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    assert!(world.notices.contains(&Notice::PauseEnded { by_itself: true }));
}

#[test]
fn a_worker_that_does_not_finish_is_not_ended_for_it_and_keeps_nobody_waiting_for_ever() {
    // It may take as long as one that is replaced, whatever a stop of the service would allow.
    let mut world = serving(Spec { stop_timeout: ms(5_000), ..spec() });
    let slow = world.pick_ready().expect("there are three");
    world.is_slow_to_leave(slow, ms(25_000));
    let request = world.pause(ms(10_000));
    world.run_until(ms(11_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::NotPaused(Unpausable::Serves(slow)));
    world.run_until(ms(5_000), "three workers", |world| world.ready() == 3);
    world.run_for(ms(30_000));
    let killed = format!("Signal({slow:?}, {:?})", Signal::Kill);
    assert!(!world.trace().iter().any(|line| line.contains(&killed)), "{}", world.story());
}

#[test]
fn visitors_get_the_page_from_half_a_queue_on_and_wait_again_below() {
    let mut world = paused(spec(), 60_000);
    world.queue = 49;
    world.run_for(ms(3_000));
    assert!(!world.fallback());
    world.queue = 50;
    world.run_for(ms(1_100));
    assert!(world.fallback());
    world.run_for(ms(1_000));
    assert!(!world.fallback(), "all who waited were answered");
    world.queue = 0;
    let request = world.resume();
    world.run_until(ms(10_000), "an answer", |world| world.answers.contains_key(&request));
    assert_eq!(world.answers[&request], Outcome::Resumed { serves: true });
}

#[test]
fn code_that_is_reloaded_meanwhile_is_proven_out_of_sight_and_serves_afterwards() {
    for preloaded in [false, true] {
        let mut world = paused(Spec { preloaded, ..spec() }, 60_000);
        let before = spawned(&world);
        let reload = world.reload();
        world.run_until(ms(20_000), "an answer", |world| world.answers.contains_key(&reload));
        assert_eq!(world.answers[&reload], Outcome::WaitingForResume(GenerationId(2)));
        assert_eq!((world.ready(), spawned(&world)), (0, before));
        // What is broken is refused, and the last that was good serves.
        world.code = Code::ImportError;
        let broken = world.reload();
        world.run_until(ms(20_000), "an answer", |world| world.answers.contains_key(&broken));
        assert!(matches!(world.answers[&broken], Outcome::Refused { .. }), "{:?}", world.answers);
        world.code = Code::Good;
        let _ = world.resume();
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
        assert_eq!(world.core.snapshot(world.now).generation, GenerationId(2));
    }
}

#[test]
fn who_cannot_pause_hears_why() {
    let mut world = serving(spec());
    let reload = world.reload();
    let request = world.pause(ms(10_000));
    assert_eq!(world.answers[&request], Outcome::NotPaused(Unpausable::Reloads(GenerationId(2))));
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&reload));
    let first = world.pause(ms(30_000));
    let second = world.pause(ms(30_000));
    assert_eq!(world.answers[&second], Outcome::NotPaused(Unpausable::Paused));
    let resume = world.resume();
    assert_eq!(world.answers[&first], Outcome::NotPaused(Unpausable::Resumed), "no worker has left yet");
    world.run_until(ms(10_000), "an answer", |world| world.answers.contains_key(&resume));
}

#[test]
fn who_resumes_hears_that_no_worker_can_start() {
    let mut world = paused(spec(), 60_000);
    world.code = Code::ImportError;
    let request = world.resume();
    world.run_until(ms(30_000), "an answer", |world| world.answers.contains_key(&request));
    assert!(matches!(world.answers[&request], Outcome::NotServing { .. }), "{:?}", world.answers);
    assert!(world.fallback());
}

#[test]
fn where_the_kernel_tells_nothing_of_the_queue_visitors_wait() {
    let mut world = paused(spec(), 60_000);
    (world.blind, world.queue) = (true, 100);
    world.run_for(ms(10_000));
    assert!(!world.fallback());
}

#[test]
fn what_had_failed_before_is_tried_at_once_afterwards() {
    for maintained in [false, true] {
        let mut world = serving(spec());
        world.code = Code::ImportError;
        world.visitors = false;
        while let Some(id) = world.pick_ready() {
            world.kill(id);
        }
        // The back-off has grown.
        world.run_for(ms(60_000));
        assert!(world.fallback(), "{}", world.story());
        let _ = if maintained { world.maintain(true) } else { world.pause(ms(60_000)) };
        world.code = Code::Good;
        world.run_for(ms(2_000));
        let end = if maintained { world.maintain(false) } else { world.resume() };
        world.run_until(ms(3_000), "an answer", |world| world.answers.contains_key(&end));
        assert_eq!(world.answers[&end], Outcome::Resumed { serves: true }, "{}", world.story());
    }
}

#[test]
fn all_who_resume_hear_the_same_unless_it_is_paused_again() {
    let mut world = paused(spec(), 60_000);
    let both = [world.resume(), world.resume()];
    assert!(both.iter().all(|request| !world.answers.contains_key(request)), "{:?}", world.answers);
    world.run_until(ms(10_000), "an answer", |world| both.iter().all(|request| world.answers.contains_key(request)));
    assert!(both.iter().all(|request| world.answers[request] == Outcome::Resumed { serves: true }));
    let again = world.pause(ms(60_000));
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&again));
    let late = world.resume();
    let _ = world.pause(ms(60_000));
    assert!(matches!(&world.answers[&late], Outcome::NotServing { why } if why == "it is paused again"));
}

#[test]
fn a_canary_that_is_proven_keeps_no_pause_from_its_beginning_and_its_checks_are_made() {
    let mut world = serving(spec());
    let pause = world.pause(ms(30_000));
    world.code = Code::HangsInImport;
    let reload = world.reload();
    world.run_until(ms(30_000), "an answer", |world| world.answers.contains_key(&pause));
    assert!(matches!(world.answers[&pause], Outcome::Paused { .. }), "{:?}", world.answers);
    assert!(!world.answers.contains_key(&reload), "its canary hangs");

    let mut world = serving(spec());
    let _ = world.maintain(true);
    world.run_for(ms(60_000));
    (world.checking.programs, world.code) = (1, Code::CheckFails);
    let reload = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&reload));
    assert!(matches!(world.answers[&reload], Outcome::Refused { .. }), "{:?}", world.answers);
}

#[test]
fn before_the_first_visitor_it_holds_for_him_too() {
    let mut world = World::new(1, Start::OnConnection, spec());
    let request = world.pause(ms(20_000));
    assert!(matches!(world.answers[&request], Outcome::Paused { .. }), "{:?}", world.answers);
    // He comes within three seconds.
    world.run_for(ms(15_000));
    assert_eq!(spawned(&world), 0);
    assert!(world.notices.contains(&Notice::FirstConnection));
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
}

#[test]
fn in_maintenance_visitors_get_the_page_until_somebody_ends_it() {
    let mut world = serving(spec());
    let on = world.maintain(true);
    assert_eq!(world.answers[&on], Outcome::Maintained, "at once");
    assert!(world.fallback());
    let before = spawned(&world);
    world.run_for(ms(3_600_000));
    assert!(world.fallback() && spawned(&world) == before);
    // What is deployed meanwhile is proven, and serves afterwards; another pause has no place.
    let reload = world.reload();
    world.run_until(ms(20_000), "an answer", |world| world.answers.contains_key(&reload));
    assert_eq!(world.answers[&reload], Outcome::WaitingForResume(GenerationId(2)));
    let pause = world.pause(ms(1_000));
    assert_eq!(world.answers[&pause], Outcome::NotPaused(Unpausable::Maintained));
    let again = world.maintain(true);
    assert_eq!(world.answers[&again], Outcome::Maintained);
    let off = world.maintain(false);
    world.run_until(ms(10_000), "an answer", |world| world.answers.contains_key(&off));
    assert_eq!(world.answers[&off], Outcome::Resumed { serves: true });
    assert!(!world.fallback());
    assert_eq!(world.core.snapshot(world.now).generation, GenerationId(2));
}

#[test]
fn maintenance_that_was_on_before_a_restart_lets_no_worker_start() {
    for start in [Start::AtOnce, Start::OnConnection] {
        let mut world = World::new(1, start, spec());
        let on = world.maintain(true);
        assert_eq!(world.answers[&on], Outcome::Maintained);
        world.run_for(ms(60_000));
        assert_eq!((spawned(&world), world.fallback()), (0, true));
        let _ = world.maintain(false);
        world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    }
}

#[test]
fn a_stop_answers_everybody() {
    for resumes in [false, true] {
        let mut world = serving(spec());
        let pause = world.pause(ms(60_000));
        let resume = resumes.then(|| world.resume());
        world.event(Event::StopRequested);
        world.run_until(ms(80_000), "the end", |world| world.exited);
        let expected = if resumes { Outcome::NotPaused(Unpausable::Resumed) } else { Outcome::Stopping };
        assert_eq!(world.answers[&pause], expected);
        assert!(resume.is_none_or(|resume| world.answers[&resume] == Outcome::Stopping));
        assert!(world.all_answered());
    }
}
