"""The disk cache of kernels: reused, never stale, and no need.

A package of three small files, with the cache and the decorator of the real one, is used, changed
and used again, each time by a new process.
"""

import ast
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config
from numba.core.registry import CPUDispatcher, cpu_target

import derand_fast.kernels
from derand_fast.kernels import _cache
from derand_fast.kernels._cache import KernelCache, cache_folders, is_cacheable, source_digest
from derand_fast.kernels.smoothed_cut import sum_in_blocks

KERNELS = Path(derand_fast.kernels.__file__).parent
MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if path.stem != "__init__")
CONSTANTS = "FACTOR = {}\n"
CALLEE = """
from derand_fast.kernels._jit import kernel
from derand_fast.kernels.constants import FACTOR

@kernel(fastmath=False)
def scaled(x):
    return FACTOR * x
"""
CALLER = """
from numba import types
from derand_fast.kernels._jit import c_function, kernel
from derand_fast.kernels.callee import scaled

@kernel(fastmath=False)
def total(values):
    result = 0.0
    for value in values:
        result += scaled(value)
    return result

def plus_scaled(x):
    return x + scaled(x)

in_c = c_function(types.float64(types.float64), plus_scaled)
"""
USE = """
import json
import numpy as np
import derand_fast.kernels._cache as cache
{before}
from derand_fast.kernels.caller import in_c, total
answer = total(np.arange(4.0))
stats = total.stats
print(json.dumps({{
    "total": answer,
    "in_c": in_c.ctypes(1.0),
    "loaded": [sum(stats.cache_hits.values()), in_c.cache_hits],
    "compiled": sum(stats.cache_misses.values()),
    "folder": str(cache.cache_folders().write),
}}))
"""


@pytest.fixture
def package(tmp_path):
    """A folder to put on the path, with the package in it."""
    kernels = tmp_path / "site" / "derand_fast" / "kernels"
    kernels.mkdir(parents=True)
    for folder in (kernels, kernels.parent):
        (folder / "__init__.py").touch()
    for name in ("_cache.py", "_jit.py"):
        shutil.copy(KERNELS / name, kernels / name)
    (kernels / "constants.py").write_text(CONSTANTS.format("2.0"), encoding="utf-8")
    (kernels / "callee.py").write_text(CALLEE, encoding="utf-8")
    (kernels / "caller.py").write_text(CALLER, encoding="utf-8")
    return kernels


def use(package, before="", **environment):
    """Run the kernels in a new process without a home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NUMBA_") and name not in ("HOME", "XDG_CACHE_HOME")
    }
    # Python's own files of byte code must not take two sources of equal size and time for one.
    kept |= {"PYTHONPATH": str(package.parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE.format(before=before)],
        env=kept | environment,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_of(folder):
    return sorted(path.name for path in Path(folder).glob("*.nbc"))


# --------------------------------------------------------------------------------------------------
# Processes one after the other
# --------------------------------------------------------------------------------------------------


def test_upgrade_of_a_constant_two_files_away(package):
    first = use(package)
    assert (first["total"], first["in_c"], first["loaded"]) == (12.0, 3.0, [0, 0])
    assert first["folder"] == str(package / "__pycache__")
    old = files_of(first["folder"])
    assert len(old) == 3  # total, scaled, plus_scaled

    # Who cannot write uses what the owner of the package has compiled.
    guest = use(package, "cache._is_writable = lambda folder: False")
    assert (guest["total"], guest["in_c"], guest["folder"]) == (12.0, 3.0, "None")
    assert (guest["loaded"], guest["compiled"]) == ([1, 1], 0)

    # Neither size nor modification time tells that the constant is another one.
    constants = package / "constants.py"
    times = constants.stat()
    constants.write_text(CONSTANTS.format("3.0"), encoding="utf-8")
    os.utime(constants, ns=(times.st_atime_ns, times.st_mtime_ns))
    upgraded = use(package)
    assert (upgraded["total"], upgraded["in_c"]) == (18.0, 4.0)
    assert upgraded["loaded"] == [0, 0]
    new = files_of(first["folder"])
    assert len(new) == 3
    assert not set(old) & set(new)  # old code was deleted


def test_where_nothing_can_be_written(package):
    """A file where a folder should be stops everybody, root included."""
    (package / "__pycache__").touch()
    package.chmod(0o555)
    try:
        found = use(package, HOME="/dev/null", XDG_CACHE_HOME="/dev/null")
    finally:
        package.chmod(0o755)
    assert (found["total"], found["in_c"]) == (12.0, 3.0)
    assert (found["loaded"], found["folder"]) == ([0, 0], "None")


# --------------------------------------------------------------------------------------------------
# Digests
# --------------------------------------------------------------------------------------------------


def imported_modules(name):
    """Kernel modules that a kernel module imports, and so on, by Python's own parser."""
    found, ahead = set(), [name]
    while ahead:
        name = ahead.pop()
        path = KERNELS / f"{name}.py"
        if name in found or not path.is_file():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                ahead += [alias.name.removeprefix("derand_fast.kernels.") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "derand_fast.kernels":
                ahead += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                ahead.append(node.module.removeprefix("derand_fast.kernels."))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_digest_sees_every_module_that_is_imported(monkeypatch, name):
    needed = imported_modules(name)
    before = source_digest.__wrapped__(name)
    for other in MODULES:
        source = _cache._source
        changed = other.encode()
        monkeypatch.setattr(
            _cache,
            "_source",
            lambda asked, c=changed, source=source: source(asked) + (b"#" if asked == c else b""),
        )
        after = source_digest.__wrapped__(name)
        monkeypatch.setattr(_cache, "_source", source)
        if other in needed:
            assert after != before, other
    assert source_digest.__wrapped__(name) == before


def test_a_change_leaves_unrelated_modules_alone():
    """Otherwise a developer waits for all kernels after each change."""
    assert "jl" not in imported_modules("maxcut")
    seen = []
    source = _cache._source

    def watched(name):
        seen.append(name.decode())
        return source(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cache, "_source", watched)
        source_digest.__wrapped__("maxcut")
    assert {"maxcut", "_jit", "_cache"} <= set(seen)
    assert "jl" not in seen


# --------------------------------------------------------------------------------------------------
# Folders
# --------------------------------------------------------------------------------------------------


def test_folder_of_the_environment_is_the_only_one(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "new"))
    folders = cache_folders.__wrapped__()
    assert folders.read == (folders.write,)
    assert folders.write.parent == tmp_path / "new"
    assert folders.write.is_dir()


def test_users_folder_serves_where_the_package_cannot_be_written(monkeypatch, tmp_path):
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__pycache__").touch()
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(_cache, "_HERE", package)
    monkeypatch.setattr(_cache, "AppDirs", lambda **names: Anywhere(tmp_path / "user"))
    folders = cache_folders.__wrapped__()
    assert folders.read[0] == package / "__pycache__"
    assert folders.read[1] == folders.write
    assert folders.write.parent == tmp_path / "user"
    # Two installations of the package do not share files.
    monkeypatch.setattr(_cache, "_HERE", tmp_path / "other" / "kernels")
    assert cache_folders.__wrapped__().read[1] != folders.write


class Anywhere:
    def __init__(self, folder):
        self.user_cache_dir = str(folder)


def test_no_files_without_sources(monkeypatch):
    """Frozen applications and zip files: nothing tells one version from the next."""
    monkeypatch.setattr(_cache, "_source", lambda name: b"")
    assert source_digest.__wrapped__("maxcut") == ""


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------


def test_damaged_files_are_not_read(tmp_path):
    path = tmp_path / "file"
    assert _cache._read(path) is None
    _cache._write(path, pickle.dumps("contents"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert _cache._read(path) == "contents"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    # Also empty ones and zeros, as a crash of the machine may leave them.
    for damaged in (b"", whole[:-1], whole[:20], bytes(flipped), bytes(len(whole))):
        path.write_bytes(damaged)
        assert _cache._read(path) is None


def test_failed_writes_leave_nothing(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError):
        _cache._write(tmp_path / "absent" / "file", b"contents")
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _cache._write(tmp_path / "file", b"contents")
    assert list(tmp_path.iterdir()) == []


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_the_cache_only(monkeypatch):
    monkeypatch.setattr(_cache, "_write", full_disk)
    fresh = type(sum_in_blocks)(sum_in_blocks.py_func)
    fresh._cache = KernelCache(sum_in_blocks.py_func)
    monkeypatch.setattr(fresh._cache, "load_overload", lambda *_: None)
    assert fresh(np.arange(4.0)) == 6.0


def test_stale_files_of_this_python_only_are_deleted(tmp_path):
    python = _cache._PYTHON
    kept = [
        f"maxcut.sweep.{python}-{source_digest('maxcut')}-{16 * '1'}.nbc",
        f"maxcut.sweep.py39-{16 * '0'}-{16 * '1'}.nbc",
        f"chebyshev.step.{python}-{16 * '0'}-{16 * '1'}.nbc",
        f"maxcut.sweep.{python}-1.nbc",
        "maxcut.cpython-311.pyc",
    ]
    for name in [*kept, f"maxcut.sweep.{python}-{16 * '0'}-{16 * '1'}.nbc"]:
        (tmp_path / name).touch()
    _cache._delete_stale_files(tmp_path, "maxcut")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_killed_processes_left_is_deleted(tmp_path):
    left, under_way = tmp_path / ".0.tmp", tmp_path / ".1.tmp"
    left.touch()
    under_way.touch()
    os.utime(left, (0.0, 0.0))
    _cache._delete_stale_files(tmp_path, "special")
    assert list(tmp_path.iterdir()) == [under_way]


# --------------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------------


def name_of(function, *signature):
    return KernelCache(function)._file_name(signature, cpu_target.target_context.codegen())


def adder(step):
    def add(x):
        return x + step

    add.__module__ = "derand_fast.kernels.special"
    return add


def test_names_tell_functions_and_settings_apart(monkeypatch):
    function = sum_in_blocks.py_func
    vector = "array(float64, 1d, C)"
    name = name_of(function, vector)
    assert name.startswith("smoothed_cut.sum_in_blocks.")
    assert source_digest("smoothed_cut") in name
    others = [
        name_of(function, "Array(float64, 1, 'C', False, aligned=True)"),  # read-only
        *(name_of(adder(step), vector) for step in (1, 2, 1.0)),
    ]
    # Bounds that are checked are other code from the same source.
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    others.append(name_of(function, vector))
    assert len({name, *others}) == 6
    assert "<" not in "".join(others)
    # The address in a function's name is another one in every process.
    assert name_of(function, "type(CPUDispatcher(<function f at 0x7f85>))") is None


def test_only_what_the_sources_determine_is_cached():
    assert is_cacheable(sum_in_blocks.py_func)
    assert not is_cacheable(adder(1))  # in this file, which the digest does not see
    inside = adder(1)
    inside.__code__ = inside.__code__.replace(co_filename=str(KERNELS / "special.py"))
    assert is_cacheable(inside)
    inside.__closure__[0].cell_contents = max
    assert not is_cacheable(inside)


def test_every_kernel_of_the_package_has_the_cache():
    kernels = 0
    for stem in MODULES:
        module = importlib.import_module(f"derand_fast.kernels.{stem}")
        for name, value in vars(module).items():
            if not isinstance(value, CPUDispatcher) or value.py_func.__module__ != module.__name__:
                continue
            if value.targetoptions.get("inline") != "always":  # never compiled on its own
                kernels += 1
                assert isinstance(value._cache, KernelCache), f"{stem}.{name}"
    assert kernels > 100
