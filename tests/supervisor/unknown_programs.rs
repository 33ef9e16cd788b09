//! Programs of which nothing is known: they hold their sockets long before they serve, and say READY=1 much too soon or
//! never. Only what they answer, and what the kernel sees them accept, proves anything.

use super::faults::Code;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, GenerationId, Outcome, Phase, Spec, Start, WorkerEvent, WorkerSnapshot};

fn unknown() -> Spec {
    Spec { ready_after: Some(ms(1_000)), says_ready: false, own_socket: false, watchdog: None, probe: None, ..spec() }
}

fn serving(seed: u64) -> World {
    let mut world = World::new(seed, Start::OnConnection, unknown());
    world.import = Some(ms(200));
    world.run_until(ms(20_000), "three workers", |world| world.ready() == 3 && world.serving() == 3);
    world
}

#[test]
fn a_deploy_that_fails_late_or_never_answers_is_refused_and_nobody_waits() {
    for seed in 1..30 {
        for code in [Code::ImportError, Code::HangsInImport, Code::NeverReady, Code::AnswersWorse] {
            let mut world = serving(seed);
            world.import = Some(ms(8_000));
            world.code = code;
            let request = world.reload();
            world.run_until(ms(70_000), "an answer", |world| {
                assert!(world.serving() >= 3, "{code:?} took a worker away\n{}", world.story());
                world.answers.contains_key(&request)
            });
            let outcome = &world.answers[&request];
            assert!(matches!(outcome, Outcome::Refused { .. }), "{code:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_good_deploy_takes_the_time_that_it_needs_and_the_old_stay_until_it_serves() {
    for seed in 1..30 {
        let mut world = serving(seed);
        world.import = Some(ms(12_000));
        let request = world.reload();
        world.run_until(ms(90_000), "an answer", |world| {
            assert!(world.serving() >= 3, "nobody serves in some slot\n{}", world.story());
            world.answers.contains_key(&request)
        });
        assert_eq!(world.answers[&request], Outcome::Serving(GenerationId(2)));
        // What it took is known from here on.
        let victim = world.pick_ready().expect("three are ready");
        world.event(Event::Worker(victim, WorkerEvent::WantsRetirement));
        world.run_until(ms(30_000), "a successor", |world| {
            assert!(world.serving() >= 3, "the successor does not serve\n{}", world.story());
            let ready = |w: &WorkerSnapshot| w.worker == victim && w.phase == Phase::Ready;
            !world.core.snapshot(world.now).workers.iter().any(ready)
        });
    }
}

#[test]
fn a_first_worker_is_ready_when_it_takes_the_visitor_who_waits() {
    for seed in 1..30 {
        let mut world = World::new(seed, Start::OnConnection, unknown());
        world.import = Some(ms(8_000));
        world.run_until(ms(20_000), "a first worker", |world| {
            assert!(world.ready() == 0 || world.serving() > 0, "ready, and nobody accepts\n{}", world.story());
            world.ready() > 0
        });
        // One that never does so fails when its time to start is over, and visitors get 503.
        let mut world = World::new(seed, Start::OnConnection, unknown());
        world.import = Some(ms(8_000));
        world.code = Code::HangsInImport;
        world.run_until(ms(70_000), "503", World::fallback);
    }
}

#[test]
fn who_takes_the_first_visitor_before_anybody_looks_has_shown_that_it_accepts() {
    let shown = |world: &mut World| {
        world.run_until(ms(20_000), "a first worker", |world| world.ready() > 0);
        world.core.snapshot(world.now).workers.iter().any(|worker| worker.takes_its_sockets)
    };
    for seed in 1..30 {
        let mut world = World::new(seed, Start::OnConnection, unknown());
        world.import = Some(ms(100));
        assert!(shown(&mut world), "{}", world.story());
        // Where the kernel does not tell, a visitor may wait for ever.
        let mut world = World::new(seed, Start::OnConnection, unknown());
        (world.import, world.blind) = (Some(ms(8_000)), true);
        assert!(!shown(&mut world), "{}", world.story());
        // Nor does it say anything of those who come later.
        (world.blind, world.visitors) = (false, false);
        for id in world.core.snapshot(world.now).workers.iter().map(|worker| worker.worker).collect::<Vec<_>>() {
            world.kill(id);
        }
        world.run_until(ms(90_000), "nobody", |world| world.ready() == 0);
        assert!(!shown(&mut world), "{}", world.story());
        // What the 503 helper takes says nothing of the worker that is tried beside it: the invariants look.
        let mut world = World::new(seed, Start::OnConnection, unknown());
        (world.import, world.code) = (Some(ms(8_000)), Code::ImportError);
        world.run_until(ms(30_000), "503", World::fallback);
        world.code = Code::HangsInImport;
        let tried = |world: &World| world.core.snapshot(world.now).workers.iter().any(|w| w.phase == Phase::Ready);
        world.run_until(ms(60_000), "a worker that is taken to serve", tried);
        // Nor does what it took in maintenance say anything of the worker that starts afterwards.
        let mut world = World::new(seed, Start::OnConnection, unknown());
        world.import = Some(ms(8_000));
        let _ = world.maintain(true);
        world.run_for(ms(5_000));
        world.visitors = false;
        let _ = world.maintain(false);
        assert!(!shown(&mut world), "{}", world.story());
        let mut world = World::new(seed, Start::OnConnection, unknown());
        world.import = Some(ms(8_000));
        world.run_until(ms(10_000), "a first worker", |world| world.spawns > 0);
        (world.queue, world.visitors) = (100, false);
        let pause = world.pause(ms(60_000));
        world.run_until(ms(60_000), "503", World::fallback);
        world.queue = 0;
        let _ = world.resume();
        assert!(!shown(&mut world), "{:?}\n{}", world.answers.get(&pause), world.story());
        // And where nobody came, there is nobody to take.
        let mut world = World::new(seed, Start::AtOnce, unknown());
        (world.import, world.visitors) = (Some(ms(8_000)), false);
        assert!(!shown(&mut world), "{}", world.story());
    }
}

#[test]
fn a_successor_that_nobody_can_judge_waits_for_a_canary_to_show_how_long_it_takes() {
    for seed in 1..30 {
        // Nobody came while the first workers started: it was not seen when they began to accept.
        let mut world = World::new(seed, Start::AtOnce, unknown());
        world.visitors = false;
        world.import = Some(ms(5_000));
        world.run_until(ms(40_000), "three workers", |world| world.serving() == 3 && world.ready() == 3);
        world.visitors = true;
        let victim = world.pick_ready().expect("three are ready");
        world.event(Event::Worker(victim, WorkerEvent::WantsRetirement));
        world.run_until(ms(60_000), "a successor", |world| {
            assert!(world.serving() >= 3, "the successor does not serve\n{}", world.story());
            let ready = |w: &WorkerSnapshot| w.worker == victim && w.phase == Phase::Ready;
            !world.core.snapshot(world.now).workers.iter().any(ready)
        });
    }
}

#[test]
fn a_known_server_that_says_that_it_is_ready_is_believed() {
    let known = Spec { says_ready: true, ready_after: None, ..unknown() };
    // An even seed: it says so long before anybody sees it accept.
    let mut world = World::new(2, Start::OnConnection, known);
    world.import = Some(ms(5_000));
    world.run_until(ms(10_000), "a first worker", |world| world.spawns > 0);
    world.run_until(ms(200), "it is ready", |world| world.ready() > 0);
}
