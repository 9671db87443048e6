"""f(W, b; theta) = E[g(W x + b, theta)] + lam ||W||_F^2 for any function g of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import is_jitted
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.kernels.expectation import (
    VALUE_COLUMNS,
    add_rows,
    gradient_driver,
    hessian_product_by_differences,
    product_drivers,
    value_driver,
    value_then_gradient,
)
from derand_fast.kernels.quadrature import (
    MAX_SPARSE_LEVEL,
    NodeSet,
    sobol_normal,
    sparse_count,
    sparse_hermite,
    tensor_hermite,
)
from derand_fast.objectives.protocol import Block, Blocks, without_weights
from derand_fast.threads import map_ranges, thread_count

__all__ = ["GaussianExpectation", "GaussianFunction"]

FloatArray = NDArray[np.float64]

RULES = ("auto", "hermite", "sparse", "sobol")
HESSIANS = ("auto", "product", "differences")
DEFAULT_NODES = 2**14
# Dimensions up to which "auto" takes a tensor grid and a sparse grid.
_TENSOR_DIMENSIONS = 4
_SPARSE_DIMENSIONS = 10
# More nodes on an axis reach past |x| = 10, where nothing is left to weigh.
_MOST_ON_AXIS = 64
# Far more nodes than anyone can wait for (tensor), or hold in memory (the others).
_MOST_NODES = {"hermite": 2**40, "sparse": 2**24, "sobol": 2**30}
SCRAMBLINGS = 8
# 99.5 % quantile of Student's t with SCRAMBLINGS - 1 degrees of freedom.
_STUDENT_99 = 3.4995
# Rounding of a sum in blocks, in units of eps times the sum of absolute terms.
_ROUNDING = 16.0 * float(np.finfo(np.float64).eps)
# Shorter passes than this run on one thread: starting threads costs some 0.1 ms.
_THREAD_SECONDS = 1e-3
# Sums of blocks that are held at once take no more than this, or one row for each thread.
_ROW_BYTES = 2**23


class GaussianFunction(NamedTuple):
    """g(z, theta) and its derivatives, as Numba njit functions (fast) or any Python functions.

    ``z`` (h,) and ``theta`` (n_theta,) are float64 arrays, not to be changed; theta is empty where
    g has no parameters. The outputs ``out_z`` and ``out_theta`` of the same shapes arrive as zeros.

    Attributes
    ----------
    value : function
        ``value(z, theta)`` returns g as a float.
    gradient : function
        ``gradient(z, theta, out_z, out_theta)`` writes the derivatives of g in z and theta. It may
        return g too; then `GaussianExpectation.value_and_grad` does not call ``value``.
    hessian_product : function, optional
        ``hessian_product(z, theta, direction_z, direction_theta, out_z, out_theta)`` writes the
        Hessian of g in (z, theta) times the direction. Without it products are fourth-order
        central differences of ``gradient``.
    """

    value: Callable[..., float]
    gradient: Callable[..., None]
    hessian_product: Callable[..., None] | None = None


class GaussianExpectation:
    """f(W, b; theta) = E[g(W x + b, theta)] + lam ||W||_F^2 over x ~ N(0, I_d), by quadrature.

    The flat vector is x = (W row by row, b, theta), of length h d + h + n_theta. What is minimised
    is the quadrature sum: the gradient and, with ``hessian_product``, the Hessian are its exact
    derivatives. All rules are symmetric about 0, so W = 0 is stationary in W exactly. The gradient
    in W is summed over the nodes; Stein's identity grad_W = (H_bb + 2 lam I) W holds up to the
    quadrature error.

    Parameters
    ----------
    g : GaussianFunction
        Or any tuple ``(value, gradient)`` or ``(value, gradient, hessian_product)``, or an object
        with these attributes. Compiled if all of them are njit functions; otherwise everything
        runs in Python, thousands of times slower, with equal results up to rounding.
    shape_W : (int, int)
        (h, d): outputs and inputs, each at least 1.
    lam : float
        Weight of ||W||_F^2, finite and not negative.
    rule : {"auto", "hermite", "sparse", "sobol"}, optional
        "hermite": tensor Gauss-Hermite, made on the fly. "sparse": Smolyak grid on nested
        Gauss-Hermite rules; weights may be negative. "sobol": 8 independent scramblings of Sobol
        points in antithetic pairs. "auto" takes them for d <= 4, d <= 10 and beyond; the attribute
        ``rule`` says which.
    n_nodes : int, optional
        At most this many nodes (but at least the smallest rule), by default 16384. The largest
        rule within is taken, with no more than 64 nodes on an axis.
    level : int, optional
        Instead of ``n_nodes``, for "hermite" and "sparse": exact where g(W x + b) is a polynomial
        in x of degree 2 level - 1, in each variable for "hermite", in total for "sparse" (at most
        26). "hermite" has level^d nodes.
    n_theta : int, optional
        Length of theta.
    hessian : {"auto", "product", "differences"}, optional
        "product" insists on g's own ``hessian_product``, "differences" ignores it, "auto" takes it
        if there is one.
    seed : int, optional
        Of the scramblings; not negative.
    n_threads : int, optional
        Threads at most, by default all usable cores; passes of less than a millisecond, and a g in
        plain Python, use one. The bits of the results do not depend on it.

    Attributes
    ----------
    n_params : int
        h d + h + n_theta.
    blocks : mapping
        "W" (h, d), "b" (h,) and, unless n_theta is 0, "theta" (n_theta,).
    rule, level, n_nodes : str, int or None, int
        What was picked; the level is None for "sobol".
    hessian : str
        "product": Hessian products are exact. "differences": relative error about 3e-13 times the
        size of g's fifth derivatives, which should be moderate (g on the scale 1).
    compiled : bool
        Whether g is compiled.
    lam, n_theta, n_threads
        As above.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or outside these ranges. The methods raise them for points
        and directions that are not finite real vectors of length n_params. What g raises comes
        through.

    Notes
    -----
    With N nodes and P = n_params, `value_and_grad` costs N calls of value and gradient and 2 N h d
    multiply-adds; `hvp` N calls of hessian_product (4 N of gradient by differences) and 3 N h d;
    `bias_hessian` h N calls of hessian_product. Nodes come in at most about 32 blocks, whose size
    depends on the rule alone; the sums of the blocks, P numbers each, are added in order. No more
    of these are held than fit 8 MB, or one per thread. Between calls only the nodes are kept:
    64 numbers at most for "hermite", N d for the others.

    The first call of a method in a process compiles it (about a second for each g). Methods may be
    called from several threads if g may. LLVM vectorises loops in g over
    ``derand_fast.kernels.special.exp`` and plain arithmetic, not those over ``math.exp`` or
    ``math.tanh``.

    Examples
    --------
    E of (|z|^2 - 1)^2 for z = W x + b, with W (2, 3):

    >>> import numba
    >>> import numpy as np
    >>> from derand_fast.objectives import GaussianExpectation, GaussianFunction, pack
    >>> @numba.njit
    ... def value(z, theta):
    ...     return (z[0] ** 2 + z[1] ** 2 - 1.0) ** 2
    >>> @numba.njit
    ... def gradient(z, theta, out_z, out_theta):
    ...     factor = 4.0 * (z[0] ** 2 + z[1] ** 2 - 1.0)
    ...     out_z[0] = factor * z[0]
    ...     out_z[1] = factor * z[1]
    >>> f = GaussianExpectation(GaussianFunction(value, gradient), (2, 3), lam=0.1, level=3)
    >>> f
    GaussianExpectation(h=2, d=3, lam=0.1, rule='hermite', level=3, n_nodes=27, n_theta=0, \
hessian='differences', compiled=True)
    >>> x = pack(f, W=[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> round(f.value(x), 12)  # E (x^2 - 1)^2 + 0.1
    2.1
    >>> H = f.bias_hessian(x)  # E[12 x^2 - 4] and E[4 x^2 - 4]
    >>> [[round(abs(float(entry)), 6) for entry in row] for row in H]
    [[8.0, 0.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        g: Any,
        shape_W: tuple[int, int],
        *,
        lam: float,
        rule: str = "auto",
        n_nodes: int | None = None,
        level: int | None = None,
        n_theta: int = 0,
        hessian: str = "auto",
        seed: int = 0,
        n_threads: int | None = None,
    ) -> None:
        function = _as_function(g)
        try:
            h, d = shape_W
        except (TypeError, ValueError):
            raise ValueError(f"shape_W must be two integers (h, d), got {shape_W!r}") from None
        h, d = whole_number("h", h, 1), whole_number("d", d, 1)
        self.lam = finite_number("lam", lam, 0.0)
        self.n_theta = whole_number("n_theta", n_theta, 0)
        self.n_threads = thread_count(n_threads)
        self._shape = h, d
        # Inner loops run along the longer side of W.
        self._by_column = h > d
        ends = np.cumsum([0, h * d, h, self.n_theta]).tolist()
        shapes = {"W": (h, d), "b": (h,), "theta": (self.n_theta,)}
        self._all_blocks = {
            name: Block(slice(start, stop), shape)
            for (name, shape), start, stop in zip(shapes.items(), ends, ends[1:], strict=False)
        }
        self.n_params: int = ends[-1]
        self.blocks: Mapping[str, Block] = Blocks(
            {name: block for name, block in self._all_blocks.items() if name != "theta" or n_theta}
        )
        self.rule, self.level = _choose_rule(rule, d, n_nodes, level)
        self._nodes = _make_nodes(self.rule, self.level, d, n_nodes, whole_number("seed", seed, 0))
        self.n_nodes = self._nodes.n_nodes
        self.hessian = _choose_hessian(hessian, function)
        self._drivers, self.compiled = _drivers_of(function, self.hessian)
        if not self.compiled:
            self.n_threads = 1
        # Seconds that one thread took for a block in the latest call of each driver.
        self._pace: dict[str, float] = {}

    def __repr__(self) -> str:
        """Sizes, and what was picked."""
        h, d = self._shape
        return (
            f"GaussianExpectation(h={h}, d={d}, lam={self.lam!r}, rule={self.rule!r}, "
            f"level={self.level}, n_nodes={self.n_nodes}, n_theta={self.n_theta}, "
            f"hessian={self.hessian!r}, compiled={self.compiled})"
        )

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        parts = self._parts("x", x)
        return _sum_of(self._value_rows(self._nodes, parts))[0] + self._penalty(parts[0])

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and the gradient of the quadrature sum."""
        parts = self._parts("x", x)
        total = self._total("gradient", 1 + self.n_params, self._point(*parts))
        gradient = self._with_penalty(total[1:], parts[0])
        return float(total[0]) + self._penalty(parts[0]), gradient

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian at x times v: exact for the quadrature sum, or by differences (`hessian`)."""
        parts, direction = self._parts("x", x), self._parts("v", v)
        arguments = *self._point(*parts), *self._point(*direction)[1:]
        return self._with_penalty(self._total("product", self.n_params, arguments), direction[0])

    def collapse_step(self, x: ArrayLike) -> FloatArray:
        """Newton's step in W alone, with H_bb + 2 lam I for its Hessian: -W, and 0 elsewhere."""
        return without_weights(self, flat_vector("x", x, self.n_params))

    def bias_hessian(self, x: ArrayLike) -> FloatArray:
        """H_bb = E[Hess_z g], a dense symmetric (h, h) array without 2 lam I."""
        h = self._shape[0]
        H = self._total("curvature", h * h, self._point(*self._parts("x", x))).reshape(h, h)
        return 0.5 * (H + H.T)

    # -- quadrature error --------------------------------------------------------------------------

    def value_with_error(self, x: ArrayLike) -> tuple[float, float]:
        """f(x), the same bits as `value`, and an estimate of its quadrature error.

        Parameters
        ----------
        x : (n_params,) array-like
            The point.

        Returns
        -------
        value : float
            f(x).
        error : float
            "hermite": the larger difference from the grids with one node less, and with a third
            less, on each axis, at up to 1.3 times the cost of another value. "sparse": the
            larger difference from the grids of one and two levels less, on the same nodes. Both
            tell the coarser rules' error where the finer is better; infinite at level 1. "sobol":
            half width of the 99 % confidence interval from the 8 scramblings. Rounding is included.

        Notes
        -----
        An estimate, not a bound: no rule sees what happens between its nodes.
        """
        parts = self._parts("x", x)
        nodes = self._nodes
        rows = self._value_rows(nodes, parts)
        total, size, *below = _sum_of(rows)
        if nodes.replicates > 1:
            means = rows[:, 0].reshape(nodes.replicates, -1).sum(axis=1) * nodes.replicates
            with np.errstate(invalid="ignore"):
                spread = float(means.std(ddof=1)) / math.sqrt(nodes.replicates)
            error = _STUDENT_99 * spread
        elif self.level == 1:
            error = math.inf
        elif nodes.tensor:
            assert self.level is not None
            coarser = {self.level - 1, (2 * self.level + 2) // 3} - {self.level}
            error = max(
                abs(total - _sum_of(self._value_rows(tensor_hermite(m, nodes.dimension), parts))[0])
                for m in coarser
            )
        else:
            error = max(abs(total - coarse) for coarse in below)
        return total + self._penalty(parts[0]), error + _ROUNDING * size

    def error_estimate(self, x: ArrayLike) -> float:
        """Estimate of the quadrature error of f(x): see `value_with_error`."""
        return self.value_with_error(x)[1]

    # -- pieces ------------------------------------------------------------------------------------

    def _block(self, flat: FloatArray, name: str) -> FloatArray:
        part, shape = self._all_blocks[name]
        return flat[part].reshape(shape)

    def _parts(self, name: str, vector: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        flat = flat_vector(name, vector, self.n_params)
        return self._block(flat, "W"), self._block(flat, "b"), self._block(flat, "theta")

    def _penalty(self, W: FloatArray) -> float:
        with np.errstate(over="ignore"):
            return self.lam * float(np.square(W).sum())

    def _with_penalty(self, total: FloatArray, W: FloatArray) -> FloatArray:
        """Bring sums over nodes into the order of x, and add the derivative of lam ||W||^2."""
        derivative = np.empty(self.n_params)
        split = W.size
        own = self._block(derivative, "W")
        own[...] = (
            total[:split].reshape(W.T.shape).T
            if self._by_column
            else total[:split].reshape(W.shape)
        )
        own += 2.0 * self.lam * W
        derivative[split:] = total[split:]
        return derivative

    def _point(self, W: FloatArray, b: FloatArray, theta: FloatArray) -> tuple[Any, ...]:
        """Arrange W, b and theta as the drivers want them."""
        return self._by_column, np.ascontiguousarray(W.T) if self._by_column else W, b, theta

    def _value_rows(
        self, nodes: NodeSet, parts: tuple[FloatArray, FloatArray, FloatArray]
    ) -> FloatArray:
        n_blocks = -(-nodes.n_nodes // nodes.block)
        rows = np.empty((n_blocks, VALUE_COLUMNS + nodes.lower.shape[0]))
        self._fill("value", nodes, 0, rows, (nodes.lower, *self._point(*parts)))
        return rows

    def _total(self, driver: str, width: int, arguments: tuple[Any, ...]) -> FloatArray:
        """Sum over all nodes: a few blocks at a time, added in order."""
        nodes = self._nodes
        n_blocks = -(-nodes.n_nodes // nodes.block)
        held = min(n_blocks, max(self.n_threads, _ROW_BYTES // (8 * width)))
        rows = np.empty((held, width))
        total = np.zeros(width)
        for first in range(0, n_blocks, held):
            part = rows[: n_blocks - first]
            self._fill(driver, nodes, first, part, arguments)
            add_rows(part, total)
        return total

    def _fill(
        self,
        name: str,
        nodes: NodeSet,
        first: int,
        rows: FloatArray,
        arguments: tuple[Any, ...],
    ) -> None:
        """Have the sums of ``len(rows)`` blocks computed, on several threads where that pays."""
        driver = self._drivers[name]
        rule = nodes.block, nodes.n_nodes, nodes.tensor, nodes.nodes, nodes.weights
        n_blocks = len(rows)

        def run(start: int, stop: int) -> float:
            begin = perf_counter()
            driver(first + start, first + stop, *rule, *arguments, rows[start:stop])
            return perf_counter() - begin

        # The first call is serial, and compiles.
        workers = min(self.n_threads, n_blocks)
        if workers == 1 or self._pace.get(name, 0.0) * n_blocks < _THREAD_SECONDS:
            self._pace[name] = run(0, n_blocks) / n_blocks
            return
        self._pace[name] = sum(map_ranges(run, n_blocks, workers)) / n_blocks


def _sum_of(rows: FloatArray) -> tuple[float, ...]:
    total = np.zeros(rows.shape[1])
    add_rows(rows, total)
    return tuple(total.tolist())


def _as_function(g: Any) -> GaussianFunction:
    """Read the two or three functions out of whatever holds them."""
    if isinstance(g, tuple) and not hasattr(g, "value"):
        if len(g) not in (2, 3):
            raise TypeError(f"g must be (value, gradient[, hessian_product]), got {len(g)} entries")
        function = GaussianFunction(*g)
    else:
        missing = [name for name in ("value", "gradient") if not hasattr(g, name)]
        if missing:
            raise TypeError(f"g must have value and gradient; {g!r} lacks {', '.join(missing)}")
        function = GaussianFunction(g.value, g.gradient, getattr(g, "hessian_product", None))
    for name, part in function._asdict().items():
        if not callable(part) and not (name == "hessian_product" and part is None):
            raise TypeError(f"g.{name} must be a function, not {part!r}")
    return function


def _choose_hessian(hessian: str, function: GaussianFunction) -> str:
    if hessian not in HESSIANS:
        raise ValueError(f"hessian must be one of {', '.join(HESSIANS)}; got {hessian!r}")
    if hessian == "product" and function.hessian_product is None:
        raise ValueError("hessian='product' needs a g with a hessian_product")
    if hessian == "auto":
        return "differences" if function.hessian_product is None else "product"
    return hessian


def _drivers_of(
    function: GaussianFunction, hessian: str
) -> tuple[dict[str, Callable[..., None]], bool]:
    """Drivers of g by what they add up, and whether they are compiled."""
    value, gradient, product = function
    used = (value, gradient, product) if hessian == "product" else (value, gradient)
    compiled = all(is_jitted(part) for part in used)

    def make(factory: Any, *parts: Any) -> Any:
        # The factories remember what they compiled; what costs nothing to make is not kept.
        return (factory if compiled else factory.__wrapped__)(*parts, compiled=compiled)

    if hessian == "differences":
        product = make(hessian_product_by_differences, gradient)
    pair = gradient
    if not compiled or not _returns_number(gradient):
        pair = make(value_then_gradient, value, gradient)
    drivers = {"value": make(value_driver, value), "gradient": make(gradient_driver, pair)}
    drivers["product"], drivers["curvature"] = make(product_drivers, product)
    return drivers, compiled


def _returns_number(gradient: Any) -> bool:
    """Compile a gradient for the arrays it will get, and see what it returns."""
    vector = numba.float64[::1]
    signature = (vector,) * 4
    try:
        gradient.compile(signature)
    except RuntimeError:  # Compiled for given signatures only.
        return False
    return isinstance(gradient.overloads[signature].signature.return_type, numba.types.Float)


def _choose_rule(
    rule: str, d: int, n_nodes: int | None, level: int | None
) -> tuple[str, int | None]:
    """Settle the rule and its level."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    if n_nodes is not None and level is not None:
        raise ValueError(f"give n_nodes or level, not both: got {n_nodes} and {level}")
    if rule == "auto":
        by_dimension = d > _TENSOR_DIMENSIONS, d > _SPARSE_DIMENSIONS
        rule = RULES[1 + sum(by_dimension)]
    if level is not None and rule == "sobol":
        raise ValueError("rule='sobol' has no level: give n_nodes")
    budget = DEFAULT_NODES if n_nodes is None else whole_number("n_nodes", n_nodes, 1)
    if rule == "sobol":
        return rule, None
    count: Callable[[int], int]
    if rule == "hermite":
        most = _MOST_ON_AXIS

        def count(m: int) -> int:
            return m**d
    else:
        most = MAX_SPARSE_LEVEL

        def count(m: int) -> int:
            return sparse_count(m, d)

    if level is None:
        level = 1
        while level < most and count(level + 1) <= budget:
            level += 1
        return rule, level
    level = whole_number("level", level, 1)
    if rule == "sparse" and level > most:
        raise ValueError(f"level must be at most {most} for rule='sparse', got {level}")
    if count(level) > _MOST_NODES[rule]:
        raise ValueError(
            f"level {level} in {d} dimensions is {count(level)} nodes, more than "
            f"{_MOST_NODES[rule]}: lower it"
        )
    return rule, level


def _make_nodes(rule: str, level: int | None, d: int, n_nodes: int | None, seed: int) -> NodeSet:
    if level is None:
        budget = min(DEFAULT_NODES if n_nodes is None else n_nodes, _MOST_NODES[rule])
        # The largest power of two that fits each scrambling; a pair is the least.
        each = 1 << max((budget // SCRAMBLINGS).bit_length() - 1, 1)
        return sobol_normal(each, d, SCRAMBLINGS, seed)
    return tensor_hermite(level, d) if rule == "hermite" else sparse_hermite(level, d)
