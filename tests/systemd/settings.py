"""Odd and hostile values in the settings of servers: what systemd has loaded after `sockd adopt --write`.

    settings.py sites
    settings.py sockets PHP-FPM

Prints a line for each value of which something else came than the setting that was meant: `adopt` writes that one, or
refuses and writes nothing. The last line counts what was written and what was refused.
"""

import os
import subprocess
import sys
import tomllib

# A value, and the path that it means to uWSGI; None: no unit can say it, or nobody can mean it.
VALUES = [
    (b"sam\rExecStartPre=+/bin/sh", None),
    (b"sam\0ExecStartPre=+/bin/sh", None),
    (b"sam\x0bUser=root", None),
    (b"sam\x0cUser=root", None),
    (b"sam\x1b[2Jm", None),
    ("sa\x85m".encode(), None),
    ("sa\u2028m".encode(), None),
    ("sa\u202em".encode(), None),
    (b"sam\\", None),
    (b"sam\\\\", None),
    (b"sa\xe9m", None),
    (b"sa%%m", b"sa%m"),
    (b"sa%%%%im", b"sa%%im"),
    (b"sa%im", None),
    (b"sa\\m", b"sa\\m"),
    (b"sa\\x20m", b"sa\\x20m"),
    (b"sa m", b"sa m"),
    (b"sa /etc m", b"sa /etc m"),
    (b"sa$m", b"sa$m"),
    (b"sa${HOME}m", b"sa${HOME}m"),
    (b'"sam"', b'"sam"'),
    (b"'sam'", b"'sam'"),
    (b'sa"m', b'sa"m'),
    ("sam\u00fc".encode(), "sam\u00fc".encode()),
    (b"sa;m", b"sa;m"),
    (b"sa#m", b"sa#m"),
    (b"-sam", b"-sam"),
    (b"+sam", b"+sam"),
    (b"!sam", b"!sam"),
    (b"~sam", b"~sam"),
    (b"@sam", b"@sam"),
    (b"sam/../../etc", None),
    (b"sammy,root", b"sammy,root"),
    (b"x" * 300, None),
]

# To other servers a percent sign is a letter.
HOSTILE = [value for value, meant in VALUES if meant is None and value != b"sa%im"]

UNITS = "/etc/systemd/system"
PLAIN = {
    "uid": b"sammy",
    "gid": b"www-data",
    "chdir": b"/srv/place/plain",
    "socket": b"/run/place/plain",
    "chown-socket": b"sammy:www-data",
}
# Units in no order, and the order differs each time.
LISTS = [b"After", b"Before", b"Requires", b"Wants", b"Conflicts", b"RequiresMountsFor"]

wrong = []
count = {"written": 0, "refused": 0}


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def shown(service, socket, name):
    """All that systemd has loaded of the two units, with their own name left out."""
    found = {}
    for kind, unit in [("service", service), ("socket", socket)]:
        for line in output("systemctl", "show", "--all", unit).stdout.split(b"\n"):
            key, _, value = line.partition(b"=")
            value = value.replace(name.encode(), b"NAME")
            if key in LISTS:
                value = b" ".join(sorted(value.split(b" ")))
            found.setdefault("%s %s" % (kind, key.decode()), []).append(value)
    return found


def escaped(value):
    """As newer versions of systemctl show the path of a socket."""
    special = {b: b"\\" + bytes([b]) for b in b"\\\"'"}
    return b"".join(special.get(b, bytes([b]) if 32 <= b < 127 else b"\\%03o" % b) for b in value)


def adopt(label, arguments, written, units, name, plain, place, meant, also):
    """Adopts, and compares what systemd has then with what it has of a plain one."""
    said = output("sockd", "adopt", "--write", *arguments)
    there = [path for path in written if os.path.lexists(path)]
    if said.returncode:
        count["refused"] += 1
        if there:
            wrong.append("%s: refused, and wrote %s" % (label, there))
        elif meant is not None:
            wrong.append("%s: refused: %r" % (label, said.stdout[:300]))
        return None
    count["written"] += 1
    loaded = shown(*units, name)
    if plain is None:
        return loaded
    if meant is None:
        wrong.append("%s: written: %r" % (label, loaded.get(place)))
        return loaded
    differ = [key for key in {**loaded, **plain} if loaded.get(key) != plain.get(key)]
    strange = [key for key in differ if key not in [place, *also]]
    if loaded.get(place) not in ([meant], [escaped(meant)]) or strange:
        wrong.append("%s: %r, and %r" % (label, loaded.get(place), {key: loaded.get(key) for key in strange}))
    return loaded


def site(name, options, plain, place="", meant=None, also=(), directory="/srv/sites"):
    """A site of uWSGI's Emperor."""
    os.makedirs(directory, exist_ok=True)
    ini = os.path.join(directory, name + ".ini")
    lines = [b"[uwsgi]", b"module = a"] + [key.encode() + b" = " + value for key, value in options.items()]
    with open(ini, "wb") as file:
        file.write(b"\n".join(lines) + b"\n")
    units = ["sockd@%s.%s" % (name, kind) for kind in ("service", "socket")]
    written = ["/etc/sockd/%s.toml" % name] + ["%s/%s.d/sockd.conf" % (UNITS, unit) for unit in units]
    return adopt(ini, [ini], written, units, name, plain, place, meant, also)


def uwsgi():
    plain = site("sitebase", PLAIN, None)
    # No odd value is the name of an account: nothing is written, which takes no time.
    for option in ["uid", "gid", "chown-socket"]:
        for number, (value, _) in enumerate(VALUES):
            site("%s%d" % (option.replace("-", ""), number), {**PLAIN, option: value}, plain, "socket Listen", None)
    also = ["service ReadWritePaths", "service RequiresMountsFor", "socket RequiresMountsFor"]
    for number, (value, meant) in enumerate(VALUES):
        for option, prefix, key, end in [
            ("chdir", b"/srv/place/", "service WorkingDirectory", b""),
            ("socket", b"/run/place/", "socket Listen", b" (Stream)"),
        ]:
            if meant and option == "chdir":
                os.makedirs(prefix + meant, exist_ok=True)
            options = {**PLAIN, option: prefix + value}
            site("%s%d" % (option, number), options, plain, key, meant and prefix + meant + end, also)
    # The file's own place.
    for number, (part, meant) in enumerate(
        [("a b", True), ("a%i", True), ("a$b", True), ('a"b', True), ("a\\b", True), ("a\nUser=root", False), ("a\r", False)]
    ):
        options = {**PLAIN, "uid": b"root"}
        directory = "/srv/sites/" + part
        site("place%d" % number, options, plain, "service User", b"root" if meant else None, directory=directory)
        path = "/etc/sockd/place%d.toml" % number
        if meant and os.path.exists(path):
            with open(path, "rb") as file:
                command = tomllib.load(file)["command"]
            if command[1:] != ["--ini", "%s/place%d.ini" % (directory, number)]:
                wrong.append("%s: %r" % (path, command))


def services(php):
    """The socket units that `adopt --socket` makes of what a server's own file says."""
    os.makedirs("/srv/own", exist_ok=True)
    with open("/usr/local/bin/puma", "w") as file:
        file.write("#!/bin/sh\nexec sleep infinity\n")
    os.chmod("/usr/local/bin/puma", 0o755)
    pool = b"[www]\nuser = www-data\npm = static\npm.max_children = 1\nlisten = %s\n"
    servers = [("php", php + " --nodaemonize --fpm-config %s", pool), ("puma", "/usr/local/bin/puma -C %s", b"bind 'unix://%s'\n")]
    values = [b"plain", *HOSTILE, b"sa m", b"sa%m", b"sa%%m", b"sa%im"]
    cases = [(server, number, value) for server in servers for number, value in enumerate(values)]
    for (server, command, text), number, value in cases:
        config = "/srv/own/%s%d.conf" % (server, number)
        with open(config, "wb") as file:
            file.write(text.replace(b"%s", b"/run/place/" + value))
        with open("%s/%s%d.service" % (UNITS, server, number), "w") as file:
            file.write("[Service]\nUser=www-data\nExecStart=%s\n" % (command % config))
    output("systemctl", "daemon-reload")
    for (server, _, _), number, value in cases:
        name = "%s%d" % (server, number)
        if number == 0:
            plain = None
        written = ["%s/%s.socket" % (UNITS, name), "%s/%s.service.d/sockd.conf" % (UNITS, name)]
        units = [name + ".service", name + ".socket"]
        meant = b"/run/place/" + value + b" (Stream)" if value in values[-4:] else None
        loaded = adopt("%s %r" % (name, value), ["--socket", name], written, units, name, plain, "socket Listen", meant, ["socket RequiresMountsFor"])
        plain = plain or loaded


if sys.argv[1] == "sites":
    uwsgi()
else:
    services(sys.argv[2])
for line in wrong:
    print(line)
print("%(written)d written, %(refused)d refused" % count)
