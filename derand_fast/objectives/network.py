"""The population risk of a network that learns from a teacher, as an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.kernels.quadrature import gauss_hermite, sparse_count
from derand_fast.networks import Network
from derand_fast.objectives.input_rules import (
    InputRule,
    corrected_rule,
    distribution_rule,
    inside_rule,
    sample_rule,
    sobol_rule,
    sparse_rule,
    spherical_rule,
    tensor_rule,
)
from derand_fast.objectives.mehler_risk import MehlerRisk
from derand_fast.objectives.node_risk import NodeRisk
from derand_fast.objectives.protocol import Block, Blocks, without_weights
from derand_fast.teachers import Teacher
from derand_fast.threads import thread_count

__all__ = ["NetworkRisk", "RuleError"]

FloatArray = NDArray[np.float64]

RULES = ("auto", "mehler", "tensor", "sparse", "spherical", "sobol")
INPUTS = ("gaussian", "uniform", "rademacher", "student_t")
DEFAULT_NODES = 2**14
# More than this is refused, with the number of bytes.
_MOST_BYTES = 4 * 2**30
# Nodes on each of the k axes of the teacher: the least and the most that are taken unasked.
_INSIDE_NODES = {1: (64, 192), 2: (24, 96), 3: (12, 32)}
# Relative error of the teacher's first two moments at which its axes have enough nodes.
_MOMENT_ERROR = 1e-10
_MOST_MEHLER_INDICES = 3
_MOST_TERMS = 256
# Outside the teacher's directions a tensor rule pays up to this many of them.
_TENSOR_OUTSIDE = 3
_NOISE_NODES = 24
# Up to this many columns H_bb V is cheaper over the nodes than by a dense H_bb, which it takes time
# to form and memory to read.
_FEW_COLUMNS = 4
_STUDENT_DEGREES = 5.0
# Where all nodes inside times the fewest outside are more than so many times the nodes aimed at,
# fewer inside serve where W_perp is not 0.
_MOST_TIMES_BUDGET = 4
_LEAST_COARSE = 4


class RuleError(NamedTuple):
    """Estimated error of a rule at a point: of the value, and of the gradient's norm."""

    value: float
    gradient: float


class _Plan(NamedTuple):
    """A rule in words, whether it is right at W_perp = 0, and how to make it."""

    description: str
    product: bool
    make: Callable[[], InputRule]  # pickled with the risk


def _given(rule: InputRule) -> InputRule:
    return rule


def _corrected(make: Callable[[], InputRule], coarse: int, fine: int, k: int) -> InputRule:
    return corrected_rule(make(), inside_rule(coarse, k), inside_rule(fine, k))


class NetworkRisk:
    """f = E[loss(student(x), teacher(x))] + lam ||W_1||_F^2 over Gaussian x, in a student's layers.

    The input is rotated so that x = (u, v): u the k directions of the teacher, v the others. The
    first layer splits accordingly, W_1 x = W_par u + W_perp v, and f = E_v[g(W_perp v + b_1)] +
    lam ||W_perp||^2 with g the average over u. So the derandomization lemma speaks of W_perp, which
    is the block "W" here: grad_W f = (H_bb + 2 lam I) W, and at second-order stationary points
    W_perp = 0: the student looks only where the teacher does.

    Parameters
    ----------
    student : Network
        Form of the network; values of what is not trained; the start.
    teacher : Teacher
        Of the same dimension d.
    loss : {"squared", "logistic", "pseudo_huber"} or tuple of functions
        (student - y)^2; log(1 + exp(-y student)) with labels y = +-1, P(y = 1) = 1 / (1 +
        exp(-teacher)); or sqrt(1 + (student - y)^2) - 1. Or three ``numba.njit`` functions of
        (output, y): the loss and its first two derivatives in the output.
    lam : float
        Weight of ||W_1||_F^2, not negative.
    train : sequence of str, "first" or "all"
        Trained parts, such as ("W1", "b1", "W2"); W1 among them. "first" is ("W1", "b1").
    rule : {"auto", "mehler", "tensor", "sparse", "spherical", "sobol"}
        How expectations are taken. "mehler": no nodes, exact up to the truncation of a series, for
        two layers, squared loss and k <= 3. "tensor", "sparse", "spherical": Gauss-Hermite nodes in
        u, times Gauss-Hermite, sparse-grid or randomly rotated points of degree 3 in v. "sobol":
        scrambled Sobol points. "auto" takes the first of mehler (but for d = 2 where b1 is not
        trained), tensor, spherical that fits.
    n_nodes : int, optional
        Nodes aimed at, by default 16384.
    n_inside : int, optional
        Gauss-Hermite nodes on each axis of u; by default at least 64, 24 or 12 for
        k = 1, 2, 3, and up to 192, 96 or 32 for steep links.
    inputs : str or (N, d) array
        "gaussian"; or "uniform", "rademacher", "student_t" (5 degrees of freedom), of variance 1;
        or samples to average over. For all but "gaussian" the lemma's guarantee does not apply.
    seed : int
        Of random points.
    n_threads : int, optional
        Threads at most, by default all usable cores; the bits do not depend on it.

    Attributes
    ----------
    n_params : int
        Number of trained parameters. x = (W_perp row by row, b_1, W_par, W_2, b_2, ...), trained
        parts only.
    blocks : mapping
        "W" (h, d - k) is W_perp, "b" (h,), "theta" the rest.
    lam, student, teacher, rule, description, gaussian
        As given or chosen; ``description`` says the rule in words.
    start : (n_params,) array
        The student's own parameters.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, dimensions differ, a link is not finite, or the nodes would
        need too much memory (says how many).

    Notes
    -----
    Where W_perp is exactly 0 everything reduces to k dimensions, exactly: W_perp enters the value
    and the Hessian by its second moments only, so grad_{W_perp} = 0 and the Hessian is that of the
    k-dimensional risk beside I kron (H_bb + 2 lam I). Then a product costs O(inside^k h) (two
    layers), whatever d; before, O(N x number of parameters) with N nodes, or O(h^2 terms) with
    "mehler". Memory: the nodes, 8 N (d + 2) bytes, and a few vectors.

    Examples
    --------
    >>> from derand_fast.networks import random_network
    >>> from derand_fast.objectives import NetworkRisk
    >>> from derand_fast.teachers import Teacher
    >>> f = NetworkRisk(random_network(5, 8), Teacher("tanh", d=5), lam=0.01)
    >>> f.rule, f.n_params, f.blocks["W"].shape
    ('mehler', 48, (8, 4))
    """

    def __init__(
        self,
        student: Network,
        teacher: Teacher,
        *,
        loss: Any = "squared",
        lam: float,
        train: str | Sequence[str] = "first",
        rule: str = "auto",
        n_nodes: int | None = None,
        n_inside: int | None = None,
        inputs: str | ArrayLike = "gaussian",
        seed: int = 0,
        n_threads: int | None = None,
    ) -> None:
        if not isinstance(student, Network):
            raise TypeError(f"student must be a Network, not {type(student).__name__}")
        if not isinstance(teacher, Teacher):
            raise TypeError(f"teacher must be a Teacher, not {type(teacher).__name__}")
        if student.widths[0] != teacher.d:
            raise ValueError(
                f"student and teacher must have one dimension; got {student.widths[0]} and "
                f"{teacher.d}"
            )
        self.student, self.teacher = student, teacher
        self.loss = loss
        self._is_squared = isinstance(loss, str) and loss == "squared"
        self._is_logistic = isinstance(loss, str) and loss == "logistic"
        self.lam = finite_number("lam", lam, 0.0)
        self.n_threads = thread_count(n_threads)
        self.seed = whole_number("seed", seed, 0)
        self._k = teacher.n_indices
        self._rotation = _rotation(teacher.basis)
        self._layout = _Layout(student, self._k, _trained(train, student.depth))
        self.n_params = self._layout.n_params
        self.blocks: Mapping[str, Block] = Blocks(self._layout.blocks)
        self._frozen = self._rotated(student).flat()
        self.n_inside = (
            _enough_inside(teacher) if n_inside is None else whole_number("n_inside", n_inside, 1)
        )
        budget = DEFAULT_NODES if n_nodes is None else whole_number("n_nodes", n_nodes, 1)
        self._budget = budget
        self.gaussian = isinstance(inputs, str) and inputs == "gaussian"
        self.rule = self._choose_rule(rule)
        self._engine_made: Any = None
        self._inside: Any = None
        self._inside_biases: Any = None
        self._bias: tuple[bytes, FloatArray] | None = None
        # None: a series, of so many terms.
        self._plan = None if self.rule == "mehler" else self._planned(inputs)
        self._terms: int | str = "auto"
        if self._plan is not None and not self._plan.product:
            return
        # At W_perp = 0 nodes in k dimensions are the fastest, also beside a series.
        inside = inside_rule(self.n_inside, self._k)
        only_biases = tuple(place == 1 for place in range(2 * student.depth))
        self._inside = self._rule_risk(inside, self._layout.active)
        self._inside_biases = self._rule_risk(inside, only_biases)

    def __repr__(self) -> str:
        return (
            f"NetworkRisk(widths={self._widths()}, {self.teacher!r}, lam={self.lam:g}, "
            f"{self.description})"
        )

    @property
    def description(self) -> str:
        """The rule in words."""
        if self._plan is None:
            return f"Mehler series of {self._terms_taken} terms"
        return self._plan.description

    # ---------------------------------------------------------------- parameters

    @property
    def start(self) -> FloatArray:
        """The student's own parameters as a point."""
        return self._layout.pack(self._frozen)

    def network(self, x: ArrayLike) -> Network:
        """Return the network at x, in the coordinates of the input as the user knows them."""
        full = self._full("x", x)
        d, h = self._widths()[:2]
        rotated = full[: h * d].reshape(h, d)
        full[: h * d] = (rotated @ self._rotation).ravel()
        return self.student.with_parameters(full)

    def first_layer(self, x: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return (W_par, W_perp), (h, k) and (h, d - k), in rotated coordinates."""
        d, h = self._widths()[:2]
        W = self._full("x", x)[: h * d].reshape(h, d)
        return W[:, : self._k], W[:, self._k :]

    def _widths(self) -> tuple[int, ...]:
        return self.student.widths

    def _rotated(self, network: Network) -> Network:
        first = network.weights[0] @ self._rotation.T
        return Network(
            (first, *network.weights[1:]), network.biases, network.activation, network.iota
        )

    def _full(self, name: str, x: ArrayLike) -> FloatArray:
        return self._layout.unpack(flat_vector(name, x, self.n_params), self._frozen)

    def _direction(self, v: ArrayLike) -> FloatArray:
        return self._layout.unpack(flat_vector("v", v, self.n_params), np.zeros_like(self._frozen))

    # ---------------------------------------------------------------- what an optimiser asks

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        full = self._full("x", x)
        engine, point = self._engine_at(full)
        return float(engine.value(point)) + self._rest(engine, full)

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and its gradient."""
        full = self._full("x", x)
        engine, point = self._engine_at(full)
        value, gradient = engine.value_and_grad(point)
        whole = self._layout.widen(gradient) if engine is self._inside else gradient
        self._first(whole)[...] += 2.0 * self.lam * self._first(full)
        return float(value) + self._rest(engine, full), self._layout.pack(whole)

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at x times v."""
        full, direction = self._full("x", x), self._direction(v)
        engine, point = self._engine_at(full)
        if engine is self._inside:
            whole = self._layout.widen(engine.hvp(point, self._layout.narrow(direction)))
            outside = self._first(direction)[:, self._k :]
            if outside.any():
                self._first(whole)[:, self._k :] = self._bias_product(full, point, outside)
        else:
            whole = engine.hvp(point, direction)
        self._first(whole)[...] += 2.0 * self.lam * self._first(direction)
        return self._layout.pack(whole)

    def bias_hessian(self, x: ArrayLike) -> FloatArray:
        """H_bb (h, h), the Hessian in the first layer's biases, trained or not."""
        return self._bias_matrix(self._full("x", x)).copy()

    def collapse_step(self, x: ArrayLike) -> FloatArray:
        """Newton's step in W_perp alone, -W_perp.

        None where the lemma does not apply: inputs that are not Gaussian, biases that are frozen.
        """
        if not self.gaussian or "b" not in self.blocks:
            return np.zeros(self.n_params)
        return without_weights(self, flat_vector("x", x, self.n_params))

    def stein_violation(self, x: ArrayLike) -> float:
        """||grad_{W_perp} f - (H_bb + 2 lam I) W_perp||_F / ||(H_bb + 2 lam I) W_perp||_F.

        0 up to the rule's error for Gaussian inputs; for others it says how far the lemma is from
        applying at x. nan where W_perp = 0.
        """
        full = self._full("x", x)
        _, gradient = self.value_and_grad(x)
        outside = self._first(full)[:, self._k :]
        expected = self._bias_matrix(full) @ outside + 2.0 * self.lam * outside
        size = float(np.linalg.norm(expected))
        if size == 0.0:
            return math.nan
        measured = gradient[self.blocks["W"].slice].reshape(outside.shape)
        return float(np.linalg.norm(measured - expected)) / size

    def sample_gradient(
        self, x: ArrayLike, count: int, random: np.random.Generator
    ) -> tuple[float, FloatArray]:
        """Value and gradient with the mean over ``count`` fresh Gaussian samples for E."""
        full = self._full("x", x)
        X = random.standard_normal((count, self.teacher.d))
        targets = self.teacher.inside(X[:, : self._k])
        if self.teacher.noise > 0.0:
            targets = targets + self.teacher.noise * random.standard_normal(count)
        if self._is_logistic:
            targets = np.where(random.random(count) < _sigmoid(targets), 1.0, -1.0)
        shares = np.full(count, 1.0 / count)
        engine = self._node_risk(X, shares, targets, self._layout.active)
        value, gradient = engine.value_and_grad(full)
        self._first(gradient)[...] += 2.0 * self.lam * self._first(full)
        penalty = self.lam * float(np.square(self._first(full)).sum())
        return float(value) + penalty, self._layout.pack(gradient)

    def rule_error(self, x: ArrayLike) -> RuleError:
        """Estimate the rule's error at x from a finer rule of the same kind (for samples: nan).

        Where W_perp is not 0, "mehler" has the bound of `MehlerRisk.error_bound` for the value.
        """
        if not self.gaussian:
            return RuleError(math.nan, math.nan)
        value, gradient = self.value_and_grad(x)
        finer_value, finer_gradient = self.refined().value_and_grad(x)
        error = abs(finer_value - value)
        full = self._full("x", x)
        if self.rule == "mehler" and not self._is_inside(full):
            error = float(self._engine.error_bound(full))
        return RuleError(error, float(np.linalg.norm(finer_gradient - gradient)))

    def refined(self) -> NetworkRisk:
        """Return the same risk by a finer rule: half as many nodes again on each axis, or more."""
        most = _MOST_BYTES // (8 * (self.teacher.d + 2) * _MOST_TIMES_BUDGET)
        finer = NetworkRisk(
            self.student,
            self.teacher,
            loss=self.loss,
            lam=self.lam,
            train=self._layout.trained,
            rule=self.rule,
            n_nodes=max(min(2 * self._budget, most), self._budget),
            n_inside=math.ceil(1.5 * self.n_inside),
            seed=self.seed + 1,
            n_threads=self.n_threads,
        )
        if self._plan is None:
            finer._terms = min(2 * self._terms_taken, _MOST_TERMS)
        return finer

    @property
    def _terms_taken(self) -> int:
        return int(self._engine.terms if self._terms == "auto" else self._terms)

    # ---------------------------------------------------------------- engines

    def _is_inside(self, full: FloatArray) -> bool:
        return self._inside is not None and not self._first(full)[:, self._k :].any()

    def _engine_at(self, full: FloatArray) -> tuple[Any, FloatArray]:
        if self._is_inside(full):
            return self._inside, self._layout.narrow(full)
        return self._engine, full

    def _first(self, full: FloatArray) -> FloatArray:
        d, h = self._widths()[:2]
        return full[: h * d].reshape(h, d)

    def _rest(self, engine: Any, full: FloatArray) -> float:
        """Return the penalty, and under the squared loss the variance of the noise."""
        penalty = self.lam * float(np.square(self._first(full)).sum())
        noisy = self._is_squared and isinstance(engine, NodeRisk)
        return penalty + self.teacher.noise**2 if noisy else penalty

    def _bias_matrix(self, full: FloatArray) -> FloatArray:
        key = full.tobytes()
        if self._bias is None or self._bias[0] != key:
            engine, point = self._engine_at(full)
            self._bias = key, np.asarray(engine.bias_hessian(point))
        return self._bias[1]

    def _bias_product(self, full: FloatArray, point: FloatArray, outside: FloatArray) -> FloatArray:
        """H_bb times the columns of ``outside`` at W_perp = 0."""
        if outside.shape[1] > _FEW_COLUMNS:
            return self._bias_matrix(full) @ outside
        h = len(outside)
        biases = slice(h * self._k, h * self._k + h)
        product = np.empty_like(outside)
        for column in range(outside.shape[1]):
            direction = np.zeros_like(point)
            direction[biases] = outside[:, column]
            product[:, column] = self._inside_biases.hvp(point, direction)[biases]
        return product

    @property
    def _engine(self) -> Any:
        """What serves where W_perp is not 0; made on first use: a finer rule may never need it."""
        if self._engine_made is None:
            if self._plan is None:
                self._engine_made = self._series()
            else:
                self._engine_made = self._rule_risk(self._plan.make(), self._layout.active)
        return self._engine_made

    def _series(self) -> MehlerRisk:
        """Make the series; where its terms are "auto", the student settles them."""
        series = MehlerRisk(
            self.teacher.d,
            self._widths()[1],
            self.student.activation,
            U=np.eye(self._k, self.teacher.d),
            link=self.teacher.inside,
            noise_variance=self.teacher.noise**2,
            iota=self.student.iota,
            terms=self._terms,
            active=self._layout.active,
            n_threads=self.n_threads,
        )
        series.value(self._frozen)
        return series

    def _rule_risk(self, rule: InputRule, active: tuple[bool, ...]) -> NodeRisk:
        weights, targets = rule.weights, self.teacher.inside(rule.nodes[:, : self._k])
        if not self._is_squared:
            weights, targets = _with_labels(weights, targets, self.teacher.noise, self._is_logistic)
        return self._node_risk(rule.nodes, weights, targets, active)

    def _node_risk(
        self,
        nodes: FloatArray,
        weights: FloatArray,
        targets: FloatArray,
        active: tuple[bool, ...],
    ) -> NodeRisk:
        return NodeRisk(
            (nodes.shape[1], *self._widths()[1:]),
            self.student.activation,
            nodes,
            weights,
            targets,
            loss=self.loss,
            iota=self.student.iota,
            active=active,
            n_threads=self.n_threads,
        )

    # ---------------------------------------------------------------- rules

    def _choose_rule(self, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
        if not self.gaussian:
            if rule not in ("auto", "sobol"):
                raise ValueError(f"rule={rule!r} is for Gaussian inputs only")
            return "samples"
        fits = self.student.depth == 2 and self._is_squared
        fits = fits and self._k <= _MOST_MEHLER_INDICES
        if rule == "mehler" and not fits:
            raise ValueError(
                "rule='mehler' needs two layers, the squared loss and at most "
                f"{_MOST_MEHLER_INDICES} indices; got depth {self.student.depth}, loss "
                f"{self.loss!r} and {self._k} indices"
            )
        if rule != "auto":
            return rule
        # In the plane nodes are twice as fast; where W_perp vanishes the series is but the start.
        in_plane = self.teacher.d == 2 and "b" not in self.blocks
        if fits and not in_plane:
            return "mehler"
        return "tensor" if self.teacher.d - self._k <= _TENSOR_OUTSIDE else "spherical"

    def _planned(self, inputs: str | ArrayLike) -> _Plan:
        d, k, seed = self.teacher.d, self._k, self.seed
        if not self.gaussian:
            rule, text = self._sampled(inputs)
            return _Plan(f"{len(rule.nodes)} {text}", False, partial(_given, rule))
        m = d - k
        if self.rule == "sobol":
            count = 1 << max(self._budget.bit_length() - 1, 1)
            self._refuse_too_many(count)
            text = f"{count} scrambled Sobol nodes"
            return _Plan(text, False, partial(sobol_rule, d, count, seed))
        self._refuse_too_many(self.n_inside**k, k)
        text = f"{self.n_inside}^{k} Gauss-Hermite nodes"
        if m == 0:
            return _Plan(text, True, partial(inside_rule, self.n_inside, k))
        fewest = {"tensor": 2**m, "sparse": sparse_count(2, m), "spherical": 2 * m}[self.rule]
        most = max(_MOST_TIMES_BUDGET * self._budget / fewest, 1.0) ** (1.0 / k)
        coarse = min(self.n_inside, max(int(most + 1e-9), _LEAST_COARSE))
        plan = self._product(coarse, m)
        if coarse == self.n_inside:
            return plan
        return _Plan(
            f"{plan.description}, corrected by {text} inside",
            True,
            partial(_corrected, plan.make, coarse, self.n_inside, k),
        )

    def _product(self, inside: int, m: int) -> _Plan:
        """Plan a rule of so many nodes on each axis of u, times a rule for v."""
        k, seed, count = self._k, self.seed, inside**self._k
        outside = max(self._budget // count, 2)
        if self.rule == "tensor":
            per_axis = min(max(int(outside ** (1.0 / m) + 1e-9), 2), inside)
            self._refuse_too_many(count * per_axis**m)
            text = f"{inside}^{k} x {per_axis}^{m} Gauss-Hermite nodes"
            return _Plan(text, per_axis >= 2, partial(tensor_rule, k, m, inside, per_axis))
        if self.rule == "sparse":
            level = 2
            while level < 8 and sparse_count(level + 1, m) <= outside:
                level += 1
            each = sparse_count(level, m)
            self._refuse_too_many(count * each)
            text = f"{inside}^{k} Gauss-Hermite x {each} sparse-grid nodes"
            return _Plan(text, True, partial(sparse_rule, k, m, inside, level))
        copies = max(outside // (2 * m), 1)
        self._refuse_too_many(count * 2 * m * copies)
        text = f"{inside}^{k} Gauss-Hermite x {2 * m * copies} spherical nodes"
        return _Plan(text, True, partial(spherical_rule, k, m, inside, copies, seed))

    def _refuse_too_many(self, count: int, dimension: int | None = None) -> None:
        dimension = self.teacher.d if dimension is None else dimension
        size = 8 * count * (dimension + 2)
        if size > _MOST_BYTES:
            raise ValueError(
                f"rule={self.rule!r} would take {count:,} nodes of dimension {dimension}, "
                f"{size / 2**30:.1f} GiB; lower n_inside (now {self.n_inside}) or n_nodes"
            )

    def _sampled(self, inputs: str | ArrayLike) -> tuple[InputRule, str]:
        d = self.teacher.d
        if isinstance(inputs, str):
            if inputs not in INPUTS:
                raise ValueError(f"inputs must be one of {', '.join(INPUTS)}; got {inputs!r}")
            count = 1 << max(self._budget.bit_length() - 1, 1)
            self._refuse_too_many(count)
            X = distribution_rule(inputs, d, count, self.seed, _STUDENT_DEGREES)
            return sample_rule(X @ self._rotation.T), f"{inputs} nodes"
        X = np.asarray(inputs)
        if X.dtype.kind not in "biuf":
            raise TypeError(f"inputs must hold real numbers, not {X.dtype}")
        if X.ndim != 2 or X.shape[1] != d or not len(X):
            raise ValueError(f"inputs must have shape (N, {d}), N at least 1; got {X.shape}")
        X = np.asarray(X, dtype=np.float64)
        if not np.isfinite(X).all():
            row = int(np.argmin(np.isfinite(X).all(axis=1)))
            raise ValueError(f"inputs must be finite; row {row} is not")
        return sample_rule(X @ self._rotation.T), "samples"


def _rotation(basis: FloatArray) -> FloatArray:
    """Return an orthogonal (d, d) matrix whose first k rows are the basis."""
    k = len(basis)
    q, _ = np.linalg.qr(basis.T, mode="complete")
    return np.ascontiguousarray(np.vstack([basis, q[:, k:].T]))


def _enough_inside(teacher: Teacher) -> int:
    """Return nodes for each of the teacher's axes: more for steep links."""
    least, most = _INSIDE_NODES.get(teacher.n_indices, (8, 8))

    def moments(count: int) -> FloatArray:
        rule = inside_rule(count, teacher.n_indices)
        y = teacher.inside(rule.nodes)
        return np.array([rule.weights @ y, rule.weights @ y**2])

    count, before = least, moments(least)
    while count < most:
        finer = min(math.ceil(1.5 * count), most)
        after = moments(finer)
        if np.abs(after - before).max() <= _MOMENT_ERROR * (np.abs(after).max() + 1e-300):
            break
        count, before = finer, after
    return count


def _with_labels(
    weights: FloatArray, targets: FloatArray, noise: float, logistic: bool
) -> tuple[FloatArray, FloatArray]:
    """Average over what the target does not get from x: the noise, or the labels of a logit.

    Returns several targets for each node, with their weights, (N, m).
    """
    weights, targets = weights[:, None], targets[:, None]
    if noise > 0.0:
        shifts, shares = gauss_hermite(_NOISE_NODES)
        weights, targets = weights * shares, targets + noise * shifts
    if logistic:
        positive = _sigmoid(targets)
        weights = np.hstack([weights * positive, weights * (1.0 - positive)])
        targets = np.hstack([np.ones_like(targets), -np.ones_like(targets)])
    return weights, targets


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


def _trained(train: str | Sequence[str], depth: int) -> tuple[str, ...]:
    names = [f"{kind}{layer}" for layer in range(1, depth + 1) for kind in "Wb"]
    if isinstance(train, str):
        if train not in ("first", "all"):
            raise ValueError(f"train must be 'first', 'all' or a sequence of names, got {train!r}")
        return tuple(names if train == "all" else names[:2])
    for name in train:
        if name not in names:
            raise ValueError(f"train may name {', '.join(names)}; got {name!r}")
    if "W1" not in train:
        raise ValueError(f"train must contain 'W1', got {tuple(train)}")
    return tuple(name for name in names if name in train)


class _Layout:
    """Where the trained parts of a point lie among all parameters (W_1, b_1, W_2, b_2, ...).

    ``narrow`` and ``widen`` go between all parameters of the network in d dimensions and of that
    in the k dimensions of the teacher.
    """

    def __init__(self, student: Network, k: int, trained: tuple[str, ...]) -> None:
        d, h = student.widths[:2]
        self.trained = trained
        places, start = {}, 0
        for layer, (w, b) in enumerate(zip(student.weights, student.biases, strict=True), 1):
            for name, size in ((f"W{layer}", w.size), (f"b{layer}", b.size)):
                places[name] = np.arange(start, start + size)
                start += size
        self.active = tuple(name in trained for name in places)
        first = places["W1"].reshape(h, d)
        outside, inside = first[:, k:].ravel(), first[:, :k].ravel()
        rest = [places[name] for name in trained if name not in ("W1", "b1")]
        biases = places["b1"] if "b1" in trained else places["b1"][:0]
        self._order = np.concatenate([outside, biases, inside, *rest])
        self._n_full = start
        self._narrow = np.concatenate([inside, np.arange(h * d, start)])
        self.n_params = len(self._order)
        self.blocks: dict[str, Block] = {}
        split = (outside.size, outside.size + biases.size)
        if outside.size:
            self.blocks["W"] = Block(slice(0, split[0]), (h, d - k))
        if biases.size:
            self.blocks["b"] = Block(slice(*split), (h,))
        self.blocks["theta"] = Block(slice(split[1], self.n_params), (self.n_params - split[1],))

    def pack(self, full: FloatArray) -> FloatArray:
        return full[self._order]

    def unpack(self, x: FloatArray, rest: FloatArray) -> FloatArray:
        full = rest.copy()
        full[self._order] = x
        return full

    def narrow(self, full: FloatArray) -> FloatArray:
        return full[self._narrow]

    def widen(self, narrow: FloatArray) -> FloatArray:
        full = np.zeros(self._n_full)
        full[self._narrow] = narrow
        return full
