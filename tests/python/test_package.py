"""The package sockd_worker as Python's tools see it, and what modules.json says of it."""

import ast
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

from fake_sockd import MODULES, PROGRAMS, SCRIPTS, STANDARD_LIBRARY, source  # noqa: E402
from test_pythons import supported  # noqa: E402
from test_server_versions import ENVIRONMENTS  # noqa: E402

SERVERS = "sockd_worker/servers/"
# The old servers of tests/run.
RUN = os.path.join(os.path.dirname(__file__), "..", "run")

# Each as the first one of the package that is imported.
IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("sockd_worker")]:
        del sys.modules[loaded]
"""

# Run like a console script, says which of the modules it is called with the server has not imported.
IMPORT_SERVER = """
import sys
script, wanted = sys.argv[1], sys.argv[2:]
sys.argv[:] = [script, "--help"]
try:
    exec(open(script).read())
except SystemExit:
    pass
print("missing:", [name for name in wanted if name not in sys.modules])
"""


def tree(path):
    return ast.parse(source(path), path)


def own_imports(path):
    """The paths of the modules that a module imports from the package."""
    module = tree(path)
    # What is imported for annotations alone is not imported when the program runs.
    module.body = [node for node in module.body if not (
        isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")]
    return imported(module, path)


def imported(module, path):
    """The paths that a module with this path imports from the package."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.split("/")[:-node.level]
            yield "/".join(folder + node.module.split(".")) + ".py"


def packages(path):
    """The paths of the packages that a module is in."""
    folders = path.split("/")[:-1]
    return {"/".join(folders[:count] + ["__init__.py"]) for count in range(1, len(folders) + 1)}


def private_names(path):
    """What a module uses of others whose name says that it is nobody's interface."""
    for node in ast.walk(tree(path)):
        name = None
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("os", "self")
            name = None if own else node.attr
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
        elif isinstance(node, ast.alias):
            name = node.name
        if name and re.fullmatch("_[A-Za-z]\\w*", name):
            yield name


def table(path):
    """The comment that has what a module reaches into, and the versions with which it was tried."""
    found = re.search("^# Reached into, and not documented; tried with ([^:]*):\n((?:#   .*\n)+)",
                      source(path).decode(), re.MULTILINE)
    return found and found.groups()


class Modules(unittest.TestCase):

    def test_a_server_gets_what_it_imports_in_this_order_and_nothing_else(self):
        for server, modules in MODULES.items():
            with self.subTest(server=server):
                needed, waiting = set(), [modules[-1]]
                while waiting:
                    path = waiting.pop()
                    if path not in needed:
                        needed.add(path)
                        waiting += [*own_imports(path), *packages(path)]
                self.assertEqual(needed, set(modules))
                self.assertEqual(len(modules), len(set(modules)))
                for place, path in enumerate(modules):
                    before = {*own_imports(path), *packages(path)} - {path}
                    self.assertLessEqual(before, set(modules[:place]), path)

    def test_no_modules_import_each_other(self):
        rest = {path: set(imported(tree(path), path)) for modules in MODULES.values() for path in modules}
        while True:
            free = {path for path, imports in rest.items() if not imports & set(rest)}
            if not free:
                break
            for path in free:
                del rest[path]
        self.assertEqual(rest, {})

    def test_a_server_ends_with_its_own_module(self):
        for server, modules in MODULES.items():
            self.assertEqual(modules[-1], SERVERS + server.replace("-serve", "") + "_server.py")

    def test_the_standard_library_is_what_every_version_of_the_server_imports(self):
        for scripts in [SCRIPTS, *ENVIRONMENTS]:
            for server, names in STANDARD_LIBRARY.items():
                script = os.path.join(scripts, server)
                with self.subTest(script=script):
                    if os.path.exists(script):
                        done = subprocess.run([os.path.join(scripts, "python"), "-c", IMPORT_SERVER, script, *names],
                                              stdout=subprocess.PIPE, check=True, text=True)
                        self.assertEqual(done.stdout.splitlines()[-1], "missing: []")

    def test_each_can_be_imported_from_the_disk(self):
        paths = sorted({path for modules in MODULES.values() for path in modules})
        names = [path[:-len(".py")].replace("/", ".") for path in paths if not path.endswith("__init__.py")]
        for python in [sys.executable, *supported()]:
            with self.subTest(python=python):
                subprocess.run([python, "-B", "-c", IMPORT_EACH, *names], cwd=PROGRAMS, check=True)


class Private(unittest.TestCase):
    """What is reached into servers."""

    def paths(self):
        paths = {path for modules in MODULES.values() for path in modules if path.startswith(SERVERS)}
        return sorted(paths - {SERVERS + "__init__.py", SERVERS + "gunicorn_settings.py"})

    def test_each_module_has_its_table_with_all_private_names(self):
        for path in self.paths():
            with self.subTest(path=path):
                _, rows = table(path)
                for name in private_names(path):
                    self.assertIn(name, rows)

    def test_the_oldest_version_that_was_tried_is_that_of_tests_run(self):
        with open(RUN) as file:
            oldest = dict(re.findall("([a-z]+)==([0-9.]+)", file.read().split("[oldest]=")[1].split("[debian-12]")[0]))
        for path in self.paths():
            with self.subTest(path=path):
                tried, _ = table(path)
                server = path[len(SERVERS):].split("_")[0]
                self.assertIn("%s %s to " % (server, oldest[server]), tried)


if __name__ == "__main__":
    unittest.main()
