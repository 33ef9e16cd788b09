"""How every template begins: its program is compiled beside the imports that all servers need.

What it is for. Compiling the program takes 6 ms, more than anything else that sockd adds to a start, and 1 MB of memory,
which the template would keep. A process of its own does it, on another processor if there is one, and hands over the
code.

What it owns. Descriptor 5, this text, which a Python that is too old for the rest can read; the program is descriptor 4.
What it must never do. Import what a server might have in a version of its own: sys.path is still Python's.
"""

import sys

if sys.version_info < (3, 7):
    sys.exit("sockd needs Python 3.7 or later, and %s is Python %d.%d: make the virtual environment again with a newer one"
             % ((sys.executable,) + sys.version_info[:2]))

import gc
import marshal
import os

BOOT_FD = 5
PROGRAM = "/proc/self/fd/4"


def compile_program():
    with open(PROGRAM, "rb") as source:
        return compile(source.read(), PROGRAM, "exec")


def compile_aside():
    """Fork a process that compiles. Its id, and the file that will bring the code."""
    reader, writer = os.pipe()
    compiler = os.fork()
    if compiler == 0:
        try:
            with open(writer, "wb") as file:
                marshal.dump(compile_program(), file)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    return compiler, open(reader, "rb")


def load_program():
    # It stays open: see run() of template.py.
    os.set_inheritable(BOOT_FD, False)
    compiler, file = compile_aside()
    import json, logging, socket  # noqa: E401, F401
    with file:
        code = file.read()
    _, status = os.waitpid(compiler, 0)
    # Where it failed, the error shows here.
    return compile_program() if status else marshal.loads(code)


# Until the server is imported: see collect_from_here() of template.py.
gc.disable()
exec(load_program())
