"""The risk of a network over weighted nodes, with its derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core.errors import NumbaError
from numba.extending import is_jitted
from numpy.typing import ArrayLike, DTypeLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.kernels.activations import ACTIVATIONS, apply_activation
from derand_fast.kernels.losses import LOSSES, Loss, builtin_loss_stage, user_loss_stage
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.kernels.network import (
    KEEP_NONE,
    KEEP_READ,
    KEEP_WRITE,
    PADDING,
    SLOTS,
    Nodes,
    Scratch,
    Shape,
    pass_over_strands,
    tools,
)
from derand_fast.threads import map_ranges, thread_count

__all__ = ["NodeRisk"]

FloatArray = NDArray[np.float64]

# A block's buffers should stay in the second-level cache.
_BLOCK_BYTES = 2**19
_MOST_NODES_IN_BLOCK = 128
# Rows of sums: so many threads can share the work, but the rows take no more than so many bytes.
_MOST_STRANDS = 64
_STRAND_BYTES = 2**24
_FEWEST_STRANDS = 8
# Flops below which one thread does all: starting threads costs some 0.1 ms.
_SMALL_WORK = 4e6
# An activation costs about as much as so many flops.
_ACTIVATION_FLOPS = 100
# Passes over the parameters, about, for a value, a gradient and a product.
_PASSES = (1.0, 3.0, 8.0)
# For H_bb: nodes whose derivatives are held at once, and rows of the matrix a task works on.
_CURVATURE_NODES = 512
_PANEL = 96


class _Losses(NamedTuple):
    """Derivatives of the loss at every node, and the point they belong to."""

    point: FloatArray
    slopes: FloatArray
    curvatures: FloatArray


class _Kept(NamedTuple):
    """Products of matrices at every node, for the point of ``losses`` and these active parts."""

    losses: _Losses
    active: tuple[bool, ...]
    array: NDArray[Any]


class _Result(NamedTuple):
    value: float
    outputs: FloatArray
    sums: FloatArray


class NodeRisk:
    """f(p) = sum_q sum_m w_qm loss(o(x_q; p), y_qm) of a feed-forward network with one output.

    z_1 = W_1 x + b_1, a_l = act(z_l), z_{l+1} = W_{l+1} a_l + b_{l+1}, o = z_L. The flat vector is
    p = (W_1 row by row, b_1, W_2, b_2, ..., W_L, b_L). Nodes may be any: a quadrature rule makes f
    the population risk, samples the empirical one. There is no penalty.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, ..., h_{L-1}, 1), at least one hidden layer.
    activation : str
        "smooth_relu" log(1 + exp(iota x)) / iota, "smooth_relu_squared", "smooth_relu_cubed" (its
        powers), "tanh", "erf", "quadratic" (x^2) or "linear".
    X : (N, d) array
        Nodes.
    weights, y : (N,) or (N, m) arrays
        Weights, which may be negative, and targets; m targets of one node, each with its weight,
        cost one evaluation of the network.
    loss : str or tuple of three functions
        "squared": (o - y)^2. "logistic": log(1 + exp(-y o)); y is +1 or -1, and any other y scales
        the margin. "pseudo_huber": delta^2 (sqrt(1 + ((o - y) / delta)^2) - 1). Or ``numba.njit``
        functions (loss, first, second derivative in o) of two floats (o, y), which must not raise.
    iota : float
        Sharpness of the smooth ReLU, positive.
    delta : float
        Scale of "pseudo_huber", positive.
    active : sequence of bool, optional
        For each of W_1, b_1, W_2, b_2, ...: whether derivatives are wanted. Gradients and products
        are 0 in other parts, whose entries in a direction count as 0, and work for them is left
        out. By default all.
    n_threads : int, optional
        Threads at most, by default all usable cores. The bits of the results do not depend on it.
    dtype : {float64, float32}
        Of the arithmetic within. Points and results are float64; losses and their sums too.
    keep_bytes : int
        With more than two layers, Hessian products at one point keep products of matrices that
        depend on this point alone, 2 N (h_1 + ... + h_{L-1}) numbers less N (h_1 + h_{L-1}), if
        they fit in so many bytes. Then each further product takes 12 P flops for a node, not 16 P.

    Attributes
    ----------
    n_params, n_nodes : int
        Length of p; N.
    widths, active : tuple
        As given.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, an entry is not finite, or an option is not known.

    Notes
    -----
    Flops for each node, with P the number of entries of W_2, ..., W_L and all parts active: 6 P for
    the gradient and 16 P for a product, 4 d h_1 and 6 d h_1 for the first layer, and one activation
    for each unit (about 2.3 ns in float64). A product at the point of the call before does not
    evaluate the loss again nor, if W_L is inactive, the last layer's activation.

    Memory in float64: 8 N (d + 1 + 2 m) bytes for the nodes and 16 N for derivatives of the loss;
    32 (h_1 + ... + h_{L-1}) + 16 max(h) bytes for each of the at most 128 nodes in a thread's
    block; and n_params numbers for each of 8 to 64 strands of nodes (no more than 8 if 16 MB do not
    hold more). Nothing of the size nodes times width but for ``keep_bytes``, which stay in use once
    there was a product.

    Nodes are cut into blocks and strands whose number depends on the sizes alone, and partial sums
    are added in order, so results are the same bits for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.objectives.node_risk import NodeRisk
    >>> risk = NodeRisk((1, 2, 1), "quadratic", [[1.0], [2.0]], [0.5, 0.5], [0.0, 0.0])
    >>> risk.value(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]))  # o = x^2: (1 + 16) / 2
    8.5
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str,
        X: ArrayLike,
        weights: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | tuple[Callable[..., float], ...] = "squared",
        iota: float = 1.0,
        delta: float = 1.0,
        active: Sequence[bool] | None = None,
        n_threads: int | None = None,
        dtype: DTypeLike = np.float64,
        keep_bytes: int = 2**27,
    ) -> None:
        self.widths = _checked_widths(widths)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32, got {self.dtype}")
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}; got {activation!r}")
        self._code = ACTIVATIONS[activation]
        self._iota = _positive("iota", iota)
        self.n_threads = thread_count(n_threads)
        self.keep_bytes = whole_number("keep_bytes", keep_bytes, 0)
        self.active = _checked_active(active, len(self.widths) - 1)
        self.loss, self.delta = loss, _positive("delta", delta)
        self._loss, self._stage = _compiled_loss(loss, self.delta)
        self._nodes = self._checked_nodes(X, weights, y)
        self.n_nodes = self._nodes.n_nodes
        self._sizes()
        self._tools = tools(self.dtype)[0]
        self._spare: list[Scratch] = []
        self._shapes: dict[tuple[int, tuple[bool, ...], bool, int], Shape] = {}
        self._losses: _Losses | None = None
        # At most one; whoever uses it takes it out, so that passes may run side by side.
        self._kept: list[_Kept] = []

    def __repr__(self) -> str:
        return f"NodeRisk(widths={self.widths}, n_nodes={self.n_nodes}, dtype={self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        """All but addresses, which are of this process, and scratch memory."""
        state = self.__dict__.copy()
        for name in ("_loss", "_stage", "_tools"):
            del state[name]
        return {**state, "_spare": [], "_kept": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loss, self._stage = _compiled_loss(self.loss, self.delta)
        self._tools = tools(self.dtype)[0]

    def value(self, p: ArrayLike) -> float:
        """f(p)."""
        return self._pass(self._checked("p", p), None, 0, self._active).value

    def value_and_grad(self, p: ArrayLike) -> tuple[float, FloatArray]:
        """f(p) and its gradient, (n_params,), 0 in inactive parts."""
        result = self._pass(self._checked("p", p), None, 1, self._active)
        return result.value, self._as_flat(result.sums)

    def hvp(self, p: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at p times v, between active parts: (n_params,)."""
        return self._product(self._checked("p", p), self._checked("v", v), self._active)

    def outputs(self, p: ArrayLike, X: ArrayLike) -> FloatArray:
        """Return the network's outputs at the rows of X: (len(X),)."""
        rows = self._checked_rows(X)
        zeros = np.zeros(len(rows))
        nodes = Nodes(self._with_ones(rows), zeros, zeros, 1, len(rows))
        return self._pass(self._checked("p", p), None, 0, self._active, nodes).outputs

    def bias_hessian(self, p: ArrayLike) -> FloatArray:
        """H_bb, the Hessian in b_1 alone, active or not: dense, symmetric, (h_1, h_1).

        For two layers one weighted product S^T S of the (N, h_1) derivatives S of the outputs, plus
        a diagonal: N h_1^2 flops. For more layers h_1 Hessian products.
        """
        point = self._checked("p", p)
        if len(self.widths) == 3:
            with np.errstate(over="ignore", invalid="ignore"):
                return self._bias_hessian_of_two_layers(point)
        d, h = self.widths[:2]
        biases = slice(d * h, (d + 1) * h)
        only_biases = np.zeros_like(self._active)
        only_biases[1] = True
        H = np.empty((h, h))
        for row, direction in zip(H, np.eye(h), strict=True):
            whole = np.zeros(self.n_params)
            whole[biases] = direction
            row[:] = self._product(point, whole, only_biases)[biases]
        return 0.5 * (H + H.T)

    # -- passes over the nodes ---------------------------------------------------------------------

    def _pass(
        self,
        point: FloatArray,
        direction: FloatArray | None,
        order: int,
        active: NDArray[np.bool_],
        nodes: Nodes | None = None,
    ) -> _Result:
        """One pass: the value (order 0), the gradient (1) or a Hessian product (2)."""
        own = nodes is None
        nodes = self._nodes if nodes is None else nodes
        losses = self._losses
        known = order == 2 and losses is not None and np.array_equal(losses.point, point)
        if losses is None or not known:
            losses = _Losses(point, np.empty(nodes.n_nodes), np.empty(nodes.n_nodes))
        keep, kept = self._what_is_kept(order, tuple(active.tolist()), losses)
        shape = self._shape(order, tuple(active.tolist()), known, keep)
        n_strands = self._strands(nodes.n_nodes)
        typed = self._as_point(point)
        typed_direction = typed if direction is None else self._as_point(direction)
        outputs = np.empty(0 if known else nodes.n_nodes)
        values = np.zeros(n_strands)
        strands = np.zeros((n_strands, self.n_params if order else 0), self.dtype)

        def work(start: int, stop: int) -> None:
            scratch = self._scratch()._replace(kept=kept)
            pass_over_strands(
                *(start, stop, n_strands, self._tools, shape, nodes, self._loss, scratch),
                *(typed, typed_direction, outputs, losses.slopes, losses.curvatures),
                *(values, strands.ravel()),
            )
            self._spare.append(scratch)

        map_ranges(work, n_strands, self._threads_for(_PASSES[order], nodes.n_nodes))
        if own:
            self._losses = losses
        if keep != KEEP_NONE and not self._kept:
            self._kept.append(_Kept(losses, tuple(active.tolist()), kept))
        with np.errstate(over="ignore", invalid="ignore"):
            # numpy adds the rows one after the other.
            sums = strands.sum(axis=0, dtype=np.float64)
        return _Result(sum(values.tolist()), outputs, sums)

    def _what_is_kept(
        self, order: int, active: tuple[bool, ...], losses: _Losses
    ) -> tuple[int, NDArray[Any]]:
        """Return whether a pass keeps products of matrices or finds them, and where."""
        if order < 2 or not 0 < self._kept_size * self.dtype.itemsize <= self.keep_bytes:
            return KEEP_NONE, np.empty(0, self.dtype)
        try:
            kept = self._kept.pop()
        except IndexError:
            return KEEP_WRITE, np.empty(self._kept_size, self.dtype)
        is_known = kept.losses is losses and kept.active == active
        # At another point the array serves again: fresh pages cost a tenth of a product.
        return KEEP_READ if is_known else KEEP_WRITE, kept.array

    def _product(
        self, point: FloatArray, direction: FloatArray, active: NDArray[np.bool_]
    ) -> FloatArray:
        for part, wanted in zip(self._parts, active, strict=True):
            if not wanted:
                direction[part] = 0.0
        return self._as_flat(self._pass(point, direction, 2, active).sums)

    def _bias_hessian_of_two_layers(self, point: FloatArray) -> FloatArray:
        """H_bb = S^T diag(w loss'') S + diag(sum_q w loss' w_2 o act''(z_q)), S = w_2 o act'(z)."""
        if self._losses is None or not np.array_equal(self._losses.point, point):
            self._pass(point, None, 0, self._active)
        assert self._losses is not None
        d, h = self.widths[:2]
        typed = self._as_point(point)
        first, second = typed[: (d + 1) * h].reshape(d + 1, h), typed[(d + 1) * h : -1]
        inputs = self._nodes.inputs.reshape(-1, d + 1)
        n_panels = -(-h // _PANEL)
        threads = self._threads_for(h, self.n_nodes)
        H, diagonal = np.zeros((h, h), self.dtype), np.zeros(h)
        for node in range(0, self.n_nodes, _CURVATURE_NODES):
            rows = inputs[node : node + _CURVATURE_NODES]
            nodes = slice(node, node + len(rows))
            slopes = self._losses.slopes[nodes].astype(self.dtype)
            curvatures = self._losses.curvatures[nodes].astype(self.dtype)
            z = np.empty((len(rows), h), self.dtype)
            packing = np.empty(workspace_size(h, max(d + 1, len(rows))), self.dtype)
            multiply(rows, first, z, False, packing)
            slope, turn = np.empty_like(z), np.empty_like(z)
            flat = z.ravel(), z.ravel(), slope.ravel(), turn.ravel(), turn.ravel(), turn.ravel()
            apply_activation(self._code, self._iota, 1, 2, *flat)
            # Not numpy's product, whose bits may depend on the threads of its BLAS.
            row = np.empty((1, h), self.dtype)
            multiply(slopes[None, :], turn, row, False, packing)
            diagonal += row[0] * second
            S = np.multiply(slope, second, out=slope)

            def panels(start: int, stop: int, S: Any = S, curvatures: Any = curvatures) -> None:
                packing = np.empty(workspace_size(h, len(S)), self.dtype)
                for number in range(start, stop):
                    # Long and short panels in turn, so that equal parts are equal work.
                    panel = n_panels - 1 - number // 2 if number % 2 else number // 2
                    i = panel * _PANEL
                    left = (curvatures[:, None] * S[:, i : i + _PANEL]).T
                    multiply(left, S[:, i:], H[i : i + _PANEL, i:], True, packing)

            map_ranges(panels, n_panels, threads)
        full = H.astype(np.float64)
        for i in range(0, h, _PANEL):
            end = min(i + _PANEL, h)
            full[end:, i:end] = full[i:end, end:].T
            full[i:end, i:end] = 0.5 * (full[i:end, i:end] + full[i:end, i:end].T)
        full[np.diag_indices(h)] += diagonal
        return full

    # -- sizes, memory -----------------------------------------------------------------------------

    def _sizes(self) -> None:
        """Set what depends on the sizes alone."""
        widths = self.widths
        ends = [0]
        for below, h in itertools.pairwise(widths):
            ends += [ends[-1] + h * below, ends[-1] + h * (below + 1)]
        self._parts = tuple(slice(*ends_of_part) for ends_of_part in itertools.pairwise(ends))
        self.n_params = ends[-1]
        self._active = np.array(self.active)
        block = _MOST_NODES_IN_BLOCK
        if len(widths) == 3:
            bytes_of_node = widths[1] * max(SLOTS) * self.dtype.itemsize
            block = min(max(_BLOCK_BYTES // bytes_of_node, 8) // 8 * 8, block)
        self._block = block
        # z_l of layers above the first, E_{l+1} W_{l+1} of layers below the last hidden one.
        n_layers = len(widths) - 1
        self._kept_at = np.zeros((n_layers + 1, 2), dtype=np.int64)
        self._kept_size = 0
        for layer in range(1, n_layers):
            for slot, has_product in enumerate((layer > 1, layer < n_layers - 1)):
                if has_product:
                    self._kept_at[layer, slot] = self._kept_size
                    self._kept_size += self.n_nodes * widths[layer]

    def _strands(self, n_nodes: int) -> int:
        most = _STRAND_BYTES // (self.dtype.itemsize * self.n_params)
        return min(-(-n_nodes // self._block), max(min(most, _MOST_STRANDS), _FEWEST_STRANDS))

    def _shape(self, order: int, active: tuple[bool, ...], known: bool, keep: int) -> Shape:
        """Return what the kernels want to know; made once for each kind of pass."""
        key = order, active, known, keep
        if key in self._shapes:
            return self._shapes[key]
        widths = np.array(self.widths, dtype=np.int64)
        n_layers = len(widths) - 1
        weights_at = np.array([0, *(part.start for part in self._parts[::2])], dtype=np.int64)
        buffers_at = np.zeros((n_layers + 1, max(SLOTS)), dtype=np.int64)
        start = 0
        for layer in range(1, n_layers + 1):
            width = max(self.widths) if layer == n_layers else self.widths[layer]
            for slot in range(2 if layer == n_layers else SLOTS[order]):
                buffers_at[layer, slot] = start
                start += self._block * width
        lowest = active.index(True) // 2 + 1 if any(active) else n_layers + 1
        self._shapes[key] = Shape(
            widths=widths,
            weights_at=weights_at,
            buffers_at=buffers_at,
            active=np.array(active),
            lowest=lowest,
            order=order,
            known=known,
            keep=keep,
            kept_at=self._kept_at,
            code=self._code,
            iota=self._iota,
            block=self._block,
        )
        return self._shapes[key]

    def _scratch(self) -> Scratch:
        """Memory for one thread, that of an earlier pass if there is any."""
        try:
            return self._spare.pop()
        except IndexError:
            pass
        widths, block = self.widths, self._block
        size = block * (max(SLOTS) * sum(widths[1:-1]) + 2 * max(widths)) + PADDING
        widest = max(widths) + 1
        return Scratch(
            np.empty(size, self.dtype),
            np.empty(workspace_size(widest, max(widest, block)), self.dtype),
            np.empty(block + 1),
            np.empty(block),
            np.empty(2 * block, self.dtype),
            np.empty(0, self.dtype),
        )

    def _threads_for(self, passes: float, n_nodes: int) -> int:
        """One thread for little work."""
        flops = 2 * self.n_params * passes + _ACTIVATION_FLOPS * sum(self.widths[1:-1])
        return self.n_threads if flops * n_nodes > _SMALL_WORK else 1

    # -- checks and layouts ------------------------------------------------------------------------

    def _checked(self, name: str, vector: ArrayLike) -> FloatArray:
        return flat_vector(name, vector, self.n_params)

    def _as_point(self, flat: FloatArray) -> NDArray[Any]:
        """Lay a vector out for the kernels: W_1^T with b_1 as its last row, then the rest."""
        d, h = self.widths[:2]
        point = np.empty(self.n_params, self.dtype)
        first = point[: (d + 1) * h].reshape(d + 1, h)
        with np.errstate(over="ignore"):
            first[:d] = flat[: d * h].reshape(h, d).T
            first[d] = flat[d * h : (d + 1) * h]
            point[(d + 1) * h :] = flat[(d + 1) * h :]
        return point

    def _as_flat(self, total: FloatArray) -> FloatArray:
        """Undo ``_as_point``, in place."""
        d, h = self.widths[:2]
        first = total[: (d + 1) * h].reshape(d + 1, h).copy()
        total[: d * h] = first[:d].T.ravel()
        total[d * h : (d + 1) * h] = first[d]
        return total

    def _with_ones(self, X: FloatArray) -> NDArray[Any]:
        rows = np.ones((len(X), X.shape[1] + 1), self.dtype)
        rows[:, :-1] = X
        return rows.ravel()

    def _checked_rows(self, X: ArrayLike) -> FloatArray:
        rows = _real_array("X", X)
        if rows.ndim != 2 or rows.shape[1] != self.widths[0]:
            raise ValueError(f"X must have shape (N, {self.widths[0]}), got {rows.shape}")
        return rows

    def _checked_nodes(self, X: ArrayLike, weights: ArrayLike, y: ArrayLike) -> Nodes:
        rows = self._checked_rows(X)
        count = len(rows)
        if count == 0:
            raise ValueError("X must have at least one row")
        w, targets = _real_array("weights", weights), _real_array("y", y)
        if w.ndim not in (1, 2) or len(w) != count or 0 in w.shape:
            raise ValueError(f"weights must have shape ({count},) or ({count}, m), got {w.shape}")
        if targets.shape != w.shape:
            raise ValueError(f"y must have the shape of weights, {w.shape}, got {targets.shape}")
        per_node = w.shape[1] if w.ndim == 2 else 1
        return Nodes(self._with_ones(rows), targets.ravel(), w.ravel(), per_node, count)


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    if isinstance(widths, str | bytes) or not hasattr(widths, "__iter__"):
        raise TypeError(f"widths must be a sequence of integers, got {widths!r}")
    sizes = tuple(whole_number(f"widths[{i}]", width, 1) for i, width in enumerate(widths))
    if len(sizes) < 3:
        raise ValueError(f"widths must be (d, h_1, ..., 1) with a hidden layer, got {sizes}")
    if sizes[-1] != 1:
        raise ValueError(f"the last of widths must be 1, got {sizes}")
    return sizes


def _checked_active(active: Sequence[bool] | None, n_layers: int) -> tuple[bool, ...]:
    if active is None:
        return (True,) * (2 * n_layers)
    flags = tuple(active)
    if any(not isinstance(flag, bool | np.bool_) for flag in flags):
        raise TypeError(f"active must hold True or False, got {flags}")
    if len(flags) != 2 * n_layers:
        raise ValueError(
            f"active must have {2 * n_layers} entries (W_1, b_1, W_2, ...), got {len(flags)}"
        )
    return tuple(bool(flag) for flag in flags)


def _positive(name: str, number: float) -> float:
    value = finite_number(name, number, 0.0)
    if value == 0.0:
        raise ValueError(f"{name} must be positive, got 0.0")
    return value


def _real_array(name: str, entries: ArrayLike) -> FloatArray:
    array = np.asarray(entries)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    array = np.array(array, dtype=np.float64, order="C")
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        where = ", ".join(map(str, place))
        raise ValueError(f"{name} must be finite; {name}[{where}] is {array[place]}")
    return array


def _compiled_loss(loss: Any, delta: float) -> tuple[Loss, Any]:
    """Return the kernels' description of a loss, and what must stay alive for it."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
        stage = builtin_loss_stage()
        return Loss(int(stage.address), LOSSES[loss], delta), stage
    try:
        functions = tuple(loss)
    except TypeError:
        functions = ()
    if len(functions) != 3:
        raise TypeError(
            "loss must be a name or three njit functions: the loss and its first and second "
            f"derivative in the output; got {loss!r}"
        )
    for function in functions:
        if not is_jitted(function):
            raise TypeError(f"the functions of loss must be numba.njit functions, got {function!r}")
    try:
        stage = user_loss_stage(*functions)
    except NumbaError as error:
        raise TypeError(f"loss functions must take two floats and return one: {error}") from error
    return Loss(int(stage.address), 0, delta), stage
