"""Search for the linear map whose largest distortion over many pairs is as small as possible.

The distortion of a map, at the best scalar factor, is (max r - min r) / (max r + min r), where r is
how much a pair's squared distance is stretched. It is lowered through the smooth maximum of
g(r) = r + 1/r (``kernels.pairs``) at growing sharpness p: first many pairs share the load, in the
end only the worst. Nearly all of the final quality is decided at low sharpness, where the descent
must converge; sharpening afterwards is quick. Each stage is a descent by L-BFGS in coordinates N of

    images = B N,

where the caller chooses the basis B (n, r), and with it the length of each direction. Starts of
several kinds are carried through the first stages, and the best of them to the end.

All work is counted in passes over the pairs, so without a time limit nothing depends on the clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.embedding_pairs import Evaluation, PairSet, product
from derand_fast.kernels.pairs import quasi_newton_direction
from derand_fast.optimize.vectors import dot, norm

__all__ = ["Best", "HistoryRow", "Progress", "distortion_of", "search"]

FloatArray = NDArray[np.float64]

# Sharpness of each stage and its share of the work (a stage that converges early leaves the rest to
# the later ones).
_STAGES = (
    *((4.0, 0.02), (6.0, 0.06), (8.0, 0.10), (10.0, 0.12), (12.0, 0.13), (15.0, 0.12)),
    *((18.0, 0.10), (22.0, 0.08), (27.0, 0.07), (40.0, 0.07), (90.0, 0.06), (300.0, 0.04)),
    *((1000.0, 0.02), (5000.0, 0.01)),
)
# Starts are compared once they have been carried through the stages below this sharpness ...
_COMPARED_AT = 12.0
# ... with so much of all work in total.
_SHARE_OF_STARTS = 0.3
# A stage has converged when this many steps gain less than this share of what is left to gain.
_WINDOW = 10
_GAIN = 3e-6
# What is left to gain at high sharpness, as a share of max g - 2, is not worth many steps.
_LEAST_UNIT = 0.01
# Steps L-BFGS remembers; 10 to 50 take about the same number of passes.
_MEMORY = 10
# Line search: sufficient decrease and curvature of Wolfe's conditions.
_DECREASE = 1e-4
_CURVATURE = 0.9
_TRIALS = 12
# Length of the first step of a stage, relative to the point.
_FIRST_STEP = 0.01
# Ratios further apart than this mean a collapsed pair; so much of a random map is then mixed in.
_COLLAPSED = 1e8
_MIXED_IN = 0.01


def distortion_of(low: float, high: float) -> float:
    """Return max |c r - 1| over low <= r <= high at the best c, 2 / (low + high)."""
    return (high - low) / (high + low)


class HistoryRow(NamedTuple):
    """One stage of a search, as it ended.

    Attributes
    ----------
    seconds : float
        Since the start of the search in this dimension.
    n_components : int
        The dimension.
    passes : int
        Passes over the pairs so far, in this dimension.
    sharpness : float
        Sharpness of the smooth maximum; in an annealing of sigma the order of the moment.
    distortion : float
        The best so far of all starts.
    start : str
        Where this descent began: "whitened" or plain "PCA", a "Gaussian" map, the nearly orthogonal
        vectors of "unbiased bases", the map of a "sample" of the rows or of a "larger k", the noise
        of a random map ("sigma").
    sigma : float or None
        Noise that is left; None in a search, which has none.
    """

    seconds: float
    n_components: int
    passes: int
    sharpness: float
    distortion: float
    start: str
    sigma: float | None = None


class Best:
    """The best map met so far: its coordinates (r, k) and its distortion."""

    def __init__(self) -> None:
        self.distortion = math.inf
        self.coordinates: FloatArray = np.empty((0, 0))

    def offer(self, distortion: float, coordinates: FloatArray) -> None:
        """Keep a copy if it is better."""
        if distortion < self.distortion:
            self.distortion = distortion
            self.coordinates = coordinates.copy()


class Progress:
    """How much of the work is done: passes of a quota, or time of a limit, whichever is further.

    Parameters
    ----------
    passes : int
        Passes over the pairs that may be made.
    seconds : float
        Seconds from now that may be spent; infinite for none.
    goal : float
        Work also ends once the distortion is at most this.
    """

    def __init__(self, passes: int, seconds: float = math.inf, goal: float = 0.0) -> None:
        self._allowed = passes
        self._seconds = seconds
        self._begin = perf_counter()
        self.goal = goal
        self.passes = 0
        self.interrupted = False

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return perf_counter() - self._begin

    def remaining(self) -> float:
        """Return the seconds that are left."""
        return self._seconds - self.elapsed()

    @property
    def share(self) -> float:
        """Return the share of the work that is done."""
        share = self.passes / max(self._allowed, 1)
        if self._seconds < math.inf:
            share = max(share, self.elapsed() / max(self._seconds, 1e-9))
        return share


class _Objective:
    """The smooth maximum at one sharpness, as a function of the coordinates N (r, k), flattened.

    Without a basis the coordinates are the images.
    """

    def __init__(
        self, pairs: PairSet, basis: FloatArray | None, k: int, n_threads: int, progress: Progress
    ) -> None:
        self._pairs, self._basis, self.n_components = pairs, basis, k
        self._n_threads = n_threads
        self._progress = progress
        self.best = Best()
        self.sharpness = self.level = 1.0

    def _evaluate(self, x: FloatArray) -> tuple[Evaluation, FloatArray]:
        self._progress.passes += 1
        coordinates = x.reshape(-1, self.n_components)
        images = coordinates
        if self._basis is not None:
            images = product(self._basis, coordinates, self._n_threads)
        found = self._pairs.evaluate(images, self.sharpness, self.level)
        distortion = distortion_of(found.low, found.high)
        if distortion < self.best.distortion:
            scale = math.sqrt(2.0 / (found.low + found.high))
            self.best.offer(distortion, scale * coordinates)
        return found, coordinates

    def rescale(self, x: FloatArray, sharpness: float) -> FloatArray:
        """Set the sharpness; return x scaled so that the extreme ratios are a and 1/a."""
        self.sharpness, self.level = 0.0, 0.0
        found, _ = self._evaluate(x)
        high = math.sqrt(found.high / found.low)
        self.level = high + 1.0 / high
        self.sharpness = sharpness / max(self.level - 2.0, 1e-15)
        return x * (found.low * found.high) ** -0.25

    def measure(self, coordinates: FloatArray) -> None:
        """Note how good a map is."""
        self.rescale(coordinates.ravel(), 1.0)

    def without_collapse(self, coordinates: FloatArray) -> FloatArray:
        """Return a flat point; with some of a random map mixed in where it collapses a pair."""
        x = coordinates.ravel()
        self.rescale(x, 1.0)
        if self.level < _COLLAPSED:
            return x
        noise = np.random.default_rng(0).standard_normal(x.size)
        return x + _MIXED_IN * norm(x) / norm(noise) * noise

    def smooth_maximum(self, x: FloatArray, sharpness: float) -> float:
        """Return the function at a point and a sharpness, on a scale that all points share."""
        x = self.rescale(x, sharpness)
        return self(x)[0]

    @property
    def left_to_gain(self) -> float:
        """Return the unit in which progress at this sharpness is measured, in units of g."""
        return max(1.0 / self.sharpness, _LEAST_UNIT * (self.level - 2.0))

    def __call__(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Return level + log(F) / p and its gradient; infinity where F overflows."""
        with np.errstate(over="ignore", invalid="ignore"):
            found, _ = self._evaluate(x)
            if not 0.0 < found.total < math.inf:
                return math.inf, np.zeros_like(x)
            value = self.level + math.log(found.total) / self.sharpness
            gradient = found.gradient
            if self._basis is not None:
                gradient = product(self._basis.T, gradient, self._n_threads)
        return value, gradient.ravel() / found.total


class _Memory:
    """The last steps and gradient changes of L-BFGS."""

    def __init__(self, size: int) -> None:
        self._steps, self._changes = np.empty((2, _MEMORY, size))
        self._curvatures = np.empty(_MEMORY)
        self._coefficients = np.empty(_MEMORY)
        self._newest, self.count = -1, 0

    def direction(self, gradient: FloatArray) -> FloatArray:
        """Return minus the approximate inverse Hessian times the gradient."""
        out = np.empty_like(gradient)
        quasi_newton_direction(
            *(self._steps, self._changes, self._curvatures, max(self._newest, 0), self.count),
            *(gradient, self._coefficients, out),
        )
        return out

    def add(self, step: FloatArray, change: FloatArray) -> None:
        """Remember one step, if the function curves upwards along it."""
        curvature = dot(step, change)
        if not curvature > 1e-12 * norm(step) * norm(change):
            return
        self._newest = (self._newest + 1) % _MEMORY
        self.count = min(self.count + 1, _MEMORY)
        self._steps[self._newest], self._changes[self._newest] = step, change
        self._curvatures[self._newest] = curvature

    def clear(self) -> None:
        """Forget everything."""
        self.count = 0


def _line_search(
    function: Callable[[FloatArray], tuple[float, FloatArray]],
    x: FloatArray,
    value: float,
    slope: float,
    direction: FloatArray,
) -> tuple[float, float, FloatArray] | None:
    """Return step, value and gradient at a point of sufficient decrease, by bracketing.

    The last trial that decreases the function is taken if none meets the curvature condition.
    """
    step, low, high = 1.0, 0.0, math.inf
    found = None
    for _ in range(_TRIALS):
        new, gradient = function(x + step * direction)
        if not new <= value + _DECREASE * step * slope:
            high = step
            fitted = -0.5 * slope * step * step / max(new - value - slope * step, 1e-300)
            inside = low + (step - low) * 0.5
            step = min(max(fitted, low + 0.1 * (high - low)), inside)
        else:
            found = step, new, gradient
            if dot(gradient, direction) >= _CURVATURE * slope:
                return found
            low = step
            step = 2.0 * step if high == math.inf else 0.5 * (low + high)
    return found


def _descend(function: _Objective, x: FloatArray, until: float, progress: Progress) -> FloatArray:
    """Lower the function by L-BFGS until it has converged or the share of work is reached."""
    memory = _Memory(x.size)
    value, gradient = function(x)
    values = [value]
    while progress.share < until and function.best.distortion > progress.goal:
        direction = memory.direction(gradient)
        slope = dot(direction, gradient)
        if not slope < 0.0:
            break
        if memory.count == 0:
            factor = _FIRST_STEP * norm(x) / norm(gradient)
            direction, slope = factor * direction, factor * slope
        found = _line_search(function, x, value, slope, direction)
        if found is None:
            if memory.count == 0:
                break
            memory.clear()
            continue
        step, value, new_gradient = found
        step_taken = step * direction
        memory.add(step_taken, new_gradient - gradient)
        x, gradient = x + step_taken, new_gradient
        values.append(value)
        gained = values[max(len(values) - 1 - _WINDOW, 0)] - value
        if len(values) > _WINDOW and gained < _WINDOW * _GAIN * function.left_to_gain:
            break
    return x


def _annealed(
    objective: _Objective,
    x: FloatArray,
    stages: Sequence[tuple[float, float]],
    progress: Progress,
    report: Callable[[HistoryRow], object],
    name: str,
) -> FloatArray:
    """Descend at each sharpness, until its share of the work."""
    for sharpness, until in stages:
        if progress.share >= until or objective.best.distortion <= progress.goal:
            continue
        x = objective.rescale(x, sharpness)
        x = _descend(objective, x, until, progress)
        report(
            HistoryRow(
                *(progress.elapsed(), objective.n_components, progress.passes),
                *(sharpness, objective.best.distortion, name),
            )
        )
    return x


def _schedule(
    stages: Sequence[tuple[float, float]], begin: float, end: float
) -> list[tuple[float, float]]:
    """Replace the shares of the stages by the moments, begin to end, when each must be over."""
    moments = np.cumsum([share for _, share in stages])
    moments = begin + (end - begin) * moments / moments[-1]
    return [
        (sharpness, float(moment)) for (sharpness, _), moment in zip(stages, moments, strict=True)
    ]


def search(
    pairs: PairSet,
    basis: FloatArray | None,
    starts: Mapping[str, FloatArray],
    *,
    references: Sequence[FloatArray] = (),
    n_threads: int = 1,
    progress: Progress,
    sharpness: tuple[float, float] = (0.0, math.inf),
    report: Callable[[HistoryRow], object],
) -> Best:
    """Return the best map found from several starts; after KeyboardInterrupt the best so far.

    Parameters
    ----------
    pairs : PairSet
        Pairs of rows, whose distortion counts.
    basis : (n, r) array or None
        Images are ``basis @ coordinates``; None where coordinates are the images themselves.
    starts : mapping of names to (r, k) arrays
        Each is carried through the stages of low sharpness, the best of them to the end.
    references : sequence of (r, k) arrays
        Maps that are measured only: the result is not worse than any of them or of the starts.
    progress : Progress
        Quota of passes, time limit, goal; says afterwards whether the search was interrupted.
    sharpness : tuple of two floats
        Stages outside are left out: early ones for starts that are good already, late ones on a
        sample.
    report : callable
        Gets a row at the end of each stage.
    """
    k = next(iter(starts.values())).shape[1]
    objective = _Objective(pairs, basis, k, n_threads, progress)
    for coordinates in (*references, *starts.values()):
        objective.measure(coordinates)
    stages = [stage for stage in _STAGES if sharpness[0] <= stage[0] <= sharpness[1]]
    try:
        _run_stages(objective, starts, stages, progress, report)
    except KeyboardInterrupt:
        progress.interrupted = True
    return objective.best


def _run_stages(
    objective: _Objective,
    starts: Mapping[str, FloatArray],
    stages: Sequence[tuple[float, float]],
    progress: Progress,
    report: Callable[[HistoryRow], object],
) -> None:
    """Carry all starts through the early stages, and the best through the late ones."""
    early = [stage for stage in stages if stage[0] < _COMPARED_AT]
    points = {name: objective.without_collapse(start) for name, start in starts.items()}
    name = next(iter(points))
    if len(points) > 1 and early:
        stages = stages[len(early) :]
        ends = np.linspace(0.0, _SHARE_OF_STARTS if stages else 1.0, len(points) + 1)
        for i, (name, point) in enumerate(points.items()):
            schedule = _schedule(early, ends[i], ends[i + 1])
            points[name] = _annealed(objective, point, schedule, progress, report, name)
        values = {
            name: objective.smooth_maximum(point, _COMPARED_AT) for name, point in points.items()
        }
        name = min(values, key=lambda name: values[name])
    if stages:
        schedule = _schedule(stages, progress.share, 1.0)
        _annealed(objective, points[name], schedule, progress, report, name)
