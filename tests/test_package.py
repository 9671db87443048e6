"""The package as a whole: its version, its documents, what its import costs, who imports whom."""

import ast
import dataclasses
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import derand_fast
import derand_fast.kernels

PACKAGE = Path(derand_fast.__file__).parent
KERNELS = Path(derand_fast.kernels.__file__).parent
KERNEL_MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if path.stem != "__init__")


def find_modules():
    """Map the dotted name after ``derand_fast.`` of each module but the kernels to its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "kernels":
            found[".".join(parts).removesuffix("__init__").rstrip(".")] = path
    found.pop("")
    return found


MODULES = find_modules()

# Public functions that users of other packages call: their docstrings have all the sections.
DOCUMENTED = [
    ("derand_fast.maxcut", "max_cut"),
    ("derand_fast.graphs", "as_graph"),
    ("derand_fast.ising", "from_ising"),
    ("derand_fast.ising", "from_qubo"),
    ("derand_fast.generators", "random_graph"),
    ("derand_fast.generators", "torus_grid"),
    ("derand_fast.generators", "planar_union"),
    ("derand_fast.kernels.lanczos", "leftmost_eigenpair"),
]


def run_python(code, *flags, cwd=None):
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        check=False,
    )


def public_objects(module):
    return [getattr(module, name) for name in getattr(module, "__all__", ())]


# --------------------------------------------------------------------------------------------------
# Version and names
# --------------------------------------------------------------------------------------------------


def test_version_is_that_of_the_distribution():
    assert derand_fast.__version__ == importlib.metadata.version("derand-fast")


def test_public_names():
    assert derand_fast.__all__ == sorted(derand_fast.__all__)
    assert {"CutResult", "max_cut", "as_graph"} <= set(derand_fast.__all__)
    for name in derand_fast.__all__:
        assert name in dir(derand_fast)
        assert getattr(derand_fast, name).__name__ == name


def test_names_live_where_all_says():
    for name in MODULES:
        module = importlib.import_module(f"derand_fast.{name}")
        for item in getattr(module, "__all__", ()):
            assert hasattr(module, item), f"{name}.{item}"


def test_unknown_names():
    with pytest.raises(AttributeError, match="'derand_fast' has no attribute 'min_cut'"):
        derand_fast.min_cut  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'min_cut'"):
        exec("from derand_fast import min_cut")


def test_every_subpackage_is_installed():
    """A wheel holds what setup.py lists: compare with the source tree that these tests lie in."""
    source = Path(__file__).parents[1] / "derand_fast"
    if not source.is_dir():
        pytest.skip("the tests lie outside a source tree")
    for path in source.rglob("*.py"):
        name = ".".join(path.relative_to(source.parent).with_suffix("").parts)
        assert importlib.util.find_spec(name.removesuffix(".__init__")), f"{name} is missing"


def test_is_typed():
    assert (PACKAGE / "py.typed").is_file()


# --------------------------------------------------------------------------------------------------
# Documents
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_public_objects_have_docstrings(name):
    module = importlib.import_module(f"derand_fast.{name}")
    assert module.__doc__
    for item in public_objects(module):
        if inspect.isclass(item) or inspect.isroutine(item):
            assert item.__doc__, item


def sections_of(text):
    """Map each heading of a NumPy docstring to its lines."""
    lines = inspect.cleandoc(text).splitlines()
    heads = [k for k in range(1, len(lines)) if lines[k] and set(lines[k]) == {"-"}]
    return {
        lines[k - 1]: lines[k + 1 : after - 1]
        for k, after in zip(heads, [*heads[1:], len(lines) + 1], strict=True)
    }


@pytest.mark.parametrize(("module", "name"), DOCUMENTED)
def test_function_docstrings_have_all_sections(module, name):
    function = getattr(importlib.import_module(module), name)
    sections = sections_of(function.__doc__)
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(sections)
    # Entries of a section start at its margin: "a, b : type" or, in a list, "a, b".
    heads = [line for line in sections["Parameters"] if re.match(r"\w", line)]
    documented = [part.strip() for head in heads for part in head.split(" : ")[0].split(",")]
    assert documented == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_doctests(name):
    # The warning filters of pytest apply: an example that warns fails.
    assert doctest.testmod(importlib.import_module(f"derand_fast.{name}")).failed == 0


@pytest.mark.parametrize("name", ["graphs", "generators", "maxcut"])
def test_there_are_doctests(name):
    assert doctest.testmod(importlib.import_module(f"derand_fast.{name}")).attempted > 0


def test_doctests_of_the_extension_module():
    from derand_fast.kernels import lanczos

    # Cython functions are no Python functions, so testmod passes over them.
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for name in lanczos.__all__:
        text = getattr(lanczos, name).__doc__ or ""
        runner.run(parser.get_doctest(text, vars(lanczos).copy(), name, None, 0))
    assert runner.tries > 0
    assert runner.failures == 0


def test_results_document_every_field():
    for item in (derand_fast.CutResult, derand_fast.CSRGraph):
        for field in dataclasses.fields(item):
            assert re.search(rf"\b{field.name}\b", item.__doc__), field.name


# --------------------------------------------------------------------------------------------------
# Import
# --------------------------------------------------------------------------------------------------


def test_import_is_light():
    done = run_python(
        "import sys, derand_fast\n"
        "heavy = {'numba', 'numpy', 'scipy', 'networkx', 'llvmlite', 'matplotlib', 'tqdm'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "derand_fast.__version__\n"
        "print(sorted(heavy & set(sys.modules)))",
        "-P",
    )
    assert (done.returncode, done.stdout.split("\n")[:2], done.stderr) == (0, ["[]", "[]"], "")


def test_solver_does_not_import_the_extras():
    done = run_python(
        "import sys\n"
        "from derand_fast import max_cut\n"
        "max_cut((3, [(0, 1), (1, 2)], None), sweeps=4)\n"
        "print(sorted({'matplotlib', 'tqdm', 'pandas'} & set(sys.modules)))",
        "-P",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("name", ["max_cut", "as_graph"])
def test_source_tree_without_kernels_says_what_to_do(tmp_path, name):
    """As in a clone of the repository next to an installed wheel: the clone shadows it."""
    clone = tmp_path / "derand_fast"
    shutil.copytree(PACKAGE, clone, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    # -I -S: neither the environment nor .pth files (editable installs) may lend their kernels;
    # the dependencies come from their folders by hand.
    folders = [str(tmp_path), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    done = run_python(
        f"import sys; sys.path[:0] = {folders!r}\n"
        f"import derand_fast\n"
        f"assert derand_fast.__file__.startswith({str(tmp_path)!r})\n"
        f"derand_fast.{name}",
        "-I",
        "-S",
        cwd=tmp_path,
    )
    if name == "as_graph":  # graphs need no kernel
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: derand_fast was imported from its source tree")
    assert "pip install -e ." in message
    assert "python -P" in message


# --------------------------------------------------------------------------------------------------
# Who imports whom
# --------------------------------------------------------------------------------------------------


def absolute_imports(path, *, lazy):
    """Names of derand_fast modules that a file imports, with or without those inside functions.

    Imports under TYPE_CHECKING never run and do not count.
    """
    found = set()

    def visit(node, inside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inside = True
        if not inside or lazy:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} has a relative import"
                found.add(node.module)
                if node.module in ("derand_fast", "derand_fast.kernels"):
                    found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return {name for name in found if name.split(".")[0] in ("derand_fast", "kernels")}


@pytest.mark.parametrize("name", ["__init__", *KERNEL_MODULES])
def test_kernels_import_kernels_only(name):
    for module in absolute_imports(KERNELS / f"{name}.py", lazy=True):
        assert module.startswith("derand_fast.kernels."), module


@pytest.mark.parametrize("name", ["cuts", "gauss_hermite", "lanczos"])
def test_extensions_import_kernels_only(name):
    source = KERNELS / f"{name}.pyx"
    if not source.is_file():
        pytest.skip("the installed package has no .pyx beside its extension")
    text = source.read_text(encoding="utf-8")
    for module in re.findall(r"^\s*(?:from|import|cimport)\s+(derand_fast[\w.]*)", text, re.M):
        assert module.startswith("derand_fast.kernels"), module


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_a_second_copy_of_the_kernels(name):
    imported = absolute_imports(MODULES[name], lazy=True)
    assert not {module for module in imported if module.split(".")[0] == "kernels"}


def test_command_and_plot_come_last():
    for name in MODULES:
        room = name.split(".")[0]

        def rooms(lazy, name=name):
            found = absolute_imports(MODULES[name], lazy=lazy)
            return {".".join(module.split(".")[:2]) for module in found}

        if room not in ("cli", "__main__"):
            assert "derand_fast.cli" not in rooms(lazy=True), name
        # Results plot themselves, but load the plotting only then.
        if room != "plot":
            assert "derand_fast.plot" not in rooms(lazy=False), name


def test_imports_at_module_level_form_no_cycle():
    imports = {
        name: {
            module.removeprefix("derand_fast.")
            for module in absolute_imports(MODULES[name], lazy=False)
            if not module.startswith("derand_fast.kernels")
        }
        & set(MODULES)
        for name in MODULES
    }
    settled = set()
    while len(settled) < len(imports):
        ready = {name for name, needs in imports.items() if needs <= settled} - settled
        assert ready, f"cycle among {sorted(set(imports) - settled)}"
        settled |= ready
