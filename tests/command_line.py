"""What the tests of all commands share: run one, and read what it said."""

import json
import re
import subprocess
import sys

from derand_fast import cli


def run_command(capsys, *arguments):
    """Return status, standard output and standard error of a call."""
    try:
        status = cli.main([*map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def run_process(folder, *arguments, **options):
    """Run ``python -m derand_fast`` there."""
    command = [sys.executable, "-m", "derand_fast", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, text=True, stderr=subprocess.PIPE, timeout=120, **options
    )


def assert_error(outcome, pattern, status=2):
    """Nothing on standard output, one line on standard error, the status."""
    got, out, err = outcome
    assert got == status
    assert out == ""
    assert err.count("\n") == 1
    assert re.match(r"derand-fast: error: ", err)
    assert re.search(pattern, err), err


def parse_strictly(text):
    """Parse JSON without the numbers that it does not know."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)
