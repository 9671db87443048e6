"""Compiled kernels on disk, never older than the sources.

Numba's own cache watches the file a function sits in. A constant or a callee changed in another
file leaves old machine code in use, also after an upgrade, and its numbers are wrong without a
word. Here the name of every file holds a digest of the kernel's module, of all modules it imports
from this package, and of the versions of Numba and numpy, so that a change of any of them makes the
file void; what was compiled from other sources is deleted when new files are written. A file holds
one specialisation and is put in place whole: there is no index that could point to something else,
and a file that is damaged in any way is compiled anew.

Files lie where Numba's would: in the folder that NUMBA_CACHE_DIR names, else in ``__pycache__``
beside the sources or, where that cannot be written, in the user's cache folder. Without
NUMBA_CACHE_DIR both are read, so a package that was warmed up by its owner serves users who cannot
write to it. Where nothing can be written kernels are compiled in every process. As with Numba's own
cache, files are pickles: nobody who is not trusted may write to these folders.
"""

import functools
import hashlib
import os
import pickle
import re
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter, time
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

__all__ = [
    "KernelCache",
    "Recorder",
    "Specialisation",
    "cache_folders",
    "is_cacheable",
    "source_digest",
]

_HERE = Path(__file__).resolve().parent
_DIGITS = 16
_IMPORTS = re.compile(rb"derand_fast\.kernels(?:\.(\w+)| +import +\(?([\w\s,]+))")
_PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
# Seconds after which a file that is still being written has no writer any more.
_ABANDONED = 3600.0
# What closures may hold: its repr tells it from all others.
_PLAIN = (bool, int, float, str)
# Settings of Numba that change the machine code of one source.
_SETTINGS = (
    "OPT",
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "LLVM_REFPRUNE_PASS",
)


class Folders(NamedTuple):
    """Where files are looked for, in this order, and where they are written, if anywhere."""

    read: tuple[Path, ...]
    write: Path | None


@functools.cache
def source_digest(module: str) -> str:
    """Digest of what kernels of a module are compiled from, and by; empty without sources.

    That is the module and the modules of this package that it imports, and so on.
    """
    start = module.encode()
    found: dict[bytes, bytes] = {}
    ahead = [start]
    while ahead:
        name = ahead.pop()
        source = _source(name)
        if name in found or not source:
            continue
        found[name] = source
        for one, several in _IMPORTS.findall(source):
            ahead += [one] if one else re.findall(rb"\w+", several)
    if start not in found:  # a frozen application, or a zip file
        return ""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode())
    for name in sorted(found):
        digest.update(name + hashlib.sha256(found[name]).digest())
    return digest.hexdigest()[:_DIGITS]


@functools.cache
def _source(name: bytes) -> bytes:
    path = _HERE / f"{name.decode()}.py"
    return path.read_bytes() if path.is_file() else b""


@functools.cache
def cache_folders() -> Folders:
    """Find the folders, once in a process."""
    # One folder for each place that kernels are installed in, as Numba does it.
    own = f"{_HERE.name}_{hashlib.sha256(os.fsencode(_HERE)).hexdigest()[:_DIGITS]}"
    if config.CACHE_DIR:
        places = [Path(config.CACHE_DIR, own)]
    else:
        user = AppDirs(appname="numba", appauthor=False).user_cache_dir
        places = [_HERE / "__pycache__", Path(user, own)]
    return Folders(tuple(places), next(filter(_is_writable, places), None))


def _is_writable(folder: Path) -> bool:
    """Find out by doing it: permissions do not tell about read-only file systems and the like."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def is_cacheable(function: Callable[..., Any]) -> bool:
    """Whether the sources, and numbers closed over, are all that the function is compiled from."""
    inside = Path(function.__code__.co_filename).resolve().parent == _HERE
    return inside and all(isinstance(value, _PLAIN) for value in _closed_over(function))


def _closed_over(function: Callable[..., Any]) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or ()]


@functools.cache
def _delete_stale_files(folder: Path, module: str) -> None:
    """Delete, once in a process, what this Python has compiled from other sources of a module."""
    digits = rf"[0-9a-f]{{{_DIGITS}}}"
    pattern = re.compile(rf"{module}\..+\.{_PYTHON}-({digits})-{digits}\.nbc")
    for path in folder.glob(f"{module}.*.{_PYTHON}-*.nbc"):
        found = pattern.fullmatch(path.name)
        if found and found[1] != source_digest(module):
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        with suppress(FileNotFoundError):
            if time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


class Specialisation(NamedTuple):
    """A kernel that was made ready for one list of argument types."""

    kernel: str
    signature: str
    # Without those of the kernels that it calls and that were made ready meanwhile.
    seconds: float
    # From disk; else compiled.
    loaded: bool
    # Whether a file of it exists now.
    kept: bool
    # Of that file.
    size: int


class Recorder:
    """Context manager that lists the kernels made ready meanwhile, whatever thread asked."""

    def __init__(self) -> None:
        self.found: list[Specialisation] = []
        # Name, start and seconds of callees of the kernels under way, callers first. Numba makes
        # one ready at a time.
        self._under_way: list[tuple[str, float, float]] = []

    def __enter__(self) -> "Recorder":
        _recorders.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _recorders.remove(self)

    def begin(self, name: str) -> None:
        """Start the clock of a kernel."""
        self._under_way.append((name, perf_counter(), 0.0))

    def end(self, name: str, signature: Any, loaded: bool, path: Path | None) -> None:
        """Stop it."""
        last, start, callees = self._under_way.pop()
        while last != name:  # that one failed
            last, start, callees = self._under_way.pop()
        seconds = perf_counter() - start
        if self._under_way:
            caller, began, others = self._under_way[-1]
            self._under_way[-1] = caller, began, others + seconds
        kept = path is not None and path.is_file()
        size = path.stat().st_size if path is not None and kept else 0
        own = seconds - callees
        self.found.append(Specialisation(name, str(signature), own, loaded, kept, size))


_recorders: list[Recorder] = []


class KernelCache(_Cache):  # type: ignore[misc]  # Numba has no types
    """Files of one function, in the form that Numba's dispatchers and C functions ask for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._module = function.__module__.rpartition(".")[2]
        # "<locals>" in a name is none for a file on Windows.
        self._name = re.sub(r"[<>]", "", f"{self._module}.{function.__qualname__}")
        # Two functions may share a name, one after the other, in one file;
        # likewise the functions that a factory makes of different numbers.
        self._origin = function.__code__.co_firstlineno, _closed_over(function)
        self._enabled = bool(source_digest(self._module))

    @property
    def cache_path(self) -> str | None:
        """The folder that is written to."""
        folder = cache_folders().write
        return None if folder is None else str(folder)

    def enable(self) -> None:
        """Use files."""
        self._enabled = True

    def disable(self) -> None:
        """Do not use files."""
        self._enabled = False

    def flush(self) -> None:
        """Delete the files of this function."""
        if self.cache_path is not None:
            for path in Path(self.cache_path).glob(f"{self._name}.{_PYTHON}-*.nbc"):
                path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None."""
        for recorder in _recorders:
            recorder.begin(self._name)
        name = self._file_name(sig, target_context.codegen())
        if name is None:
            return None
        for folder in cache_folders().read:
            contents = _read(folder / name)
            if contents is not None:
                # Numba would fill its tables of types and functions first, which takes 0.2 s; but
                # finished code needs only the memory functions that it calls.
                rtsys.initialize(target_context)
                result = CompileResult._rebuild(target_context, *contents)
                for recorder in _recorders:
                    recorder.end(self._name, sig, True, folder / name)
                return result
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if there is a place for it."""
        path = self._keep(sig, data)
        for recorder in _recorders:
            recorder.end(self._name, sig, False, path)

    def _keep(self, sig: Any, data: Any) -> Path | None:
        folder = cache_folders().write
        name = self._file_name(sig, data.codegen)
        if folder is None or name is None or data.library.has_dynamic_globals:
            return None
        try:
            _delete_stale_files(folder, self._module)
            _write(folder / name, dumps(data._reduce()))
        except OSError:  # the disk is full, or was unmounted: it is compiled, and that will do
            return None
        return folder / name

    def _file_name(self, sig: Any, codegen: Any) -> str | None:
        """Name of the file for a signature, or None if there can be none."""
        # A function that is passed as an argument has another name in every process.
        if not self._enabled or " at 0x" in str(sig):
            return None
        settings = [str(getattr(config, setting, None)) for setting in _SETTINGS]
        key = repr((self._origin, str(sig), codegen.magic_tuple(), settings))
        digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
        return f"{self._name}.{_PYTHON}-{source_digest(self._module)}-{digest}.nbc"


def _read(path: Path) -> Any:
    """Return what a file holds, or None if it is absent or damaged."""
    try:
        contents = path.read_bytes()
    except OSError:
        return None
    check, body = contents[:32], contents[32:]
    return pickle.loads(body) if hashlib.sha256(body).digest() == check else None


def _write(path: Path, body: bytes) -> None:
    """Put a file in place whole; several processes may do so at once."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(hashlib.sha256(body).digest() + body)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
