"""Scalar functions of the kernels as C functions, compiled and kept on disk at first use.

Each function f(x_1, ..., x_k; parameter) comes in three forms, which read x from where C libraries
put it:

    number  double f(double x, void *context)                       k = 1
    vector  double f(int n, double *x, void *context)               NaN unless n = k
    window  int f(double *x, intptr_t n, double *value, void *context)
            writes f to *value and returns 1; 0 (failure) unless n = k
    line    int f(double *x, intptr_t n, double *values, intptr_t m, void *context)
            writes f(x[i]) to values[i] and returns 1; 0 (failure) unless m = n;  k = 1

``context`` points to one double, the parameter, or is null for its default. The functions are
re-entrant, hold no lock and need no GIL.

Functions are made from templates: the same code with other values of the global names in capitals.
Each is compiled with those as constants and, under a name of its own, has its own file in the disk
cache; closures would have none.
"""

import functools
import math
import types as python_types
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

import derand_fast.kernels.activations as activations
from derand_fast.kernels._jit import c_function, kernel
from derand_fast.kernels.activations import ACTIVATIONS, HIGHEST_DERIVATIVE
from derand_fast.kernels.losses import LOSSES, loss_terms
from derand_fast.kernels.smoothed_cut import edge_density
from derand_fast.kernels.special import exp, normal_cdf, normal_pdf, sign_correlation, sign_mean

Template = Callable[..., Any]

# Filled in for each function.
CALLEE: Any = None
CODE = DERIVATIVE = COUNT = 0
DEFAULT = math.nan


def _instance(template: Template, name: str, **constants: Any) -> Template:
    """Return a function of the template's code whose global names stand for these constants."""
    function = python_types.FunctionType(template.__code__, {**globals(), **constants}, name)
    function.__qualname__ = name
    return function


# ------------------------------------------------------------------------------------------------
# Functions of a parameter and up to three numbers
# ------------------------------------------------------------------------------------------------


def _activation(parameter: float, x: float, _y: float, _z: float) -> float:
    return CALLEE(parameter, x)[DERIVATIVE]


def _of_one(_parameter: float, x: float, _y: float, _z: float) -> float:
    return CALLEE(x)


def _of_three(_parameter: float, x: float, y: float, z: float) -> float:
    return CALLEE(x, y, z)


def _loss(parameter: float, output: float, target: float, _z: float) -> float:
    return loss_terms(CODE, parameter, output, target)[DERIVATIVE]


@kernel(fastmath=False)
def _sign_mean_slope(h: float) -> float:
    """2 phi(h)."""
    return 2.0 * normal_pdf(h)


@kernel(fastmath=False)
def _correlation_slope(h: float, k: float, r: float) -> float:
    """Slope d Psi / dh = 2 phi(h) erf((k - r h) / sqrt(2 (1 - r^2)))."""
    return 2.0 * normal_pdf(h) * edge_density(h, k, r, (1.0 - r) * (1.0 + r))[1]


@kernel(fastmath=False)
def _correlation_curvature(h: float, k: float, r: float) -> float:
    """Curvature d2 Psi / dh2 = -h d Psi / dh - r d Psi / dr."""
    density, slope = edge_density(h, k, r, (1.0 - r) * (1.0 + r))
    return -2.0 * h * normal_pdf(h) * slope - 4.0 * r * density


@kernel(fastmath=False)
def _correlation_rate(h: float, k: float, r: float) -> float:
    """Rate d Psi / dr = d2 Psi / dh dk = 4 times the density of the two normals at (h, k)."""
    return 4.0 * edge_density(h, k, r, (1.0 - r) * (1.0 + r))[0]


class ScalarFunction(NamedTuple):
    """What is known of one function."""

    arguments: tuple[str, ...]
    # Template and constants of the value and of each derivative in the first argument.
    derivatives: tuple[tuple[Template, dict[str, Any]], ...]
    parameter: str | None = None
    default: float = math.nan


def _activation_functions() -> dict[str, ScalarFunction]:
    table = {}
    for name in ACTIVATIONS:
        callee = getattr(activations, f"_{name}_at")
        derivatives = tuple(
            (_activation, {"CALLEE": callee, "DERIVATIVE": k})
            for k in range(HIGHEST_DERIVATIVE + 1)
        )
        parameter = ("iota", 2.0) if name.startswith("smooth_relu") else ()
        table[name] = ScalarFunction(("x",), derivatives, *parameter)
    return table


def _loss_functions() -> dict[str, ScalarFunction]:
    table = {}
    for name, code in LOSSES.items():
        derivatives = tuple((_loss, {"CODE": code, "DERIVATIVE": k}) for k in range(3))
        parameter = ("delta", 1.0) if name == "pseudo_huber" else ()
        table[f"{name}_loss"] = ScalarFunction(("output", "target"), derivatives, *parameter)
    return table


def _plain(arguments: tuple[str, ...], *callees: Any) -> ScalarFunction:
    template = _of_one if len(arguments) == 1 else _of_three
    return ScalarFunction(arguments, tuple((template, {"CALLEE": callee}) for callee in callees))


SCALAR_FUNCTIONS: dict[str, ScalarFunction] = {
    **_activation_functions(),
    "exp": _plain(("x",), exp),
    "normal_pdf": _plain(("x",), normal_pdf),
    "normal_cdf": _plain(("x",), normal_cdf, normal_pdf),
    "sign_mean": _plain(("h",), sign_mean, _sign_mean_slope),
    "sign_correlation": _plain(
        ("h", "k", "r"), sign_correlation, _correlation_slope, _correlation_curvature
    ),
    "sign_correlation_rate": _plain(("h", "k", "r"), _correlation_rate),
    **_loss_functions(),
}

# ------------------------------------------------------------------------------------------------
# Forms
# ------------------------------------------------------------------------------------------------


@intrinsic
def _number_at(typingctx: Any, address: Any, default: Any) -> Any:
    """_number_at(address, default): the double there, or the default if the pointer is null."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double = context.get_value_type(types.float64)
        place = builder.bitcast(args[0], double.as_pointer())
        result = cgutils.alloca_once_value(builder, args[1])
        with builder.if_then(cgutils.is_not_null(builder, place)):
            builder.store(builder.load(place), result)
        return builder.load(result)

    return types.float64(types.voidptr, types.float64), generate


def _number_form(x: float, context: Any) -> float:
    return CALLEE(_number_at(context, DEFAULT), x, 0.0, 0.0)


def _vector_form(n: int, x: Any, context: Any) -> float:
    if n != COUNT:
        return math.nan
    y = x[1] if COUNT > 1 else 0.0
    z = x[2] if COUNT > 2 else 0.0
    return CALLEE(_number_at(context, DEFAULT), x[0], y, z)


def _window_form(x: Any, n: int, value: Any, context: Any) -> int:
    if n != COUNT:
        return 0
    y = x[1] if COUNT > 1 else 0.0
    z = x[2] if COUNT > 2 else 0.0
    value[0] = CALLEE(_number_at(context, DEFAULT), x[0], y, z)
    return 1


def _line_form(x: Any, n: int, values: Any, m: int, context: Any) -> int:
    if n != m:
        return 0
    parameter = _number_at(context, DEFAULT)
    for i in range(n):
        values[i] = CALLEE(parameter, x[i], 0.0, 0.0)
    return 1


class Form(NamedTuple):
    """Template, type for Numba and type in C of one form."""

    template: Template
    signature: Any
    c_signature: str


_DOUBLES = types.CPointer(types.float64)
FORMS = {
    "number": Form(
        _number_form,
        types.float64(types.float64, types.voidptr),
        "double (double, void *)",
    ),
    "vector": Form(
        _vector_form,
        types.float64(types.intc, _DOUBLES, types.voidptr),
        "double (int, double *, void *)",
    ),
    "window": Form(
        _window_form,
        types.intc(_DOUBLES, types.intp, _DOUBLES, types.voidptr),
        "int (double *, intptr_t, double *, void *)",
    ),
    "line": Form(
        _line_form,
        types.intc(_DOUBLES, types.intp, _DOUBLES, types.intp, types.voidptr),
        "int (double *, intptr_t, double *, intptr_t, void *)",
    ),
}


@functools.cache
def scalar_c_function(name: str, derivative: int, form: str) -> Any:
    """Return the compiled C function; it lives until the process ends."""
    known = SCALAR_FUNCTIONS[name]
    template, constants = known.derivatives[derivative]
    own_name = f"{name}_{derivative}"
    callee = kernel(fastmath=False, inline=True)(_instance(template, own_name, **constants))
    count, default = len(known.arguments), known.default
    function = _instance(
        FORMS[form].template, f"{own_name}_{form}", CALLEE=callee, COUNT=count, DEFAULT=default
    )
    return c_function(FORMS[form].signature, function)
