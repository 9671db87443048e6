"""Text files to edge lists: rudy, edge lists and Matrix Market, plain or packed with gzip.

`derand_fast.graphs.as_graph` says which file is read as what. Each reader takes a quick road for
files whose lines have one shape and falls back to a pass line by line, which accepts mixed lines
and knows in which line an error is.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import re
import reprlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["EdgeList", "counts_from_one", "read_file"]

_INT32_MAX = int(np.iinfo(np.int32).max)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EDGE_LIST_SUFFIXES = (".edges", ".edgelist", ".csv", ".tsv")
_COMMENT_MARKS = ("#", "%")
# Python refuses to read integers of more digits than some 4300.
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
# NumPy before 2.4 may read "1.5", "1e3" or a 20-digit number in an integer column as a truncated
# float; a file that holds anything of the kind is left to the line-by-line reader there.
_LOADTXT_TRUNCATES = np.lib.NumpyVersion(np.__version__) < "2.4.0"
_NOT_PLAIN_INTEGER = re.compile(r"[.eEnN]|[0-9]{19}")


class EdgeList(NamedTuple):
    """Checked edges: indices in range, finite float64 weights; loops, zeros and repeats allowed."""

    n: int
    tails: Any
    heads: Any
    weights: NDArray[np.float64]
    labels: tuple[Any, ...] | None = None


def read_file(name: str) -> EdgeList | Any:
    """Read a graph file: an edge list, or for Matrix Market the sparse or dense matrix it holds.

    Parameters
    ----------
    name : str
        Path of the file.

    Returns
    -------
    EdgeList, scipy.sparse matrix or ndarray
        Edge lists are checked; a matrix comes as `scipy.io.mmread` gives it, for the same checks
        as a matrix that was never in a file.

    Raises
    ------
    ValueError
        If the file is empty, malformed or not UTF-8; the message has the line number.
    OSError
        If the file cannot be opened.

    Notes
    -----
    O(size of the file) time and memory; files whose lines are all of one shape are read without a
    Python loop.
    """
    data = Path(name).read_bytes()
    if _is_packed(name):
        data = _decompress(data, name)
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data.strip():
        raise ValueError(f"{name}: the file is empty")
    suffix = _format_suffix(name)
    if suffix == ".mtx" or _has_banner(data):
        return _read_matrix_market(data, name)
    lines = _decode(data, name).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if next(_content_lines(lines), None) is None:
        raise ValueError(f"{name}: the file has comments only, no data")
    if suffix in _EDGE_LIST_SUFFIXES:
        return _read_edge_list(lines, name, suffix)
    return _read_rudy(lines, name)


def counts_from_one(name: str) -> bool:
    """Whether the file numbers its vertices 1..n: rudy and Matrix Market do, edge lists do not.

    Opens the file only where the name does not settle it (an edge-list suffix over a Matrix Market
    banner); raises what opening raises.
    """
    if _format_suffix(name) not in _EDGE_LIST_SUFFIXES:
        return True
    opener = gzip.open if _is_packed(name) else open
    with opener(name, "rb") as file:
        return _has_banner(file.read(32).removeprefix(_BYTE_ORDER_MARK))


def _is_packed(name: str) -> bool:
    return name.lower().endswith(".gz")


def _format_suffix(name: str) -> str:
    """Suffix in lower case, without the .gz of packed files."""
    return os.path.splitext(name.lower().removesuffix(".gz"))[1]


def _has_banner(data: bytes) -> bool:
    return data[:14].lower() == b"%%matrixmarket"


def _decompress(data: bytes, name: str) -> bytes:
    if not data:
        raise ValueError(f"{name}: the file is empty")
    try:
        return gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: not a valid gzip file: {error}") from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}, line {line}: not UTF-8 text ({error.reason})") from error


def _content_lines(lines: Sequence[str], start: int = 0) -> Iterator[tuple[int, str]]:
    """Stripped lines from position start on that are neither blank nor comments, with numbers."""
    for position in range(start, len(lines)):
        line = lines[position].strip()
        if line and not line.startswith(_COMMENT_MARKS):
            yield position + 1, line


def _file_error(name: str, number: int, problem: str) -> ValueError:
    return ValueError(f"{name}, line {number}: {problem}")


def _read_matrix_market(data: bytes, name: str) -> Any:
    from scipy.io import mmread  # slow to import, and only this reader needs it

    try:
        return mmread(io.BytesIO(data))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: not a readable Matrix Market file: {error}") from error


def _load_columns(lines: list[str], start: int, delimiter: str | None) -> Any:
    """Records (u, v, w) of the uniform lines from position start on, or None if they are not.

    The quick road for files of one shape: two plain integers, then a number in all lines or in
    none. It never raises: what it cannot read goes to the line-by-line readers, which either make
    sense of it or say in which line it goes wrong.
    """
    fields = len(lines[start].split(delimiter))
    if fields not in (2, 3):
        return None
    if _LOADTXT_TRUNCATES and any(map(_NOT_PLAIN_INTEGER.search, lines[start:])):
        return None
    columns = [("u", np.int64), ("v", np.int64), ("w", np.float64)][:fields]
    try:
        table = np.loadtxt(
            lines[start:],
            dtype=np.dtype(columns),
            comments=None,
            delimiter=delimiter,
            ndmin=1,
            encoding=None,
        )
    except ValueError:
        return None
    weights = table["w"].copy() if fields == 3 else np.ones(table.size)
    if not np.isfinite(weights).all():
        return None
    return table["u"], table["v"], weights


def _parse_weight(fields: Sequence[str], name: str, number: int) -> float:
    if len(fields) == 2:
        return 1.0
    text = fields[2].strip()
    try:
        if "_" in text or not text.isascii():  # Python syntax, not that of data files
            raise ValueError
        value = float(text)
    except ValueError:
        raise _file_error(name, number, f"weight {reprlib.repr(text)} is not a number") from None
    if not math.isfinite(value):
        raise _file_error(name, number, f"weight {value!r}; weights must be finite")
    return value


# Rudy --------------------------------------------------------------------------------------------


def _read_rudy(lines: list[str], name: str) -> EdgeList:
    n, m, start = _read_rudy_header(lines, name)
    first = next(_content_lines(lines, start), None)
    columns = None if first is None else _load_columns(lines, first[0] - 1, None)
    if columns is not None:
        tails, heads, weights = columns
        inside = min(tails.min(), heads.min()) >= 1 and max(tails.max(), heads.max()) <= n
        if inside and weights.size == m:
            return EdgeList(n, tails - 1, heads - 1, weights)
    return _scan_rudy(lines, start, n, m, name)


def _read_rudy_header(lines: list[str], name: str) -> tuple[int, int, int]:
    number, line = next(_content_lines(lines))
    fields = line.split()
    if len(fields) != 2 or not all(map(_INTEGER.fullmatch, fields)):
        raise _file_error(
            name,
            number,
            f"expected the rudy header 'n m' (two integers), got {reprlib.repr(line)}; edge lists "
            f"need one of the suffixes {', '.join(_EDGE_LIST_SUFFIXES)} and Matrix Market .mtx",
        )
    n, m = map(int, fields)
    if not (0 <= n <= _INT32_MAX) or m < 0:
        raise _file_error(
            name, number, f"the header {line!r} must have 0 <= n <= {_INT32_MAX} and m >= 0"
        )
    return n, m, number


def _scan_rudy(lines: list[str], start: int, n: int, m: int, name: str) -> EdgeList:
    """Line by line: slow, but takes mixed lines and knows where an error is."""
    rows: list[tuple[int, int, float]] = []
    number = start
    for number, line in _content_lines(lines, start):
        if len(rows) == m:
            raise _file_error(name, number, f"more edges than the m = {m} of the rudy header")
        rows.append(_parse_rudy_line(line, n, name, number))
    if len(rows) < m:
        raise _file_error(
            name, number, f"the file ends after {len(rows)} edges; its rudy header says m = {m}"
        )
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)  # vertices < 2**31 are exact in it
    ends = table[:, :2].astype(np.int64) - 1
    return EdgeList(n, ends[:, 0], ends[:, 1], table[:, 2].copy())


def _parse_rudy_line(line: str, n: int, name: str, number: int) -> tuple[int, int, float]:
    fields = line.split()
    if len(fields) not in (2, 3):
        raise _file_error(name, number, f"expected 'i j [w]', got {reprlib.repr(line)}")
    for field in fields[:2]:
        if not _INTEGER.fullmatch(field):
            raise _file_error(name, number, f"vertex {reprlib.repr(field)} is not an integer")
        if not 1 <= int(field) <= n:
            raise _file_error(
                name, number, f"vertex {field} is outside 1..n, n = {n} by the rudy header"
            )
    return int(fields[0]), int(fields[1]), _parse_weight(fields, name, number)


# Edge lists ---------------------------------------------------------------------------------------


def _read_edge_list(lines: list[str], name: str, suffix: str) -> EdgeList:
    number, line = next(_content_lines(lines))
    delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix, "," if "," in line else None)
    columns = _load_columns(lines, number - 1, delimiter)
    if columns is None:
        return _scan_edge_list(lines, delimiter, name)
    tails, heads, weights = columns
    names, ends = np.unique(np.concatenate((tails, heads)), return_inverse=True)
    return EdgeList(
        names.size, ends[: tails.size], ends[tails.size :], weights, tuple(names.tolist())
    )


def _scan_edge_list(lines: list[str], delimiter: str | None, name: str) -> EdgeList:
    """Line by line: slow, but takes any labels and mixed lines, and knows where an error is."""
    position: dict[str, int] = {}  # in order of first appearance
    ends: list[int] = []
    values: list[float] = []
    for number, line in _content_lines(lines):
        fields = line.split(delimiter)
        if delimiter is not None:
            fields = [field.strip() for field in fields]
        if len(fields) not in (2, 3) or not (fields[0] and fields[1]):
            raise _file_error(
                name,
                number,
                f"expected 'u v [w]' split at {_spell(delimiter)}, got {reprlib.repr(line)}",
            )
        values.append(_parse_weight(fields, name, number))
        ends.append(position.setdefault(fields[0], len(position)))
        ends.append(position.setdefault(fields[1], len(position)))
    index = np.array(ends, dtype=np.int64)
    labels: tuple[Any, ...] = tuple(position)
    if all(map(_INTEGER.fullmatch, position)):
        labels, rank = _integer_labels(labels)
        index = rank[index]
    return EdgeList(len(labels), index[::2], index[1::2], np.array(values), labels)


def _integer_labels(texts: tuple[str, ...]) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Labels as increasing ints, and the rank of each text ("7" and "+7" are one vertex)."""
    numbers_read = [int(text) for text in texts]  # of any length, hence no array
    labels = tuple(sorted(set(numbers_read)))
    rank_of = {label: rank for rank, label in enumerate(labels)}
    return labels, np.array([rank_of[number] for number in numbers_read], dtype=np.int64)


def _spell(delimiter: str | None) -> str:
    return {",": "commas", "\t": "tabs"}.get(delimiter or "", "blanks")
