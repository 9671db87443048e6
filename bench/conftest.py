"""Tell in the JSON of pytest-benchmark what every row is compared with, and what did not run.

``--benchmark-json FILE`` gets for every row ``case``, ``who`` and ``kind`` (see `harness.cases`),
and threads and cache of the process. ``--outcomes FILE`` gets what was skipped or failed, with the
reasons, and ``--stop-after SECONDS`` skips what has not begun by then.
"""

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from harness.cases import Collected, texts_of
from harness.environment import cache_state, threads

_BEGIN = time.monotonic()
_COLLECTED = {}
_TESTS = {}
_OUTCOMES = []


def pytest_addoption(parser):
    """Add what ``python -m bench run`` asks for."""
    parser.addoption("--outcomes", type=Path, help="write what was skipped or failed to this file")
    parser.addoption("--stop-after", type=float, help="begin no benchmark after so many seconds")


def pytest_configure(config):
    """Look at the cache before kernels are compiled."""
    config.cache_before = cache_state()


def pytest_itemcollected(item):
    """Learn the parameters of every test, also of those that are not run."""
    if not isinstance(item, pytest.Function):
        return
    module = item.module
    collected = _COLLECTED.setdefault(
        item.path, Collected(getattr(module, "OURS", ()), getattr(module, "LIMITS", ()))
    )
    parameters = texts_of(item.callspec.params) if hasattr(item, "callspec") else {}
    collected.add(item.originalname, parameters)
    _TESTS[item.nodeid] = item.path, item.originalname, parameters


def pytest_collection_modifyitems(items):
    """Run the rows of a case one after the other, so that other load meets all of them."""
    cases = {}
    for item in items:
        case = item.nodeid
        if item.nodeid in _TESTS:
            path, function, parameters = _TESTS[item.nodeid]
            case = path, _COLLECTED[path].case(function, parameters, None).case
        cases[item.nodeid] = cases.setdefault(case, len(cases))
    items.sort(key=lambda item: cases[item.nodeid])


def pytest_runtest_setup(item):
    """Leave out what would begin too late."""
    limit = item.config.getoption("--stop-after", None)
    if limit is not None and time.monotonic() - _BEGIN > limit:
        pytest.skip(f"not begun within the {limit:.0f} s of this file")


def pytest_runtest_logreport(report):
    """Keep the reasons."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        _OUTCOMES.append({"what": report.nodeid, "why": reason})
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message.splitlines()[0] if crash else str(report.longrepr)[-200:]
        _OUTCOMES.append({"what": report.nodeid, "why": f"failed: {reason}"})


def pytest_collectreport(report):
    """Keep the reason why a file could not be read."""
    if report.failed:
        last = str(report.longrepr).strip().splitlines()[-1]
        _OUTCOMES.append({"what": report.nodeid, "why": f"failed: {last}"})


def pytest_sessionfinish(session):
    """Write what did not run."""
    path = session.config.getoption("--outcomes", None)
    if path is not None:
        path.write_text(json.dumps(_OUTCOMES), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Name the case of every row, and the state of the process."""
    output_json["derand_fast"] = {
        "threads": threads(),
        "cache": {"before": config.cache_before, "after": cache_state()},
    }
    for row in output_json["benchmarks"]:
        path, function, parameters = _TESTS[row["fullname"]]
        found = _COLLECTED[path].case(function, parameters, row["group"])
        row.update(case=found.case, who=found.who, kind=found.kind, parameters=parameters)
