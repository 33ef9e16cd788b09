//! `sockd new`: an application from nothing to a page in Nginx, by the commands that it names.
//!
//! Owns: the answers on the terminal, and that each command after them does what its word says.
//! Must never: type anything that the output did not name.

use crate::guide;
use crate::machine::{Machine, quote};

/// Two lines of the "Next:" list that make no sense here are left out by their beginnings.
fn steps(said: &str) -> Vec<String> {
    let list = said.split("Next:").nth(1).expect("what is next");
    let lines = list.lines().filter_map(|line| line.trim_end_matches('\r').strip_prefix("  "));
    lines.map(|line| line.split("  ").next().expect("split gives one").to_owned()).collect()
}

/// Everything is asked for on a terminal; a wrong answer is asked for again.
pub fn from_nothing_to_a_page(machine: &Machine) {
    let application = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'fresh']\n";
    machine.write_file_as("sammy", "/home/sammy/shop/shop.py", 0o644, application);
    let answers = "no-path\n/home/sammy/shop\nsammy\n/home/sammy/myprojectdir/myprojectenv/bin/gunicorn -w 2 shop:app\n\
                   example.com\n";
    machine.write_file("/tmp/answers", 0o644, answers);
    let said = machine
        .run(&format!("script -qec {} /dev/null </tmp/answers", quote("sockd new shop")))
        .says("begin with /")
        .says("wrote /etc/sockd/shop.toml")
        .says("wrote /etc/nginx/sites-available/shop")
        .succeeded();
    let steps = steps(&said);
    let (undo, steps) = steps.split_last().expect("there are steps");
    assert_eq!((steps.len(), undo.as_str()), (7, "sockd new --undo shop"), "{steps:?}");
    for step in steps {
        let output = machine.run(step);
        if step.starts_with("curl") {
            assert!(output.stdout.contains("fresh"), "{output}");
        }
        output.succeeded();
    }
    machine.run(&guide::visit("/")).says("fresh").succeeded();
    machine.run("ps -o user= -p $(systemctl show --value --property MainPID sockd@shop)").says("sammy").succeeded();
    // It may write where it lives, and nowhere else.
    machine.run("systemctl show --value --property ReadWritePaths sockd@shop").says("-/home/sammy/shop\n").succeeded();
    let again = machine.run("sockd new shop --directory /srv --user sammy -- x");
    assert!(again.code == 1 && again.stderr.contains("it is there already"), "{again}");

    machine.run(undo).succeeded();
    machine.run("systemctl show --value --property LoadState,ActiveState sockd@shop.socket").says("inactive");
    let left = machine.run("ls -d /etc/sockd/shop.toml /etc/systemd/system/sockd@shop.* /etc/nginx/sites-*/shop");
    assert!(left.stdout.is_empty(), "{left}");
    assert!(machine.run("test -e /home/sammy/shop/shop.py").code == 0, "the application itself stays");
}
