//! A socket of our own whose file is removed: bound again, and brought to the workers by a reload.

use super::faults::Code;
use super::simulation::sockets::AtPath;
use super::simulation::{World, ms, spec};
use sockd_supervisor::{Event, Notice, Outcome, SocketId, Start};

fn serving() -> World {
    let mut world = World::new(1, Start::AtOnce, spec());
    world.run_until(ms(10_000), "three workers", |world| world.ready() == 3);
    world
}

fn unserved(world: &World) -> Option<SocketId> {
    world.core.overview(world.now).unserved
}

#[test]
fn it_is_bound_again_and_one_reload_brings_it_to_every_worker() {
    let mut world = serving();
    world.lose_path(AtPath::Nothing);
    world.run_until(ms(5_100), "another socket", |world| world.socket.at_path == AtPath::Ours);
    assert!(!world.accept_from_socket());
    world.run_until(ms(20_000), "a reload", World::accept_from_socket);
    world.run_for(ms(300_000));
    let [(_, request)] = world.socket.reloads[..] else { panic!("{:?}", world.socket.reloads) };
    assert!(matches!(world.answers[&request], Outcome::Serving(_)), "{:?}", world.answers);
    assert_eq!(unserved(&world), None);
}

#[test]
fn a_refused_reload_is_an_alarm_and_is_tried_again_each_minute() {
    let mut world = serving();
    world.code = Code::ImportError;
    world.lose_path(AtPath::Nothing);
    world.run_until(ms(60_000), "a refusal", |world| unserved(world).is_some());
    assert_eq!(unserved(&world), Some(SocketId(1)));
    world.run_for(ms(300_000));
    assert!((5..=6).contains(&world.socket.reloads.len()), "{:?}", world.socket.reloads);
    let notices = world.notices.iter().filter(|notice| **notice == Notice::SocketUnserved(SocketId(1))).count();
    assert_eq!(notices, 1);
    world.code = Code::Good;
    world.run_until(ms(90_000), "the next attempt", World::accept_from_socket);
    world.run_for(ms(10_000));
    assert_eq!(unserved(&world), None);
    world.run_for(ms(300_000));
    assert!(world.socket.reloads.len() <= 7, "{:?}", world.socket.reloads);
}

#[test]
fn what_a_reload_before_was_refused_for_is_no_alarm() {
    let mut world = serving();
    world.code = Code::ImportError;
    let refused = world.reload();
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&refused));
    assert_eq!(unserved(&world), None);
}

#[test]
fn a_server_that_removes_it_at_every_end_is_followed_three_times_within_ten_minutes() {
    let mut world = serving();
    for time in 1..=3 {
        world.lose_path(AtPath::Nothing);
        world.run_until(ms(5_100), "another socket", |world| world.socket.rebound_at.len() == time);
        world.run_until(ms(60_000), "a reload", World::accept_from_socket);
    }
    world.lose_path(AtPath::Nothing);
    world.run_until(ms(5_100), "an end", |world| !world.socket.left_at.is_empty());
    world.run_until(ms(700_000), "another beginning", |world| world.socket.rebound_at.len() == 4);
    let (first, last) = (world.socket.rebound_at[0], world.socket.rebound_at[3]);
    assert!(last.since(first) >= ms(600_000), "{:?}", world.socket.rebound_at);
}

#[test]
fn one_that_another_server_has_taken_is_asked_for_each_minute_and_at_once_when_that_has_gone() {
    let mut world = serving();
    world.lose_path(AtPath::Another);
    world.run_for(ms(200_000));
    assert!(world.socket.rebound_at.is_empty());
    let attempts = world.trace().iter().filter(|line| line.contains("    Rebind(")).count();
    assert!((3..=4).contains(&attempts), "{attempts}");
    world.lose_path(AtPath::Nothing);
    world.run_until(ms(5_100), "another socket", |world| world.socket.rebound_at.len() == 1);
}

#[test]
fn during_a_reload_it_waits_and_where_nobody_serves_it_waits_too() {
    let mut world = serving();
    let first = world.reload();
    world.event(Event::Rebound { from: SocketId(0), to: SocketId(1) });
    assert!(world.socket.reloads.is_empty());
    world.socket.rebound_at.push(world.now);
    world.run_until(ms(60_000), "an answer", |world| world.answers.contains_key(&first));
    world.run_for(ms(5_000));
    assert_eq!(world.socket.reloads.len(), 1, "it may have been loaded before");
    let mut world = serving();
    let _ = world.maintain(true);
    world.run_until(ms(90_000), "nobody", |world| world.ready() == 0);
    world.socket.rebound_at.push(world.now);
    world.event(Event::Rebound { from: SocketId(0), to: SocketId(1) });
    world.run_for(ms(120_000));
    assert!(world.socket.reloads.is_empty());
    let _ = world.maintain(false);
    world.run_until(ms(90_000), "a reload", |world| world.socket.reloads.len() == 1);
}
