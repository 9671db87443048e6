"""Run the benchmarks, ours and the rivals side by side, and write one JSON file.

Every topic is a set of pytest-benchmark files and of scripts that print tables, each in a process
of its own, BLAS on one thread. A rival that is not installed is left out and named in the file.
With ``--budget quick`` every part has a time limit, and the whole ends within five minutes.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness import results
from harness.compared import Comparison, of_rows, of_table, summary
from harness.environment import absent, cache_state, environment, load, threads
from harness.markdown import read_tables
from harness.targets import SHARES, curves, of_gaps, of_targets, profiles, times_to_targets
from harness.topics import TOPICS, Script, Suite, Topic

_HERE = Path(__file__).resolve().parent
# Seconds that a quick run may take in all; parts that would begin later are left out.
QUICK_SECONDS = 285.0
# What a file may take beyond its limit: the row under way, and writing.
_GRACE = 10.0
# How many times its usual limit a part may take where there is time.
_STRETCH = 3.0
# Rivals that rows of pytest-benchmark skip one by one; named once here where they are absent.
_RIVALS = ("dwave.samplers", "sklearn", "jax", "torch")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--data", type=Path, help="folder with maxcut/gset/G1.txt.gz, ...")
    parser.add_argument("--budget", choices=("quick", "full"), default="quick")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), metavar="FILE.json")


def run(arguments: argparse.Namespace) -> int:
    """Run the topics and write the file; 0 if every part that should run did so."""
    unknown = [name for name in arguments.topics if name not in TOPICS]
    if unknown:
        sys.exit(f"no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}")
    if arguments.data is not None and not arguments.data.is_dir():
        sys.exit(f"no folder {arguments.data}")
    if not arguments.output.resolve().parent.is_dir():
        sys.exit(f"no folder {arguments.output.resolve().parent}")
    with tempfile.TemporaryDirectory(prefix="derand_fast_bench_") as scratch:
        runner = Runner(arguments.budget, arguments.data, Path(scratch))
        result = runner.run(arguments.topics or list(TOPICS))
    results.write(arguments.output, result)
    path = arguments.output
    print(f"{path}: {result['seconds']:.0f} s; now: python -m bench report {path}")
    return 1 if any(left["why"].startswith("failed") for left in result["not_run"]) else 0


class Runner:
    """Runs the parts one after the other and gathers what they say."""

    def __init__(self, budget: str, data: Path | None, scratch: Path) -> None:
        self._quick = budget == "quick"
        self._data = data
        self._scratch = scratch
        self._begin = time.monotonic()
        self._not_run: list[dict[str, str]] = []
        self._comparisons: list[Comparison] = []
        self._environment = child_environment()
        # Parts that follow the one under way.
        self._ahead: list[Suite | Script] = []

    def run(self, names: list[str]) -> dict[str, Any]:
        """Return everything that the file holds."""
        machine = environment() | {"threads": threads(self._environment)}
        machine |= {"load_start": load(), "cache_start": cache_state()}
        for package in absent(_RIVALS):
            self._leave_out(package, "not installed: its rows are left out")
        self._ahead = [part for name in names for part in TOPICS[name].parts]
        topics = [self._topic(name, TOPICS[name]) for name in names]
        machine |= {"load_end": load(), "cache_end": cache_state()}
        return {
            "format": results.FORMAT,
            "command": "python -m bench " + " ".join(sys.argv[1:]),
            "budget": "quick" if self._quick else "full",
            "data": "published graphs" if self._data is not None else "generated graphs",
            "seconds": time.monotonic() - self._begin,
            "machine": machine,
            "topics": topics,
            "comparisons": self._comparisons,
            "summary": summary(self._comparisons),
            "not_run": self._not_run,
        }

    def _topic(self, name: str, topic: Topic) -> dict[str, Any]:
        begin = time.monotonic()
        found: dict[str, Any] = {
            "name": name,
            "title": topic.title,
            "rivals": topic.rivals,
            "rows": [],
            "tables": [],
            "parts": [],
        }
        for part in topic.parts:
            print(f"{name}: {part.file} ...", end=" ", file=sys.stderr, flush=True)
            del self._ahead[0]
            started, used = time.monotonic(), children_seconds()
            self._part(part, found)
            spent, used = time.monotonic() - started, children_seconds() - used
            found["parts"].append({"file": part.file, "seconds": spent, "processor": used})
            print(f"{spent:.1f} s, {used:.1f} s of the processor", file=sys.stderr, flush=True)
        compared = list(of_rows(found["rows"]))
        for table in found["tables"]:
            cells = list(of_table(table, table.pop("rules")))
            table["compared"] = len(cells)
            compared += cells
        if "targets" in found:
            compared += of_targets(found["targets"]["times"])
            compared += of_gaps(found["targets"]["runs"])
        self._comparisons += [{"topic": name} | one for one in compared]
        return found | {"seconds": time.monotonic() - begin}

    def _part(self, part: Suite | Script, found: dict[str, Any]) -> None:
        missing = absent(part.needs)
        if self._quick and part.quick is None:
            self._leave_out(part.file, "left out of the quick budget")
        elif missing:
            self._leave_out(part.file, f"not installed: {', '.join(missing)}")
        elif (limit := self._limit(part)) is not None and limit < 1.0:
            self._leave_out(part.file, "the quick budget was spent")
        elif isinstance(part, Suite):
            found["rows"] += self._suite(part, limit)
        else:
            self._script(part, limit, found)

    def _limit(self, part: Suite | Script) -> float | None:
        """Return the share of the seconds left that a part may take; None without a limit."""
        if not self._quick:
            return None
        left = QUICK_SECONDS - (time.monotonic() - self._begin) - _GRACE
        # What a part does not use falls to those that follow.
        ahead = part.limit + sum(one.limit for one in self._ahead if one.quick is not None)
        return min(left * part.limit / ahead, _STRETCH * part.limit)

    # --- files of pytest-benchmark ----------------------------------------------------------------

    def _suite(self, suite: Suite, limit: float | None) -> list[dict[str, Any]]:
        rows, outcomes = self._scratch / "rows.json", self._scratch / "outcomes.json"
        for path in (rows, outcomes):
            path.unlink(missing_ok=True)
        # -P: the clone's package holds no kernels. pytest's cache would be written to the clone.
        command = [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            str(_HERE / suite.file),
            "--benchmark-only",
        ]
        command += ["-q", "-p", "no:cacheprovider", f"--benchmark-json={rows}"]
        command += [f"--outcomes={outcomes}", "--benchmark-disable-gc"]
        if self._quick:
            command += ["-k", suite.quick or "", f"--stop-after={limit}"]
            command += ["--benchmark-max-time=0.1", "--benchmark-min-rounds=3"]
        status, text = self._process(command, None if limit is None else limit + _GRACE)
        if status is None:
            self._leave_out(suite.file, f"stopped after {limit:.0f} s")
        for left in _read_json(outcomes, []):
            self._leave_out(left["what"].removeprefix("bench/"), left["why"])
        # 1: some rows failed and are named above; 5: all were deselected.
        if status is not None and status not in (0, 1, 5):
            self._leave_out(suite.file, f"failed: {_last_line(text)}")
        return [_row(suite.file, row) for row in _read_json(rows, {}).get("benchmarks", [])]

    # --- scripts ----------------------------------------------------------------------------------

    def _script(self, script: Script, limit: float | None, found: dict[str, Any]) -> None:
        options = ((script.quick or "") if self._quick else script.full).split()
        missing = absent(script.rival)
        if missing:
            options += script.without_rival.split()
            self._leave_out(f"rival of {script.file}", f"not installed: {', '.join(missing)}")
        data = self._data.resolve() if self._data is not None else self._scratch / "absent"
        places = {"data": data, "scratch": self._scratch}
        shown = [option.format(data="DATA", scratch=".") for option in options]
        command = [sys.executable, str(_HERE / script.file)]
        command += [option.format_map(places) for option in options]
        status, text = self._process(command, limit)
        if status is None:
            self._leave_out(script.file, f"stopped after {limit:.0f} s; what it printed is kept")
        elif status != 0:
            self._leave_out(script.file, f"failed: {_last_line(text)}")
        # The line about the machine is no title.
        text = "\n".join(line for line in text.splitlines() if " cores, load " not in line)
        for table in read_tables(text):
            table["command"] = " ".join(["python", f"bench/{script.file}", *shown])
            table["script"] = script.file
            table["rules"] = script.compared
            found["tables"].append(table)
        for file, read in _FILES.items():
            path = self._scratch / file
            if path.exists():
                new = read(path)
                found["tables"] += new.pop("tables", [])
                found.update(new)
                path.unlink()

    def _process(self, command: list[str], limit: float | None) -> tuple[int | None, str]:
        """Run a command; return its status, None where it was stopped, and what it printed."""
        path = self._scratch / "output.txt"
        with path.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._scratch,
                env=self._environment,
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if process.poll() is None:
                    # Its own children too.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return status, path.read_text(encoding="utf-8", errors="replace")

    def _leave_out(self, what: str, why: str) -> None:
        if {"what": what, "why": why} not in self._not_run:
            self._not_run.append({"what": what, "why": why})


def child_environment() -> dict[str, str]:
    """Return the environment of the parts: one thread for BLAS, unless the user decided."""
    chosen = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Scripts print as they go, so that a stopped one leaves what it has.
    return chosen | dict(os.environ) | {"PYTHONUNBUFFERED": "1"}


def children_seconds() -> float:
    """Return the processor seconds of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _row(file: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a row of pytest-benchmark."""
    stats = row["stats"]
    parameters = row["parameters"]
    return {
        "file": file,
        "test": row["name"],
        "case": row["case"],
        "who": row["who"],
        "kind": row["kind"],
        "parameters": parameters,
        "seconds": stats["min"],
        "median": stats["median"],
        "rounds": stats["rounds"],
        "threads": parameters.get("n_threads", parameters.get("threads", "1")),
        "extra": {name: _number(value) for name, value in row["extra_info"].items()},
    }


def _number(value: Any) -> Any:
    """Return the number that a text holds, else the value."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _read_json(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


# --- files that scripts write beside their tables -------------------------------------------------


def _targets(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    times = times_to_targets(runs)
    return {
        "targets": {
            "runs": runs,
            "times": times,
            "curves": {f"{share:.1%}": curves(times, share) for share in SHARES},
            "profiles": {f"{share:.1%}": profiles(times, share) for share in SHARES},
        }
    }


def _compiling(path: Path) -> dict[str, Any]:
    measured = json.loads(path.read_text(encoding="utf-8"))
    columns = ["solver", "import s", "cold first call s", "kernels compiled"]
    columns += ["first call from the cache s", "kernels loaded", "next call s"]
    table = {
        "title": "processor seconds of a first call, cache empty and filled",
        "columns": columns,
        "rows": list(_compiling_rows(measured)),
        "command": "python bench/jit_table.py",
        "script": "jit_table.py",
        "rules": (),
    }
    return {"tables": [table]}


def _compiling_rows(measured: dict[str, Any]) -> Iterator[list[str]]:
    for name, runs in measured.items():
        cold, warm = runs["cold"], runs["warm"]
        compiled = sum(row["kind"] == "compile" for row in cold["rows"])
        loaded = sum(row["kind"] == "load" for row in warm["rows"])
        seconds = [warm["import"]["cpu"], cold["first"]["cpu"], warm["first"]["cpu"]]
        seconds.append(warm["second"]["cpu"])
        shown = [f"{value:.3f}" for value in seconds]
        yield [name, shown[0], shown[1], str(compiled), shown[2], str(loaded), shown[3]]


_FILES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "targets.csv": _targets,
    "jit.json": _compiling,
}
