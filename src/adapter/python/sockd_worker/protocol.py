"""The protocol between sockd and a template: one JSON object per datagram, parsed here.

  template -> sockd   {"hello": {"gunicorn": …, "python": …, "settings": {…}}}; the settings are those of
                      src/adapter/server_settings.rs
  sockd -> template   {"fork": {"worker": 17, "environment": {…}, "requests": true, "listeners": 2, "probe": true,
                      "group": true}} with the descriptors: the worker's stderr, its scoreboard, where it shows its
                      requests, the listeners, the worker's probe socket, the cgroup.procs of its control group
  sockd -> template   {"place": {"worker": 17}} with one descriptor, the cgroup.procs of that worker's control group:
                      the next command will probably be for this worker. There is no answer
  template -> sockd   {"forked": {"worker": 17, "pid": 1234}} or {"failed": {"worker": 17, "error": …}}
A worker sends the first of these answers itself.

Hooks. What the user's hooks learn of other processes comes in notices, which sockd sends to templates whose settings
say that they follow workers ("follows_workers") or the service ("follows_service"):
  sockd -> template   {"joined": {"worker": 17, "pid": 1234, "hook_state": …}}: another template has forked this worker
  sockd -> template   {"exited": {"worker": 17, "pid": 1234, "hook_state": …, "call": true}}: it was reaped; "call" says
                      whether this template, of all, calls the hook
  template -> sockd   {"noted": {"worker": 17}} answers these two; the next one is sent then
  sockd -> template   {"started": {}}: the sockets are bound; {"end": {}}: no worker is left, and the service ends
  template -> sockd   {"hook_state": …}: what hooks have left in this process, as text, for the templates to come; hello
                      has it, too. The one of a "forked" is what hooks have left in the worker's object
Descriptor 6 says where in the service's life a template begins; it is closed once it is read:
  {"phase": "start", "reload" or "again" (another one for the same code), "hook_state": …,
   "bound": whether there are sockets already, "workers": [{"worker": 17, "pid": 1234, "hook_state": …}]}
Warming (warm.py). The order of messages says which workers come from where:
  sockd -> template   {"warm": {"paths": ["/"], "requests": 20, "host": "localhost", "headers": [["X", "y"]]}}: have a
                      copy of the template answer these requests
  template -> sockd   {"warmed": {"pid": 1234}}: that copy can be used; it waits
  template -> sockd   {"not_warm": {"why": …}}: there is none, or no more. Workers are forked from the template itself
  sockd -> template   {"promote": {}}: workers that are ordered from here on are forked from the copy
  sockd -> template   {"demote": {}}: from here on from the template itself again. The copy ends. There is no answer
A worker speaks to sockd through its NOTIFY_SOCKET: READY=1, X_SOCKD_RETIRE=1. What it shows is on its scoreboard.
"""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Type

CONTROL_FD = 3
LIFE_FD = 6
# Without frills: each page that a spare or a worker touches becomes its own, and what json.loads(), json.dumps() and
# the arithmetic of socket's flags touch came to 200 KB of every worker.
DECODER = json.JSONDecoder()


class BadMessage(Exception):
    """A message that cannot be obeyed; the text is for the log."""


class ForkOrder:
    """One parsed "fork" command and the descriptors that came with it, which it owns."""

    def __init__(self, command: "Dict[str, Any]", descriptors: "List[int]") -> None:
        self.descriptors = descriptors
        self.worker = expect(command, "worker", int)
        self.environment = expect(command, "environment", dict)
        if not all(isinstance(value, str) for value in self.environment.values()):
            raise BadMessage("the environment of worker %d has a value that is not a string" % self.worker)
        self.shows_requests = bool(command.get("requests"))
        self.has_probe = bool(command.get("probe"))
        self.has_group = bool(command.get("group"))
        wanted = 2 + expect(command, "listeners", int) + self.has_probe + self.has_group
        if len(descriptors) != wanted:
            raise BadMessage("worker %d needs %d descriptors, %d came" % (self.worker, wanted, len(descriptors)))
        # Whether this process is in that worker's control group already.
        self.in_place = False
        if not self.sockets:
            raise BadMessage("worker %d would have nothing to serve" % self.worker)

    @property
    def stderr(self) -> int:
        return self.descriptors[0]

    @property
    def scoreboard(self) -> int:
        """The page of memory that the worker shares with sockd."""
        return self.descriptors[1]

    @property
    def sockets(self) -> "List[int]":
        """The public listeners, then the probe socket: all are served alike."""
        return self.descriptors[2:-1] if self.has_group else self.descriptors[2:]

    def give_sockets_away(self) -> None:
        """Somebody else owns them from here on."""
        del self.descriptors[2:2 + len(self.sockets)]

    @property
    def group(self) -> "Optional[int]":
        """The cgroup.procs of the worker's control group, or None."""
        return self.descriptors[-1] if self.has_group else None


def expect(command: "Dict[str, Any]", key: str, kind: "Type[Any]") -> "Any":
    value = command.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadMessage('a command has no proper "%s"' % key)
    return value


class Place:
    """One parsed "place" command: a group to be in, since the next worker will want to be there."""

    def __init__(self, command: "Dict[str, Any]", descriptors: "List[int]") -> None:
        self.worker = expect(command, "worker", int)
        if len(descriptors) != 1:
            raise BadMessage("a place is one descriptor, %d came" % len(descriptors))
        self.group, = descriptors


class Notice:
    """Something that the user's hooks are to know; or the template itself, of its warm copy."""

    OF_COPY = ("warm", "promote", "demote")
    KINDS = ("joined", "exited", "started", "resized", "end") + OF_COPY

    def __init__(self, kind: str, content: "Dict[str, Any]", text: bytes) -> None:
        self.kind = kind
        self.text = text
        self.content = content
        if kind in ("joined", "exited"):
            self.worker, self.pid = expect(content, "worker", int), expect(content, "pid", int)
            self.state, self.call = content.get("hook_state"), bool(content.get("call"))
        elif kind == "resized":
            self.workers = expect(content, "workers", int)


def failed(worker: int, why: str) -> bytes:
    # A path in it may hold bytes that are no text.
    why = why.encode(errors="backslashreplace").decode()
    return json.dumps({"failed": {"worker": worker, "error": why}}).encode()
