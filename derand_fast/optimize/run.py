"""One optimiser call: its point, its history, its ways to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from derand_fast.budget import Budget
from derand_fast.kernels.lanczos import LanczosResult
from derand_fast.optimize.certificate import (
    Collapse,
    CurvatureOracle,
    Facts,
    assemble,
    describe_certificate,
    has_weights,
    measure_collapse,
    objective_note,
    weight_norm,
)
from derand_fast.optimize.evaluation import (
    Evaluator,
    Point,
    Stopped,
    check_objective,
    check_symmetry,
    checked_start,
    first_point,
)
from derand_fast.optimize.options import Options, check_options
from derand_fast.optimize.result import OptimizationRow, SOSPResult, Status
from derand_fast.optimize.scipy_bridge import (
    ScipyKeywords,
    as_objective,
    call_back,
    chosen_rho,
)
from derand_fast.optimize.vectors import dot, norm, random_unit

__all__ = ["Run", "optimise", "start_run"]

# Sums of up to a million terms of the size of f carry about sqrt(1e6) units in the last place.
_VALUE_NOISE = 1e3 * float(np.finfo(np.float64).eps)
# Where f falls to nearly 0, it may still be the difference of sums of the size of f at the start.
_START_NOISE = 10.0 * float(np.finfo(np.float64).eps)
# Rows kept before every second gradient step is dropped.
_HISTORY_ROWS = 20_000
# Products of the power iteration that makes the first guess of the gradient-Lipschitz constant.
_POWER_STEPS = 8


class _History:
    """All rows but gradient steps; of these every stride-th, the stride doubling as they come."""

    def __init__(self) -> None:
        self.rows: list[OptimizationRow] = []
        self.last: OptimizationRow | None = None
        self._stride = 1

    def add(self, row: OptimizationRow) -> None:
        self.last = row
        if row.step == "gradient" and row.iteration % self._stride:
            return
        self.rows.append(row)
        if len(self.rows) >= _HISTORY_ROWS:
            self._stride *= 2
            self.rows = [
                row
                for row in self.rows
                if row.step != "gradient" or row.iteration % self._stride == 0
            ]

    def measured(self, lambda_min: float) -> None:
        """Note the curvature at the last point."""
        assert self.last is not None
        row = self.last._replace(lambda_min=lambda_min)
        if self.rows and self.rows[-1].iteration == row.iteration:
            self.rows.pop()
        self.rows.append(row)
        self.last = row

    def finish(self) -> tuple[OptimizationRow, ...]:
        """Return the rows, the last one among them."""
        if self.last is not None and self.rows[-1] is not self.last:
            self.rows.append(self.last)
        return tuple(self.rows)


class Run:
    """State of one call; a method drives it with `accept` and `certificate`.

    Parameters
    ----------
    method : str
        Its name, for the report.
    objective : Objective
        Not checked yet.
    x0 : (n,) array
        Start.
    options : Options
        Checked.
    display : bool
        Print the result.
    """

    def __init__(
        self, method: str, objective: Any, x0: ArrayLike, options: Options, display: bool = False
    ) -> None:
        check_objective(objective)
        self.method = method
        self.options = options
        self.display = display
        self.budget = Budget(options.time_limit)
        self.evaluator = Evaluator(objective, self.budget)
        self.n = self.evaluator.n
        seeds = np.random.SeedSequence(options.seed)
        probe, curvature, self._bias_seeds, perturbation = seeds.spawn(4)
        self.generator = np.random.default_rng(perturbation)
        self._has_weights = has_weights(objective)
        share = 0.5 if self._has_weights else 1.0
        self.oracle = CurvatureOracle(self.evaluator, share * options.delta, curvature)
        self.point = first_point(self.evaluator, checked_start(x0, self.n, "x0"), "x0")
        check_symmetry(self.evaluator, self.point, np.random.default_rng(probe))
        self.evaluator.watching = True
        self.n_steps = 0
        self.n_escapes = 0
        self._rejected = 0
        self._noise = _START_NOISE * abs(self.point.fun)
        self._lowest = self.point
        self._found: tuple[Point, LanczosResult] | None = None
        self._history = _History()
        self._bar = self._progress_bar()
        self._record("start")

    # --- what a method calls ---

    @property
    def noise(self) -> float:
        """Below this a difference of two values says nothing."""
        return max(self._noise, _VALUE_NOISE * abs(self.point.fun))

    def decrease(self, trial: Point) -> float:
        """f(point) - f(trial); -inf if the trial is not finite.

        Where the two values agree to rounding, their difference is noise; the trapezoid rule on
        the gradients along the step then gives it with an error of K ||step||^3 / 12.
        """
        if not trial.is_finite:
            return -math.inf
        by_values = self.point.fun - trial.fun
        if abs(by_values) > self.noise:
            return by_values
        return -0.5 * dot(self.point.grad + trial.grad, trial.x - self.point.x)

    def accept(self, point: Point, step: str) -> None:
        """Move to a point; ends the run at a limit, or if it is not finite."""
        if not point.is_finite:
            raise Stopped(
                Status.NOT_FINITE,
                f"value {point.fun} and gradient norm {point.grad_norm} after step "
                f"{self.n_steps + 1} ({step}): not finite; this is the last good point",
            )
        self.point = point
        self.n_steps += 1
        self._rejected = self.evaluator.rejected
        if point.fun < self._lowest.fun:
            self._lowest = point
        self._record(step)
        self.check_limit()

    def check_limit(self) -> None:
        """End the run once all steps are used up."""
        if self.n_steps >= self.options.max_iter:
            raise Stopped(Status.MAX_ITERATIONS, f"max_iter = {self.options.max_iter} reached")

    def return_to(self, point: Point) -> None:
        """Go back to an earlier point."""
        self.point = point
        self._record("return")

    def first_gradient_step(self) -> float:
        """Return 1/L, L given or estimated by a few products of a power iteration."""
        if self.options.grad_lipschitz is not None:
            return 1.0 / self.options.grad_lipschitz
        largest = 0.0
        vector = random_unit(self.n, self.generator)
        for _ in range(_POWER_STEPS):
            image = self.evaluator.product(self.point.x, vector)
            length = norm(image)
            if length == 0.0:
                break
            largest = max(largest, length)
            vector = image / length
        return 1.0 / largest if largest > 0.0 else 1.0

    def first_curvature_scale(self) -> float:
        """Return 2/K, the length of a step per curvature; K as given or as the targets imply.

        The targets are tied by curvature_tol = sqrt(K rho).
        """
        options = self.options
        return 2.0 / (options.hess_lipschitz or options.curvature_tol**2 / options.rho)

    def certificate(self, threshold: float) -> LanczosResult:
        """Look for curvature below -threshold at the point, else certify the target there."""
        found = self.oracle(self.point.x, threshold=threshold, eps=self.options.curvature_tol)
        self._found = (self.point, found)
        self._history.measured(found.ritz_value)
        return found

    def no_decrease(self, what: str) -> Stopped:
        """Return the way out of a line search that failed."""
        if self.evaluator.rejected > self._rejected:
            return Stopped(
                Status.NOT_FINITE,
                f"no finite point with a lower value along the {what} in step {self.n_steps + 1} "
                f"({self.evaluator.rejected - self._rejected} trial points were not finite); this "
                "is the last good point",
            )
        return Stopped(
            Status.NO_DECREASE, f"no decrease along the {what}: rounding hides what is left of it"
        )

    # --- what `optimise` calls ---

    def finish(self, status: Status, message: str, *, measure: bool) -> SOSPResult:
        """Assemble the result; with `measure`, look at curvature and ||W|| if not done yet."""
        if status is not Status.CERTIFIED and self._lowest.fun < self.point.fun:
            self.point = self._lowest
            self._history.add(self._row("return"))
        self.evaluator.watching = True
        collapse = None
        if measure:
            try:
                if self._found is None or self._found[0] is not self.point:
                    found = self.certificate(self.options.curvature_tol)
                    if describe_certificate(self.point, found, self.options)[0] == 0:
                        message += "; certified all the same"
                collapse = self._collapse()
            except Stopped as stopped:
                message += f"; {stopped.message}"
        found_here = self._found_here()
        facts = Facts(
            self.method,
            status,
            message + objective_note(self.evaluator.objective),
            self.n_steps,
            self.n_escapes,
            self._history.finish(),
        )
        return assemble(
            facts, self.options, self.evaluator, self.budget, self.point, found_here, collapse
        )

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()

    # --- private ---

    def _found_here(self) -> LanczosResult | None:
        if self._found is not None and self._found[0] is self.point:
            return self._found[1]
        return None

    def _collapse(self) -> Collapse | None:
        if not self._has_weights:
            return None
        found = self._found_here()
        lower = -math.inf if found is None else found.lambda_min_lower
        delta = 0.5 * self.options.delta
        return measure_collapse(self.evaluator, self.point, lower, delta, self._bias_seeds)

    def _record(self, step: str) -> None:
        point = self.point
        self._history.add(self._row(step))
        if self._bar is not None:
            self._bar.set_postfix(
                refresh=False, f=point.fun, grad=point.grad_norm, escapes=self.n_escapes
            )
            self._bar.update(int(step not in ("start", "return")))
        if self.options.callback is not None and step not in ("start", "return"):
            fields: dict[str, Any] = {
                "x": point.x.copy(),
                "fun": point.fun,
                "jac": point.grad.copy(),
                "nit": self.n_steps,
                "grad_norm": point.grad_norm,
                "step": step,
            }
            state = OptimizeResult(**fields)
            if call_back(self.options.callback, state):
                raise Stopped(Status.CALLBACK, "the callback asked to stop")

    def _row(self, step: str) -> OptimizationRow:
        weight = weight_norm(self.evaluator.objective, self.point.x)
        return OptimizationRow(
            self.n_steps,
            self.budget.elapsed(),
            self.point.fun,
            self.point.grad_norm,
            math.nan,
            math.nan if weight is None else weight,
            step,
        )

    def _progress_bar(self) -> Any | None:
        if not self.options.progress:
            return None
        from tqdm import tqdm

        return tqdm(desc=self.method, unit="step")


def start_run(
    method: str,
    objective: Any,
    x0: ArrayLike,
    args: tuple[Any, ...],
    keywords: ScipyKeywords,
    **arguments: Any,
) -> Run:
    """Check everything, whichever way the method was called, and evaluate the start."""
    objective, functions = as_objective(objective, x0, args, keywords)
    arguments["rho"] = chosen_rho(arguments["rho"], keywords, functions)
    if keywords.get("maxiter") is not None:
        arguments["max_iter"] = keywords["maxiter"]
    options = check_options(**arguments)
    return Run(method, objective, x0, options, bool(keywords.get("disp", False)))


def optimise(run: Run, descend: Callable[[Run], LanczosResult]) -> SOSPResult:
    """Let a method drive a run to its end and return what it reached, however it ended.

    Parameters
    ----------
    run : Run
        At its start.
    descend : callable
        Accepts steps until a certificate is found and returns that; leaves by `Stopped` otherwise.

    Raises
    ------
    Exception
        Whatever the objective or the callback raises, with a note that names method, step and
        call, and the result so far as its attribute ``partial_result``.
    """
    try:
        result = _drive(run, descend)
    except KeyboardInterrupt:
        result = run.finish(Status.INTERRUPTED, "interrupted; the best point so far", measure=False)
    except Exception as error:
        partial = run.finish(Status.OBJECTIVE_RAISED, f"{error!r} was raised", measure=False)
        error.add_note(
            f"derand_fast: in {run.method} after {run.n_steps} steps; the best point so far is in "
            "the attribute partial_result of this exception"
        )
        # An exception class with slots cannot carry it.
        with suppress(AttributeError):
            error.partial_result = partial  # type: ignore[attr-defined]
        raise
    finally:
        run.close()
    if run.display:
        print(result)
    return result


def _drive(run: Run, descend: Callable[[Run], LanczosResult]) -> SOSPResult:
    try:
        run.check_limit()
        found = descend(run)
    except Stopped as stopped:
        measure = stopped.status in (Status.MAX_ITERATIONS, Status.NO_DECREASE)
        return run.finish(stopped.status, stopped.message, measure=measure)
    status, message = describe_certificate(run.point, found, run.options)
    return run.finish(status, message, measure=True)
