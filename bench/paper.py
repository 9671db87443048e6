"""Regenerate the figures and claims of arXiv 2510.19382, each with what was measured and a verdict.

Every claim has a script that writes a figure and the numbers behind it, and a rule that reads these
numbers. The table goes to standard output and, as claims.md and claims.csv, into the folder.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import describe
from tables import read_csv, write_csv

_HERE = Path(__file__).resolve().parent
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Study:
    """A script, its arguments for a quick and a full run, and the table that it writes."""

    script: str
    table: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and a rule: what was measured, and whether it holds."""

    statement: str
    where: str
    study: str
    rule: Callable[[Rows], tuple[str, bool]]


STUDIES = {
    "toy": Study(
        "toy_example.py", "toy.csv", ("--csv", "{folder}/toy.csv", "--plot", "{folder}/toy.png")
    ),
    "regularisation": Study(
        "figures/regularisation.py",
        "regularisation.csv",
        ("--output", "{folder}"),
        quick=("--hidden", "100", "--seeds", "1", "--time-limit", "5"),
        full=("--hidden", "1000", "--seeds", "1", "--time-limit", "10"),
    ),
    "methods": Study(
        "figures/methods.py",
        "methods.csv",
        ("--output", "{folder}"),
        quick=("--hidden", "50", "--time-limit", "10"),
        full=("--time-limit", "30"),
    ),
    "inputs": Study(
        "figures/inputs.py",
        "inputs.csv",
        ("--output", "{folder}"),
        quick=("--hidden", "20", "--seeds", "1", "--time-limit", "2"),
        full=("--seeds", "2", "--time-limit", "5"),
    ),
    "cut": Study("figures/small_cut.py", "small_cut.csv", ("--output", "{folder}")),
    "rates": Study(
        "rates.py", "rates.csv", ("--csv", "{folder}/rates.csv", "--plot", "{folder}/rates.png")
    ),
    "embedding": Study(
        "embedding_sigma.py",
        "embedding.csv",
        ("--csv", "{folder}/embedding.csv", "--plot", "{folder}/embedding.png"),
    ),
}


def _number(row: dict[str, str], name: str) -> float:
    return float(row[name])


def _toy_collapses(rows: Rows) -> tuple[str, bool]:
    worst = max(_number(row, "w") for row in rows)
    return f"|w| <= {worst:.0e} for {len(rows)} values of lambda", worst <= 1e-6


def _toy_stays(rows: Rows) -> tuple[str, bool]:
    smallest = rows[0]
    w, f = _number(smallest, "w_frozen"), _number(smallest, "f_frozen")
    trained = max(_number(row, "f") for row in rows)
    text = (
        f"lambda {_number(smallest, 'lam'):.0e}: |w| = {w:.2f}, f = {f:.2f} (trained {trained:.0e})"
    )
    return text, w > 0.1 and f > trained


def _trained_biases_collapse(rows: Rows) -> tuple[str, bool]:
    trained = [row for row in rows if row["biases"] == "trained"]
    certified = [row for row in trained if row["certified"] == "True"]
    left = [_number(row, "W_perp") / _number(row, "W_perp_start") for row in certified]
    least = min(_number(row, "lam") for row in certified)
    text = (
        f"{len(certified)} of {len(trained)} runs certified, lambda from {least:.0e}; "
        f"at most {max(left):.0e} of W_perp left"
    )
    return text, len(certified) == len(trained) and max(left) <= 1e-6


def _frozen_biases_stay(rows: Rows) -> tuple[str, bool]:
    small = [r for r in rows if r["biases"] == "frozen" and _number(r, "lam") <= 1e-4]
    left = [_number(row, "W_perp") / _number(row, "W_perp_start") for row in small]
    return f"lambda <= 1e-4: {min(left):.0%} to {max(left):.0%} of W_perp left", min(left) > 0.1


def _methods_collapse(rows: Rows) -> tuple[str, bool]:
    last = {row["method"]: row for row in rows}
    left = {name: _number(row, "W_perp_norm") for name, row in last.items()}
    text = ", ".join(f"{name} {norm:.0e}" for name, norm in left.items())
    return f"||W_perp|| at the end: {text}", all(
        norm <= 1e-3 for name, norm in left.items() if name != "sgd"
    )


def _inputs_violate(rows: Rows) -> tuple[str, bool]:
    def worst(inputs: str, name: str) -> float:
        return max(_number(row, name) for row in rows if row["inputs"] == inputs)

    others = sorted({row["inputs"] for row in rows} - {"gaussian"})
    text = "; ".join(
        f"{inputs}: identity off by {worst(inputs, 'stein_violation'):.0e}, "
        f"up to {worst(inputs, 'collapse'):.0e} of W_perp left"
        for inputs in ("gaussian", *others)
    )
    return text, worst("gaussian", "collapse") <= 1e-6


def _cut_beats_rounding(rows: Rows) -> tuple[str, bool]:
    better = sum(_number(row, "descent") >= _number(row, "expected_rounding") for row in rows)
    optimal = sum(_number(row, "descent") == _number(row, "optimum") for row in rows)
    shares = [_number(row, "descent") / _number(row, "optimum") for row in rows]
    text = (
        f"{better} of {len(rows)} graphs; optimal on {optimal}, at least {min(shares):.3f} of the "
        "optimum"
    )
    return text, better == len(rows) and min(shares) >= 0.878


def _cut_collapses(rows: Rows) -> tuple[str, bool]:
    certified = sum(row["descent_certified"] == "True" for row in rows)
    worst = max(_number(row, "descent_W_norm") for row in rows)
    return f"{certified} of {len(rows)} certified, ||W|| <= {worst:.0e}", worst <= 1e-6


def _slope(method: str, most: float) -> Callable[[Rows], tuple[str, bool]]:
    def rule(rows: Rows) -> tuple[str, bool]:
        slope = next(_number(row, "slope") for row in rows if row["method"] == method)
        return f"slope {slope:.2f} on a problem that nearly attains it", slope <= most + 0.1

    return rule


def _embedding(rows: Rows) -> tuple[str, bool]:
    first, last = rows[0], rows[-1]
    text = (
        f"sigma {_number(first, 'sigma'):.2f} -> {_number(last, 'sigma'):.0e}, largest distortion "
        f"of a norm {_number(last, 'raw'):.0e}"
    )
    return text, _number(last, "sigma") <= 1e-6 and _number(last, "raw") <= 1e-3


CLAIMS = (
    Claim("with a trained bias the weight vanishes", "toy example", "toy", _toy_collapses),
    Claim("with a frozen bias it cannot", "toy example", "toy", _toy_stays),
    Claim(
        "tiny regularisation suffices: W_perp = 0 at second-order stationary points",
        "structure discovery",
        "regularisation",
        _trained_biases_collapse,
    ),
    Claim(
        "without trained biases W_perp stays, unless lambda is large",
        "structure discovery",
        "regularisation",
        _frozen_biases_stay,
    ),
    Claim(
        "any method that attains such a point will do",
        "structure discovery",
        "methods",
        _methods_collapse,
    ),
    Claim("Gaussian inputs matter (open question)", "conclusion", "inputs", _inputs_violate),
    Claim("the descent ends with W = 0", "MAXCUT", "cut", _cut_collapses),
    Claim(
        "the cut is at least what random rounding gives in expectation, 0.878 of the optimum",
        "MAXCUT",
        "cut",
        _cut_beats_rounding,
    ),
    Claim("perturbed gradient descent needs O(rho^-2)", "methods", "rates", _slope("pgd", 2.0)),
    Claim(
        "Hessian descent needs O(rho^-2), with Newton steps O(rho^-1.5)",
        "methods",
        "rates",
        _slope("newton_cg, published", 1.5),
    ),
    Claim(
        "sigma falls to 0 and leaves a matrix that keeps all norms",
        "Johnson-Lindenstrauss",
        "embedding",
        _embedding,
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--output", type=Path, default=Path("paper"), help="folder (paper)")
    parser.add_argument("--budget", choices=("quick", "full"), default="full")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))


def run(arguments: argparse.Namespace) -> int:
    """Run the studies, judge the claims; 0 if all that were judged hold, else 1."""
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        begin = time.perf_counter()
        _run_study(STUDIES[name], arguments.budget, folder)
        seconds[name] = time.perf_counter() - begin
    rows = [_judged(claim, folder, seconds) for claim in CLAIMS if claim.study in seconds]
    write_csv(folder / "claims.csv", rows)
    text = _markdown(rows, sum(seconds.values()))
    (folder / "claims.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(row["holds"] == "yes" for row in rows) else 1


def _run_study(study: Study, budget: str, folder: Path) -> None:
    options = study.arguments + (study.quick if budget == "quick" else study.full)
    command = [sys.executable, str(_HERE / study.script)]
    command += [option.format(folder=folder) for option in options]
    with (folder / f"{Path(study.table).stem}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{study.script} failed; see {log.name}")


def _judged(claim: Claim, folder: Path, seconds: dict[str, float]) -> dict[str, str]:
    study = STUDIES[claim.study]
    measured, holds = claim.rule(read_csv(folder / study.table))
    return {
        "claim": claim.statement,
        "where": claim.where,
        "measured": measured,
        "holds": "yes" if holds else "NO",
        "numbers": study.table,
        "seconds": f"{seconds[claim.study]:.0f}",
    }


def _markdown(rows: list[dict[str, str]], seconds: float) -> str:
    head = "| claim | where | measured | holds | numbers | s |\n|---|---|---|---|---|---:|\n"
    lines = (f"| {' | '.join(cell.replace('|W|', 'W') for cell in row.values())} |" for row in rows)
    return f"{describe()}\n\n{head}" + "\n".join(lines) + f"\n\n{seconds:.0f} seconds in all\n"
