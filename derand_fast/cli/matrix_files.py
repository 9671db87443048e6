"""Files that hold a matrix: NumPy's, SciPy's sparse ones, CSV and Matrix Market."""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

__all__ = ["read_matrix"]

_BROKEN = (ValueError, EOFError, KeyError, csv.Error, zipfile.BadZipFile, zlib.error)


def read_matrix(name: str) -> Any:
    """Read a matrix of finite real numbers; its suffix says how.

    Parameters
    ----------
    name : str
        ``.npy``, or ``.npz`` with one array, of NumPy; ``.npz`` of `scipy.sparse.save_npz`;
        ``.mtx`` of Matrix Market; ``.csv``: numbers with commas between, perhaps below a line of
        names.

    Returns
    -------
    (n, d) ndarray or scipy.sparse.csr_array
        float32 where the file has that, else float64.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds no such matrix; names the file and, where it can, the place.
    """
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in _READERS:
        raise ValueError(f"{name}: the suffix must be one of {', '.join(_READERS)}")
    try:
        matrix = _READERS[suffix](name)
    except _BROKEN as error:
        raise ValueError(f"{name}: not a readable {suffix} file: {error}") from error
    return _checked(name, matrix)


def _read_npy(name: str) -> Any:
    with open(name, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(name: str) -> Any:
    with open(name, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip archive")
    with np.load(name, allow_pickle=False) as arrays:
        if "format" in arrays:
            return scipy.sparse.load_npz(name)
        if len(arrays) != 1:
            raise ValueError(f"it holds {len(arrays)} arrays, not one: {', '.join(arrays)}")
        return arrays[arrays.files[0]]


def _read_csv(name: str) -> Any:
    first, fields = next(_csv_rows(name), (0, [""]))
    names = 0 if all(map(_is_number, fields)) else first
    if next(_csv_rows(name, names), None) is None:
        raise ValueError("it holds no numbers")
    try:
        return np.loadtxt(
            name,
            delimiter=",",
            comments=None,
            quotechar='"',
            skiprows=names,
            ndmin=2,
            encoding="utf-8-sig",
        )
    except ValueError:
        _find_error(_csv_rows(name, names))
        raise


def _csv_rows(name: str, skipped: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty: their numbers, from 1, and their fields."""
    with open(name, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for fields in reader:
            if fields and reader.line_num > skipped:
                yield reader.line_num, fields


def _find_error(rows: Iterator[tuple[int, list[str]]]) -> None:
    """Say in which line the error is; NumPy counts from the first one it reads."""
    width = None
    for line, fields in rows:
        width = len(fields) if width is None else width
        if len(fields) != width:
            raise ValueError(
                f"line {line} and those above differ in columns: {len(fields)}, {width}"
            )
        for field in fields:
            if not _is_number(field):
                raise ValueError(f"line {line}: {field!r} is not a number")


def _read_mtx(name: str) -> Any:
    with open(name, "rb") as file:
        return scipy.io.mmread(file)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[str], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".mtx": _read_mtx,
}


def _checked(name: str, matrix: Any) -> Any:
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{name}: the entries must be real numbers, not {matrix.dtype}")
    if matrix.ndim != 2:
        raise ValueError(f"{name}: a matrix is needed, not an array of shape {matrix.shape}")
    dtype: Any = np.float32 if matrix.dtype == np.float32 else np.float64
    is_sparse: bool = scipy.sparse.issparse(matrix)
    if is_sparse:
        matrix = scipy.sparse.csr_array(matrix, dtype=dtype)
        if not np.isfinite(matrix.data).all():
            raise ValueError(f"{name}: every entry must be finite")
        return matrix
    matrix = np.ascontiguousarray(matrix, dtype=dtype)
    if not np.isfinite(matrix).all():
        row, column = map(int, np.argwhere(~np.isfinite(matrix))[0])
        raise ValueError(
            f"{name}: every entry must be finite; that in row {row + 1}, column {column + 1} is "
            f"{matrix[row, column]}"
        )
    return matrix
