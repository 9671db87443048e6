"""Structure discovery: first-layer weights that collapse onto the teacher's directions."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, whole_number
from derand_fast.networks import Network, random_network
from derand_fast.notebook import report_as_html
from derand_fast.objectives.network import NetworkRisk, RuleError
from derand_fast.optimize import SOSPResult, certify, hessian_descent, newton_cg, pgd
from derand_fast.optimize.result import OptimizationRow, Status
from derand_fast.teachers import Teacher

__all__ = ["StructureResult", "StructureRow", "discover_structure"]

FloatArray = NDArray[np.float64]

METHODS: dict[str, Callable[..., SOSPResult]] = {
    "newton_cg": newton_cg,
    "hessian_descent": hessian_descent,
    "pgd": pgd,
}
# A rule is refined until its error at the result is below these shares of f(start) and of rho. A
# coarse one leads to the neighbourhood of the result, where a finer one takes a few steps.
_VALUE_ERROR = 1e-6
_GRADIENT_ERROR = 0.5
_MOST_REFINEMENTS = 8
# Rows of plain stochastic gradient descent lie so far apart that there are few, however many steps.
_SGD_ROWS_GROW = 1.1
# Steps between two looks at the rule's error.
_WATCH_EVERY = 10
# Nodes on each of the teacher's k axes in the first rule.
_FIRST_INSIDE = {1: 64, 2: 20, 3: 10}
# No finer rules than that are descended by.
_MOST_INSIDE = {1: 200, 2: 200, 3: 96}


class StructureRow(NamedTuple):
    """One step: the point it led to."""

    iteration: int
    seconds: float
    fun: float
    W_perp_norm: float
    W_par_norm: float


@dataclass(frozen=True, eq=False)
class StructureResult:
    """What a student has found of its teacher, and what is certified.

    Attributes
    ----------
    W_perp_norm, W_perp_norm_initial : float
        ||W_1 (I - P)||_F at the end and at the start, P the projector on the span of the teacher's
        directions.
    W_par_norm : float
        ||W_1 P||_F at the end.
    singular_values : array
        Of W_1, largest first.
    angle : float
        Largest angle, in radians, between the teacher's subspace and the span of the first k right
        singular vectors of W_1 (pi / 2 where W_1 has a rank below k).
    certificate : SOSPResult
        Whether the point is second-order stationary, both bounds on ||W_perp||, the work done with
        all rules. The block "W" is W_perp in coordinates along and across the teacher's directions.
    lemma_applies : bool
        Whether the inputs are Gaussian. If not, the bounds are still measured at the point, but no
        theorem promises a collapse.
    stein_violation : float
        Relative residual of grad_{W_perp} f = (H_bb + 2 lam I) W_perp at the start: error of the
        rule for Gaussian inputs, else the violation of the lemma's premise. nan without W_perp.
    rule, rule_error
        The rule that the expectations were taken by, in words, and its estimated error at the end.
    network, initial_network : Network
        The student as plain arrays, at the end and at the start.
    teacher : Teacher
    history : tuple of StructureRow
        Norms over iterations.
    method, lam, seed, seconds
        As given, and the wall-clock time.
    """

    W_perp_norm: float
    W_perp_norm_initial: float
    W_par_norm: float
    singular_values: FloatArray
    angle: float
    certificate: SOSPResult
    lemma_applies: bool
    stein_violation: float
    rule: str
    rule_error: RuleError
    network: Network
    initial_network: Network
    teacher: Teacher
    history: tuple[StructureRow, ...]
    method: str
    lam: float
    seed: int
    seconds: float

    @property
    def collapse(self) -> float:
        """||W_perp|| / ||W_perp|| at the start; 0 where there was none."""
        start = self.W_perp_norm_initial
        return self.W_perp_norm / start if start else 0.0

    def predict(self, X: ArrayLike) -> FloatArray:
        """Outputs of the student (N,) at the rows of X (N, d)."""
        return self.network.predict(X)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot units before and after, and norms over iterations. Needs the ``plot`` extra."""
        from derand_fast.plot import plot_structure

        return plot_structure(self, path)

    def _repr_html_(self) -> str:
        """Return the report for notebooks."""
        return report_as_html("Structure discovery", str(self))

    def __str__(self) -> str:
        """Return a short report for people."""
        certificate = self.certificate
        bounds = [
            f"{bound:.3g} {name}"
            for bound, name in (
                (certificate.collapse_bound, "by its own gradient"),
                (certificate.collapse_bound_apriori, "at any certified point"),
            )
            if bound is not None and self.lemma_applies
        ]
        said = f"  (at most {'; '.join(bounds)})" if bounds else ""
        lemma = "" if self.lemma_applies else "  (inputs not Gaussian: no guarantee of collapse)"
        return "\n".join(
            [
                f"teacher    {self.teacher!r}",
                f"student    widths {self.network.widths}, {self.network.activation}",
                f"||W_perp|| {self.W_perp_norm:.3g}, from {self.W_perp_norm_initial:.3g}{said}",
                f"||W_par||  {self.W_par_norm:.4g}; angle to the teacher {self.angle:.3g} rad",
                f"risk       {certificate.fun:.10g}, by {self.rule}, error about "
                f"{self.rule_error.value:.1g}",
                f"certified  {'yes' if certificate.certified else 'no'}: {certificate.message}",
                f"curvature  at least {certificate.lambda_min_lower:.3g}, gradient "
                f"{certificate.grad_norm:.3g}",
                f"method     {self.method}, lam {self.lam:g}, {self.seconds:.3g} s{lemma}",
            ]
        )


def discover_structure(
    teacher: str | Teacher = "tanh",
    *,
    d: int | None = None,
    hidden: int | Sequence[int] = 100,
    depth: int = 2,
    activation: str = "smooth_relu",
    iota: float = 2.0,
    student: Network | None = None,
    n_indices: int = 1,
    loss: Any = "squared",
    lam: float = 1e-4,
    train: str | Sequence[str] = "first",
    inputs: str | ArrayLike = "gaussian",
    method: str = "newton_cg",
    rho: float = 1e-6,
    curvature_tol: float | None = None,
    rule: str = "auto",
    n_nodes: int | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    n_threads: int | None = None,
    **options: Any,
) -> StructureResult:
    """Train a student network on a teacher's population risk until its structure shows.

    Descends E[loss(student(x), teacher(x))] + lam ||W_1||_F^2 over Gaussian x to a certified
    second-order stationary point. With trained biases the part W_perp of the first layer outside
    the teacher's directions vanishes there.

    Parameters
    ----------
    teacher : str or Teacher
        A `Teacher`, or the name of a link: "tanh", "smooth_relu", "linear", "quadratic", "cubic",
        "sum_of_tanh", "product"; directions are then random.
    d : int, optional
        Dimension of the input; needed where neither teacher nor student says it.
    hidden, depth, activation, iota
        Form of a random student, see `random_network`.
    student : Network, optional
        A student to start from instead.
    n_indices : int
        Directions of a teacher given by name.
    loss, lam, train, inputs, rule, n_nodes
        See `NetworkRisk`.
    method : {"newton_cg", "hessian_descent", "pgd", "sgd"}
        "sgd" is plain stochastic gradient descent on fresh Gaussian samples, for comparison:
        options ``steps`` (20000), ``learning_rate`` (0.05), ``batch_size`` (32), ``progress``.
    rho : float
        Target for the norm of the gradient.
    curvature_tol : float, optional
        Target for the curvature, by default sqrt(rho).
    seed : int
        Of directions, student, rules and methods. The same seed gives the same bits.
    time_limit : float, optional
        Seconds for the descent. The curvature where it has come to is measured afterwards.
    n_threads : int, optional
        Threads at most.
    **options
        Passed to the method: max_iter, callback, progress, ...

    Returns
    -------
    StructureResult

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule.

    Notes
    -----
    Because grad_{W_perp} f = (H_bb + 2 lam I) W_perp, Newton's step in W_perp alone is -W_perp; it
    is tried where f curves upwards along it and taken if f falls. From then on the work is that of
    a problem in k dimensions. The first rule is coarse; where its error outweighs the gradient, or
    its share of the targets at the result, the descent goes on from there with a finer one.

    References
    ----------
    .. [1] K. Tsikouras, A. Pantis, I. Mitliagkas, C. Tzamos, "Derandomization ...", ICLR 2026,
       arXiv 2510.19382, section on structure discovery in neural networks.

    Examples
    --------
    >>> from derand_fast import discover_structure
    >>> result = discover_structure("tanh", d=4, hidden=12, lam=1e-3, seed=1)
    >>> result.certificate.certified, result.collapse < 1e-6
    (True, True)
    """
    start_time = perf_counter()
    name = method.replace("-", "_") if isinstance(method, str) else method
    if name not in METHODS and name != "sgd":
        raise ValueError(f"method must be one of {', '.join(METHODS)}, sgd; got {method!r}")
    seed = whole_number("seed", seed, 0)
    teacher, student = _pair(teacher, student, d, hidden, depth, activation, iota, n_indices, seed)
    risk = NetworkRisk(
        student,
        teacher,
        loss=loss,
        lam=lam,
        train=train,
        rule=rule,
        n_nodes=n_nodes,
        n_inside=None if name == "sgd" else _FIRST_INSIDE.get(teacher.n_indices),
        inputs=inputs,
        seed=seed,
        n_threads=n_threads,
    )
    first = risk.start
    recorder = _Recorder(risk, start_time, options.pop("callback", None))
    recorder.add(first, risk.value(first), 0)
    violation = risk.stein_violation(first)
    if name == "sgd":
        x = _sgd(risk, recorder, time_limit, **options)
        certificate = certify(risk, x, rho=rho, curvature_tol=curvature_tol, seed=seed)
        error = risk.rule_error(x)
    else:
        risk, certificate, error = _descend(
            METHODS[name],
            risk,
            recorder,
            {"rho": rho, "curvature_tol": curvature_tol, "seed": seed, **options},
            time_limit,
        )
    return _summarise(
        risk, certificate, error, violation, recorder, name, seed, perf_counter() - start_time
    )


def _pair(
    teacher: str | Teacher,
    student: Network | None,
    d: int | None,
    hidden: int | Sequence[int],
    depth: int,
    activation: str,
    iota: float,
    n_indices: int,
    seed: int,
) -> tuple[Teacher, Network]:
    """Settle teacher and student."""
    if student is not None and not isinstance(student, Network):
        raise TypeError(f"student must be a Network, not {type(student).__name__}")
    if not isinstance(teacher, Teacher):
        if d is None:
            if student is None:
                raise ValueError("give the dimension d, a Teacher or a student")
            d = student.widths[0]
        teacher = Teacher(teacher, d=d, n_indices=n_indices, seed=seed)
    elif d is not None and d != teacher.d:
        raise ValueError(f"d must be the teacher's dimension {teacher.d}, got {d}")
    if student is None:
        student = random_network(
            teacher.d, hidden, depth=depth, activation=activation, iota=iota, seed=seed + 1
        )
    return teacher, student


class _Recorder:
    """Norms over iterations; serves as callback of a method and calls the user's own."""

    def __init__(
        self, risk: NetworkRisk, start: float, callback: Callable[..., object] | None
    ) -> None:
        self.rows: list[StructureRow] = []
        self._risk, self._start, self._callback = risk, start, callback
        self._last: FloatArray | None = None

    def add(self, x: FloatArray, fun: float, iteration: int) -> None:
        inside, outside = self._risk.first_layer(x)
        self.rows.append(
            StructureRow(
                iteration,
                perf_counter() - self._start,
                float(fun),
                float(np.linalg.norm(outside)),
                float(np.linalg.norm(inside)),
            )
        )

    def __call__(self, intermediate_result: Any) -> object:
        self.add(intermediate_result.x, intermediate_result.fun, len(self.rows))
        if self._callback is None:
            return None
        return self._callback(intermediate_result)


class _Watch:
    """Callback of one descent: ends it where the rule's error outweighs the gradient.

    From there on the steps would serve the nodes, not the risk. With few nodes and weights that
    nothing holds back they lead far away.
    """

    def __init__(self, finer: NetworkRisk, recorder: _Recorder) -> None:
        self.finer = finer
        self.is_coarse = False
        self._recorder, self._steps = recorder, 0

    def __call__(self, intermediate_result: Any) -> object:
        state = intermediate_result
        stop = self._recorder(state)
        self._steps += 1
        if not stop and self._steps % _WATCH_EVERY == 0:
            _, gradient = self.finer.value_and_grad(state.x)
            error = float(np.linalg.norm(gradient - state.jac))
            self.is_coarse = error > _GRADIENT_ERROR * state.grad_norm
        return stop or self.is_coarse


def _descend(
    method: Callable[..., SOSPResult],
    risk: NetworkRisk,
    recorder: _Recorder,
    options: dict[str, Any],
    time_limit: float | None,
) -> tuple[NetworkRisk, SOSPResult, RuleError]:
    """Descend, with finer rules as long as the rule's error is too large for the targets."""
    begin = perf_counter()
    x, scale = risk.start, max(abs(recorder.rows[0].fun), 1.0)
    legs: list[SOSPResult] = []
    for refinement in range(_MOST_REFINEMENTS + 1):
        left = None if time_limit is None else max(time_limit - (perf_counter() - begin), 1e-3)
        finer = risk.refined() if risk.gaussian and refinement < _MOST_REFINEMENTS else None
        if finer and finer.n_inside > _MOST_INSIDE.get(risk.teacher.n_indices, risk.n_inside):
            finer = None
        watch = _Watch(finer, recorder) if finer else None
        result = method(risk, x, callback=watch or recorder, time_limit=left, **options)
        legs.append(result)
        error = risk.rule_error(result.x)
        fine = error.value <= _VALUE_ERROR * scale and error.gradient <= (
            _GRADIENT_ERROR * options["rho"]
        )
        # Where rules differ by more than rounding, no step may seem to lead down.
        over = not result.certified and result.status != Status.NO_DECREASE
        over = over and not (watch and watch.is_coarse)
        if fine or over or watch is None:
            break
        risk, x = watch.finer, result.x
    if result.status == Status.TIME_LIMIT:
        legs.append(_measured(risk, result, options))
    return risk, _joined(legs), error


def _measured(risk: NetworkRisk, result: SOSPResult, options: dict[str, Any]) -> SOSPResult:
    """Say what is known of curvature and ||W|| where time ran out."""
    names = ("rho", "curvature_tol", "seed", "delta")
    known = certify(risk, result.x, **{name: options[name] for name in names if name in options})
    if known.certified:
        found, status = "certified all the same", known.status
    else:
        found, status = known.message, result.status
    return SOSPResult(**{**known, "status": status, "message": f"{result.message}; {found}"})


def _joined(legs: list[SOSPResult]) -> SOSPResult:
    """Return the last result with the work of all."""
    counts = ("nit", "nfev", "njev", "nhev", "n_escapes", "seconds")
    totals: dict[str, Any] = {name: sum(leg[name] for leg in legs) for name in counts}
    rows: list[OptimizationRow] = []
    for leg in legs:
        steps, seconds = (rows[-1].iteration, rows[-1].seconds) if rows else (0, 0.0)
        # The start of a later leg is the end of the one before.
        rows += [
            row._replace(iteration=row.iteration + steps, seconds=row.seconds + seconds)
            for row in leg.history[bool(rows) :]
        ]
    last = {**legs[-1], **totals, "history": tuple(rows), "method": legs[0].method}
    return SOSPResult(**last)


def _sgd(
    risk: NetworkRisk,
    recorder: _Recorder,
    time_limit: float | None,
    *,
    steps: int = 20_000,
    learning_rate: float = 0.05,
    batch_size: int = 32,
    progress: bool = False,
) -> FloatArray:
    """Plain stochastic gradient descent on fresh samples with weight decay in the first layer.

    Evaluating the risk for the history does not count as time of the descent.
    """
    steps = whole_number("steps", steps, 1)
    batch_size = whole_number("batch_size", batch_size, 1)
    learning_rate = finite_number("learning_rate", learning_rate, 0.0)
    random = np.random.default_rng(risk.seed)
    x = risk.start
    seconds, next_row = 0.0, 1
    for step in _with_bar(range(1, steps + 1), progress):
        begin = perf_counter()
        x = x - learning_rate * risk.sample_gradient(x, batch_size, random)[1]
        seconds += perf_counter() - begin
        out_of_time = time_limit is not None and seconds > time_limit
        if step >= next_row or out_of_time or step == steps:
            recorder.add(x, risk.value(x), step)
            next_row = math.ceil(_SGD_ROWS_GROW * step)
        if out_of_time:
            break
    return x


def _with_bar(steps: range, progress: bool) -> Iterable[int]:
    """Return the steps, with a bar that counts them if asked for."""
    if not progress:
        return steps
    if importlib.util.find_spec("tqdm") is None:
        raise ImportError('progress=True needs tqdm: pip install "derand-fast[progress]"')
    from tqdm import tqdm

    bar: Iterable[int] = tqdm(steps, desc="sgd", unit="step")
    return bar


def _angle(W: FloatArray, basis: FloatArray) -> tuple[FloatArray, float]:
    """Singular values of W, and the largest angle of its leading k directions to the basis."""
    _, sizes, directions = np.linalg.svd(W, full_matrices=False)
    k = len(basis)
    if len(sizes) < k or sizes[k - 1] <= np.finfo(np.float64).eps * max(W.shape) * sizes[0]:
        return sizes, 0.5 * math.pi
    # The sine of the angle is accurate where it is small; the cosine would not be.
    leading = directions[:k]
    sine = np.linalg.norm(leading - (leading @ basis.T) @ basis, 2)
    return sizes, math.asin(min(float(sine), 1.0))


def _summarise(
    risk: NetworkRisk,
    certificate: SOSPResult,
    error: RuleError,
    violation: float,
    recorder: _Recorder,
    method: str,
    seed: int,
    seconds: float,
) -> StructureResult:
    network = risk.network(certificate.x)
    inside, outside = risk.first_layer(certificate.x)
    sizes, angle = _angle(network.weights[0], risk.teacher.basis)
    return StructureResult(
        W_perp_norm=float(np.linalg.norm(outside)),
        W_perp_norm_initial=recorder.rows[0].W_perp_norm,
        W_par_norm=float(np.linalg.norm(inside)),
        singular_values=sizes,
        angle=angle,
        certificate=certificate,
        lemma_applies=risk.gaussian,
        stein_violation=violation,
        rule=risk.description,
        rule_error=error,
        network=network,
        initial_network=risk.student,
        teacher=risk.teacher,
        history=tuple(recorder.rows),
        method=method,
        lam=risk.lam,
        seed=seed,
        seconds=seconds,
    )
