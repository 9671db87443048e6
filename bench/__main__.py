"""The benchmark harness, from a clone, with the package installed: ``python -m bench run``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_COMMANDS = {
    "run": "run ours and the rivals side by side and write one JSON file",
    "report": "make a page and Markdown tables of such a file",
    "compare": "compare two such files by their ratios to the rivals",
    "paper": "regenerate the figures and claims of the paper, each with a verdict",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    _leave_the_source_tree()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        module = import_module(name)
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_options(command)
        command.set_defaults(run=module.run)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


def _leave_the_source_tree() -> None:
    """Import scripts of this folder, and the installed package: the clone's holds no kernels."""
    kept = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE.parent]
    sys.path[:] = [str(_HERE), *kept]


if __name__ == "__main__":
    sys.exit(main())
