//! Tests on real machines: Debian 12 with systemd 252 and Debian 13 with systemd 257 as process 1.
//!
//! They need root and, the first time, the network. Where machines cannot be made the tests say
//! so on standard error and pass; with `SOCKD_TEST_LAB=required` they fail instead.

mod adopt;
mod checks;
mod cookbook;
mod doctor;
mod emulated_machine;
mod explain;
mod groups;
mod guide;
mod hangs;
mod hardening;
mod journald_stall;
mod life;
mod load;
mod logs;
mod long_lived_connections;
mod machine;
mod neighbours;
mod new;
mod package;
mod pause;
mod php;
mod reload;
mod requests;
mod scarce;
mod servers;
mod signals;
mod sites;
mod supervisord;
mod trials;
mod units;
mod user_units;

use std::io::Write;
use std::sync::{PoisonError, RwLock};

use machine::{Machine, Release};

/// A machine, or nothing but a plain word on what is left out where there can be none.
fn boot(test: &str, release: Release) -> Option<Machine> {
    match machine::lab_available() {
        Ok(()) => Some(Machine::boot(release)),
        Err(why) if std::env::var_os("SOCKD_TEST_LAB").is_some_and(|lab| lab == "required") => {
            panic!("no test machine: {why}")
        }
        Err(why) => {
            left_out(&format!("{test} on {}", release.name()), &why);
            None
        }
    }
}

/// A plain word on what is left out.
fn left_out(test: &str, why: &str) {
    // Not eprintln: the harness would keep it to itself while the test passes.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {test}: {why}");
}

/// What our users put before their server's command line.
const PREFIX: &str = "/usr/bin/sockd run -- ";

fn install(machine: &Machine) {
    machine.copy_in(env!("CARGO_BIN_EXE_sockd"), "/usr/bin/sockd");
}

/// Two machines may run side by side; they leave half of two processors idle. A test that measures how long visitors wait
/// has the host to itself.
static HOST: RwLock<()> = RwLock::new(());

/// One test function per release, so that each is named, run and reported by itself. `read` and `write` say how it takes
/// [`HOST`].
macro_rules! on_every_release {
    ($host:ident: $($(#[$meta:meta])* fn $test:ident($machine:ident) $body:block)*) => {$(
        mod $test {
            use super::*;

            $(#[$meta])*
            fn test($machine: &Machine) $body

            #[test]
            fn bookworm() {
                let _host = HOST.$host().unwrap_or_else(PoisonError::into_inner);
                boot(stringify!($test), Release::Bookworm).iter().for_each(test);
            }

            #[test]
            fn trixie() {
                let _host = HOST.$host().unwrap_or_else(PoisonError::into_inner);
                boot(stringify!($test), Release::Trixie).iter().for_each(test);
            }
        }
    )*};
}

on_every_release! { read:
    /// What the other tests stand on: the right systemd in a control group of its own, files, users,
    /// commands beside the test, and nothing to be seen of it outside.
    fn a_machine_keeps_its_promises(machine) {
        let version = format!("systemd {} ", machine.release().systemd());
        machine.run("systemctl --version").says(&version).succeeded();
        machine.run("ps -p 1 -o comm=").says("systemd").succeeded();
        machine.run("stat -f --format %T /sys/fs/cgroup").says("cgroup2fs").succeeded();
        machine.run("grep ^0:: /proc/self/cgroup").says("0::/user.slice/test.scope").succeeded();
        machine.run_as("sammy", "id -un; id -Gn; pwd").says("sammy\nsammy sudo www-data\n/home/sammy\n").succeeded();

        machine.copy_in("/proc/self/exe", "/opt/new/program");
        machine.run("/opt/new/program --list").says("a_machine_keeps_its_promises").succeeded();
        machine.write_file_as("sammy", "/home/sammy/a file", 0o640, "it's here");
        machine.run("stat --format '%a %U %G' '/home/sammy/a file'").says("640 sammy sammy").succeeded();
        machine.run("cat '/home/sammy/a file'").says("it's here").succeeded();

        let first = machine.spawn("echo begun; echo warned >&2; exec sleep infinity");
        let second = machine.spawn_as("sammy", "whoami");
        second.finish().says("sammy").succeeded();
        let unit = first.unit().to_owned();
        first.stop().says("begun");
        machine.wait_until("the unit to go", std::time::Duration::from_secs(10), || {
            (machine.run(&format!("systemctl is-active {unit}")).code != 0).then_some(())
        });
        assert!(machine.journal(&unit).contains("Stopped"), "{}", machine.journal(&unit));

        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux");
        assert!(!mounts.contains("/run/tree"), "a mount of the machine got out:\n{mounts}");
    }

    /// The guide with the server it was written for.
    fn the_django_guide_with_plain_gunicorn(machine) {
        guide::django(machine, "");
        guide::django_troubleshooting(machine);
    }

    /// The guide word for word, with sockd in the place of one line.
    fn the_django_guide_with_sockd(machine) {
        install(machine);
        guide::django(machine, PREFIX);
        guide::django_troubleshooting(machine);
        requests::a_slow_query(machine);
        requests::metrics_of_a_unit(machine);
        checks::a_forgotten_migration(machine);
        pause::visitors_wait_for_a_migration(machine);
        pause::a_restart_ends_no_maintenance(machine);
        pause::a_balancer_hears_of_a_drain(machine);
        trials::a_release_that_fails_at_some_orders(machine);
    }

    /// What is wrong with the guide's site is named.
    fn faults_of_a_django_site_are_explained(machine) {
        install(machine);
        guide::django(machine, PREFIX);
        explain::faults(machine);
    }

    /// uvicorn, hypercorn, daphne and granian in gunicorn's place.
    fn the_asgi_guides_with_sockd(machine) {
        install(machine);
        servers::the_asgi_guides(machine);
    }

    /// Not of the guides, but with manners of its own.
    fn php_fpm_lives_behind_nginx(machine) {
        install(machine);
        php::lives(machine);
    }

    /// The guide without a socket unit: sockd binds the socket itself, with gunicorn's own mode.
    fn the_flask_guide_with_sockd(machine) {
        install(machine);
        guide::flask(machine, PREFIX);
        guide::bad_gateway(
            machine,
            "chmod 750 /home/sammy",
            "(13: Permission denied)",
            "chmod 755 /home/sammy",
        );
    }

    fn the_flask_guide_with_plain_gunicorn(machine) {
        guide::flask(machine, "");
        guide::bad_gateway(
            machine,
            "chmod 750 /home/sammy",
            "(13: Permission denied)",
            "chmod 755 /home/sammy",
        );
    }

    /// Every command of sockd-cookbook(7), in order.
    fn the_cookbook_holds(machine) {
        install(machine);
        cookbook::holds(machine);
    }

    /// Each fault of the guide's troubleshooting: named by the doctor, fixed by its command.
    fn the_doctor_fixes_the_guides_faults_on_plain_gunicorn(machine) {
        install(machine);
        guide::django(machine, "");
        doctor::the_guides_faults(machine);
    }

    fn the_doctor_fixes_the_guides_faults_on_sockd(machine) {
        install(machine);
        guide::django(machine, PREFIX);
        doctor::the_guides_faults(machine);
    }

    /// And those that were found beside it.
    fn the_doctor_fixes_other_faults_on_plain_gunicorn(machine) {
        install(machine);
        guide::django(machine, "");
        doctor::other_faults(machine, "");
    }

    fn the_doctor_fixes_other_faults_on_sockd(machine) {
        install(machine);
        guide::django(machine, PREFIX);
        doctor::other_faults(machine, PREFIX);
    }

    /// What only sockd can tell, and a fix that is refused.
    fn the_doctor_knows_what_sockd_knows(machine) {
        install(machine);
        guide::django(machine, PREFIX);
        doctor::what_sockd_knows(machine);
    }

    /// Faults made for real: named by the doctor, fixed by the command that it prints.
    fn the_doctor_fixes_the_flask_guides_site(machine) {
        install(machine);
        guide::flask(machine, "");
        doctor::the_flask_guides_faults(machine);
    }

    fn the_shipped_units_are_sound(machine) {
        units::install(machine);
        units::the_template_is_sound(machine);
        units::the_examples_are_sound(machine);
    }

    fn the_package_lives_and_dies(machine) {
        package::installs_what_it_should(machine);
        package::an_instance_lives_through_an_upgrade(machine);
        package::goes_without_a_trace(machine);
        package::the_archive_is_installed_and_removed(machine);
    }

    fn a_reload_cuts_nobody_who_stays(machine) {
        install(machine);
        long_lived_connections::a_reload_cuts_nobody(machine);
    }

    fn a_restart_waits_for_requests_and_for_nobody_else(machine) {
        install(machine);
        long_lived_connections::a_restart_waits_for_requests_and_for_nobody_else(machine);
    }

    fn everybody_tells_the_same_story(machine) {
        install(machine);
        life::everybody_tells_the_same_story(machine);
    }

    fn every_hang_of_sync_is_found(machine) {
        install(machine);
        hangs::every_hang_is_found(machine, &hangs::SYNC);
    }

    fn every_hang_of_gthread_is_found(machine) {
        install(machine);
        hangs::every_hang_is_found(machine, &hangs::GTHREAD);
    }

    fn every_hang_of_gevent_is_found(machine) {
        install(machine);
        hangs::every_hang_is_found(machine, &hangs::GEVENT);
    }

    fn every_hang_of_asgi_is_found(machine) {
        install(machine);
        hangs::every_hang_is_found(machine, &hangs::ASGI_CLASS);
    }

    /// `sockd reload` on a terminal, one that goes away, and one that does not wait.
    fn who_asks_for_a_reload(machine) {
        install(machine);
        life::who_asks_for_a_reload(machine);
    }

    fn changed_settings_hold_after_a_restart(machine) {
        install(machine);
        life::changed_settings_hold_after_a_restart(machine);
    }

    fn a_socket_file_may_be_removed(machine) {
        install(machine);
        life::a_socket_file_is_removed(machine);
    }

    /// logrotate with gunicorn's snippet, `systemctl kill` with every signal, `systemctl freeze`.
    fn a_unit_is_sent_everything(machine) {
        install(machine);
        signals::a_unit_is_sent_everything(machine);
    }

    fn nothing_outlives_its_worker(machine) {
        install(machine);
        groups::nothing_outlives_its_worker(machine);
    }

    fn a_successor_makes_order(machine) {
        install(machine);
        groups::a_successor_makes_order(machine);
        groups::with_any_user(machine);
    }

    fn what_is_not_delegated_is_not_touched(machine) {
        install(machine);
        groups::what_is_not_delegated_is_not_touched(machine);
    }

    fn what_an_administrator_types(machine) {
        install(machine);
        life::what_an_administrator_types(machine);
        life::a_socket_of_our_own(machine);
    }

    /// The guide's site is adopted and given back while visitors come.
    fn a_site_is_adopted_and_given_back(machine) {
        install(machine);
        adopt::there_and_back(machine);
        adopt::the_prefix_is_completed(machine);
    }

    fn a_missing_socket_is_made_by_adopting(machine) {
        install(machine);
        adopt::a_missing_socket_is_made(machine);
    }

    /// A program of Debian's supervisord is adopted and given back while visitors come.
    fn supervisord_gives_a_program_and_gets_it_back(machine) {
        supervisord::there_and_back(machine);
    }

    fn supervisords_processes_and_secrets_are_kept(machine) {
        supervisord::processes_and_secrets(machine);
    }

    fn what_supervisord_keeps(machine) {
        supervisord::what_is_refused(machine);
    }

    fn what_cannot_be_adopted_is_left_alone(machine) {
        install(machine);
        adopt::what_is_refused(machine);
    }

    /// Odd and hostile values in the files of uWSGI, PHP-FPM and puma.
    fn adopted_settings_are_what_was_meant(machine) {
        units::install(machine);
        adopt::settings_are_what_was_meant(machine);
    }

    /// Cleaners of /tmp and /run, and limits that leave nothing.
    fn a_site_lives_without(machine) {
        install(machine);
        scarce::a_site_lives_without(machine);
    }

    fn two_services_share_a_directory(machine) {
        install(machine);
        neighbours::two_services_share_a_directory(machine);
    }

    fn a_new_application_is_asked_for(machine) {
        units::install(machine);
        new::from_nothing_to_a_page(machine);
    }

    fn a_user_has_units_of_his_own(machine) {
        install(machine);
        user_units::a_site_of_ones_own(machine);
    }

    fn logs_and_status_are_for_people(machine) {
        units::install(machine);
        logs::each_worker_has_its_own_lines(machine);
        logs::a_status_is_watched(machine);
    }

    fn a_site_serves_in_the_other_sandboxes(machine) {
        units::install(machine);
        units::the_other_sandboxes_serve(machine);
        hardening::each_line_serves(machine);
    }

    /// The guide's two projects on uWSGI, each an instance of its own behind Nginx's uwsgi_pass.
    fn two_uwsgi_sites_do_not_touch_each_other(machine) {
        sites::two_sites(machine);
    }

    fn the_emperor_gives_a_site_and_gets_it_back(machine) {
        units::install(machine);
        sites::the_emperor_gives_a_site_and_gets_it_back(machine);
    }
}

on_every_release! { write:
    /// Twenty-two reloads under load, good and broken in turn, five restarts, twenty killed workers.
    fn a_bad_deploy_cannot_take_the_site_down(machine) {
        install(machine);
        reload::under_our_unit(machine);
    }

    fn a_hangup_is_a_reload_under_the_guides_unit(machine) {
        install(machine);
        reload::under_the_guides_unit(machine);
    }

    fn any_process_of_our_unit_may_die(machine) {
        install(machine);
        life::any_process_of_our_unit_may_die(machine);
    }

    fn any_process_of_the_guides_unit_may_die(machine) {
        install(machine);
        life::any_process_of_the_guides_unit_may_die(machine);
    }

    /// `systemctl restart` of the socket unit, while visitors come.
    fn a_socket_may_be_restarted(machine) {
        install(machine);
        life::a_socket_may_be_restarted(machine);
    }

    fn journald_is_not_waited_for(machine) {
        install(machine);
        journald_stall::journald_is_not_waited_for(machine);
    }

    fn a_broken_application_is_answered_for(machine) {
        install(machine);
        life::a_broken_application_is_answered_for(machine);
    }
}
