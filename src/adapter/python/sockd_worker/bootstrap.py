"""The start of every template: it compiles the package sockd_worker beside the imports that all need, and runs it.

What it is for. Compiling the package takes 6 ms, more than anything else that sockd adds to a start, and 1 MB of
memory, which the template would keep. A process of its own does it, on another processor if there is one, and hands
over the code.

The package. Descriptor 4 has a line with what the server will import of the standard library, and the modules of the
package that the server needs: for each a line with its path and its length in bytes, then its source. They are executed
in that order and registered in sys.modules, so that each one imports those before it as ever, and nothing is looked for
on a disk.

What it owns. Descriptor 5, this text, which a Python that is too old for the rest can read, and descriptor 4. Both stay
open, close-on-exec: tracebacks read the source through their paths in /proc/self/fd, which would otherwise come to mean
whatever is opened next.

What it must never do. Import what a server might have in a version of its own: sys.path is still Python's.
"""

import sys

if sys.version_info < (3, 7):
    sys.exit("sockd needs Python 3.7 or later, and %s is Python %d.%d: "
             "make the virtual environment again with a newer one" % ((sys.executable,) + sys.version_info[:2]))

import gc  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402

PACKAGE_FD = 4
BOOTSTRAP_FD = 5
PACKAGE = "/proc/self/fd/%d" % PACKAGE_FD


def sources():
    """The path and the source of each module, in the order of their execution."""
    with open(PACKAGE, "rb") as file:
        file.readline()
        while True:
            head = file.readline().split()
            if not head:
                return
            yield head[0].decode(), file.read(int(head[1]))


def name_of(path):
    """The name of a module: sockd_worker.notify for sockd_worker/notify.py."""
    name = path[:-len(".py")].replace("/", ".")
    return name[:-len(".__init__")] if name.endswith(".__init__") else name


def compile_package():
    # Up to Python 3.12 an uncaught exception is shown by C code. That opens whatever has the name of the source's file,
    # and then, in each directory of sys.path, whatever is called like the part behind the last slash. Nothing has such
    # a name.
    # The last number leaves out documentation, which is a seventh of what is handed over.
    return [(path, compile(source, "<sockd>/" + name_of(path), "exec", 0, True, 2)) for path, source in sources()]


def compile_aside():
    """Fork a process that compiles. Its id, and the file that will bring the code; OSError where there can be none."""
    reader, writer = os.pipe()
    try:
        compiler = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if compiler == 0:
        try:
            with open(writer, "wb") as file:
                marshal.dump(compile_package(), file)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    return compiler, open(reader, "rb")


def import_meanwhile():
    """Import what this package and the server will import anyway, while the other process compiles (20 of 45 ms)."""
    import json, logging, socket  # noqa: E401, F401
    # `python -m` imports the server with the current directory before the standard library.
    if sys.argv[1] != "module":
        with open(PACKAGE, "rb") as file:
            for name in file.readline().decode().split():
                __import__(name)


def compiled_package():
    """The path and the code of each module."""
    try:
        compiler, file = compile_aside()
    except OSError:
        # TasksMax= is reached: slower, and without help.
        return compile_package()
    import_meanwhile()
    with file:
        code = file.read()
    _, status = os.waitpid(compiler, 0)
    # Where it failed, the error shows here.
    return compile_package() if status else marshal.loads(code)


class Loader:
    """What tracebacks ask for the source of a module, which is read only then."""

    def get_source(self, name):
        # The application may have closed what it does not know, and opened a pipe: reading that would take for ever.
        if os.readlink(PACKAGE).startswith("/memfd:sockd-template"):
            for path, source in sources():
                if name_of(path) == name:
                    return source.decode()
        return None


def execute(path, code, loader):
    """Register a module and execute it. It has no __file__: a reloader that watches files finds none to watch."""
    name = name_of(path)
    spec = type(sys.__spec__)(name, loader, is_package=path.endswith("/__init__.py"))
    module = type(sys)(name)
    module.__spec__, module.__loader__, module.__package__ = spec, loader, spec.parent
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    sys.modules[name] = module
    exec(code, module.__dict__)
    parent, _, own_name = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own_name, module)
    return module


def run_package():
    """Execute all modules, and call main() of the last one, which is the server's."""
    for fd in (PACKAGE_FD, BOOTSTRAP_FD):
        os.set_inheritable(fd, False)
    loader = Loader()
    for path, code in compiled_package():
        module = execute(path, code, loader)
    module.main()


def show(kind, error, traceback):
    """The excepthook that Python has since 3.13, which asks a Loader for source lines. C code, before, reads files."""
    if sys.stderr is not None:
        from traceback import print_exception
        print_exception(kind, error, traceback)


# Until the server is imported: see collect_from_here() of app_server.py.
gc.disable()
try:
    run_package()
except BaseException:
    # Not before: the application may look whether somebody has set it.
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = show
    raise
