"""Functions of the package for compiled callers: C pointers, scipy's low-level callables, Numba.

Three roads lead from other people's compiled code into this package, none through the interpreter.

C pointers
----------
`address` returns an integer that C, Cython, ctypes, cffi or Numba call. `c_signature` says how.

- Scalar functions: the activations "smooth_relu", "smooth_relu_squared", "smooth_relu_cubed"
  (parameter iota, default 2), "tanh", "erf", "quadratic", "linear" of x, with 4 derivatives; "exp",
  "normal_pdf"; "normal_cdf" and "sign_mean" E[sign(x + h)] = erf(h / sqrt 2), with one derivative;
  the edge functions of the smoothed cut of (h, k, r): "sign_correlation"
  Psi = E[sign(x + h) sign(y + k)] for standard normals of correlation r, with two derivatives in h,
  and "sign_correlation_rate" d Psi / dr = d2 Psi / dh dk, for |r| < 1 as the derivatives;
  "squared_loss", "logistic_loss", "pseudo_huber_loss" (parameter delta, default 1) of
  (output, target), with two derivatives in the output.
- Local search, row ascent and rounding of cuts: the functions of ``derand_fast.kernels.cuts``
  ("cut_flip_gains", "cut_one_flip_ascent", "cut_value", "cut_mixing_sweeps", ...).
- Gauss-Hermite sums: those of ``derand_fast.kernels.gauss_hermite`` ("gauss_hermite_mean", ...).

The ``.pxd`` files of these two modules, and of ``derand_fast.kernels.lanczos``, lie beside them:
Cython modules ``cimport`` them. They also say what each argument and status code means; 1 is
success. Scalar functions are compiled at first use and kept on disk. Every function is
thread-safe and needs no GIL, and its address is valid until the process ends.

Scalar functions come in four forms. ``context`` points to the parameter, one double, or is null:

========  ========================================================================  ===============
form      C function                                                                taken by scipy's
========  ========================================================================  ===============
"number"  double f(double x, void *context)                                         quad
"vector"  double f(int n, double *x, void *context), n arguments in x               quad, nquad
"window"  int f(double *x, intptr_t n, double *value, void *context)                generic_filter
"line"    int f(double *x, intptr_t n, double *values, intptr_t n, void *context)   generic_filter1d
========  ========================================================================  ===============

A wrong n makes "vector" return NaN, and "window" and "line" return 0, failure.

scipy
-----
`low_level_callable` wraps a scalar function, with its parameter, as ``scipy.LowLevelCallable``.

Numba
-----
The kernels that `STABLE_KERNELS` lists, by module of ``derand_fast.kernels``, are public: their
names, arguments and results stay as their docstrings have them until a major release. They are
serial njit functions without the GIL, and callable from other njit functions, also within a
``prange``. They check nothing: arrays must have the dtypes and shapes of their docstrings. Other
names under ``derand_fast.kernels`` may change in any release. `network_plan` prepares a network's
risk for the kernels of ``embedded_network``.
"""

from __future__ import annotations

import ctypes
from typing import Any

from scipy import LowLevelCallable

from derand_fast.checks import finite_number, whole_number
from derand_fast.kernels import cuts, gauss_hermite
from derand_fast.kernels.c_functions import FORMS, SCALAR_FUNCTIONS, scalar_c_function
from derand_fast.kernels.embedded_network import NetworkPlan
from derand_fast.kernels.network import KEEP_NONE
from derand_fast.objectives.node_risk import NodeRisk

__all__ = [
    "STABLE_KERNELS",
    "address",
    "c_signature",
    "function_names",
    "low_level_callable",
    "network_plan",
]

STABLE_KERNELS: dict[str, tuple[str, ...]] = {
    "activations": ("activation_at", "apply_activation"),
    "embedded_network": ("network_value_and_gradient", "network_workspace"),
    "losses": ("loss_terms",),
    "matmul": ("multiply", "workspace_size"),
    "maxcut": (
        "anneal_rows",
        "cut_value",
        "flip_gains",
        "merge_cuts",
        "mixing_sweeps",
        "one_flip_ascent",
        "round_to_signs",
        "sdp_dual",
        "spanning_forest_cut",
    ),
    "smoothed_cut": (
        "gradient_rows",
        "prepare_rates",
        "prepare_vertices",
        "product_rows",
        "shifted_hessian_bb_product",
        "sum_in_blocks",
        "value_rows",
    ),
    "special": (
        "exp",
        "normal_cdf",
        "normal_pdf",
        "sign_correlation",
        "sign_mean",
    ),
}

_C_MODULES = (cuts, gauss_hermite)
# Prototypes of our own: those of ctypes.pythonapi belong to everybody.
_get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def function_names() -> tuple[str, ...]:
    """Names that `address` knows, sorted.

    Examples
    --------
    >>> from derand_fast.callables import function_names
    >>> {"smooth_relu", "sign_correlation", "cut_value"} <= set(function_names())
    True
    """
    names = [name for module in _C_MODULES for name in module.__pyx_capi__]
    return tuple(sorted([*SCALAR_FUNCTIONS, *names]))


def address(name: str, *, derivative: int = 0, form: str | None = None) -> int:
    """Return the address of a C function, valid until the process ends.

    Parameters
    ----------
    name : str
        One of `function_names`.
    derivative : int
        Which derivative of a scalar function, in its first argument; 0 is the value.
    form : {"number", "vector", "window", "line"}, optional
        Form of a scalar function: "number" for functions of one argument, else "vector".

    Returns
    -------
    int
        A scalar function is compiled by the first call that asks for it: about 0.3 s, and 0.01 s
        in later processes. Calling it takes the time of the function and 2 ns.

    Raises
    ------
    TypeError, ValueError
        If the name, derivative or form is not known, or a C function of another kind is asked for
        a derivative or form.

    Examples
    --------
    >>> import ctypes
    >>> from derand_fast.callables import address
    >>> function = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_void_p)
    >>> slope = function(address("smooth_relu", derivative=1))
    >>> slope(0.0, None)
    0.5
    """
    if name in SCALAR_FUNCTIONS:
        return int(_scalar(name, derivative, form).address)
    capsule = _capsule(name)
    if derivative != 0 or form is not None:
        raise ValueError(f"{name} has no derivatives and no forms; it is not a scalar function")
    return int(_get_pointer(capsule, _get_name(capsule)))


def c_signature(name: str, *, form: str | None = None) -> str:
    """Return the C type of a function, without names of arguments.

    Parameters
    ----------
    name : str
        One of `function_names`.
    form : {"number", "vector", "window", "line"}, optional
        Form of a scalar function, as in `address`.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the name or form is not known.

    Examples
    --------
    >>> from derand_fast.callables import c_signature
    >>> c_signature("smooth_relu")
    'double (double, void *)'
    >>> c_signature("cut_mixing_workspace")
    'Py_ssize_t (Py_ssize_t)'
    """
    if name in SCALAR_FUNCTIONS:
        return FORMS[_checked_form(name, form)].c_signature
    capsule = _capsule(name)
    if form is not None:
        raise ValueError(f"{name} has no forms; it is not a scalar function")
    # Cython puts the path of the module before the names of function types.
    text: str = _get_name(capsule).decode()
    return text.replace("__pyx_t_11derand_fast_7kernels_13gauss_hermite_", "")


def low_level_callable(
    name: str, *, derivative: int = 0, form: str | None = None, **parameter: float
) -> LowLevelCallable:
    """Wrap a scalar function for scipy, which then calls it without the interpreter.

    Parameters
    ----------
    name : str
        A scalar function (see the module's docstring).
    derivative : int
        Which derivative in the first argument; 0 is the value.
    form : {"number", "vector", "window", "line"}, optional
        "number" (functions of one argument; the default for them) and "vector" (the default for
        others) are for ``scipy.integrate``, whose variable is the first argument and whose ``args``
        are the rest; "window" is for ``scipy.ndimage.generic_filter`` with as many elements in its
        footprint as there are arguments, "line" for ``generic_filter1d``.
    **parameter : float
        iota or delta, positive, where the function has it.

    Returns
    -------
    scipy.LowLevelCallable
        It owns the parameter. An evaluation costs about 20 ns beside the function's own time.

    Raises
    ------
    TypeError, ValueError
        If the name, derivative, form or parameter is not known, or the parameter not positive.

    Examples
    --------
    The mean of sigmoid(2 x) over [-1, 1]:

    >>> from scipy.integrate import quad
    >>> from derand_fast.callables import low_level_callable
    >>> slope = low_level_callable("smooth_relu", derivative=1, iota=2.0)
    >>> round(quad(slope, -1.0, 1.0)[0] / 2, 12)
    0.5
    """
    function = _scalar(name, derivative, form)
    known = SCALAR_FUNCTIONS[name]
    for key, number in parameter.items():
        if key != known.parameter:
            has = "no parameter" if known.parameter is None else f"the parameter {known.parameter}"
            raise TypeError(f"{name} has {has}; got {key}")
        if finite_number(key, number, 0.0) == 0.0:
            raise ValueError(f"{key} must be positive, got {number}")
    if not parameter:
        return LowLevelCallable(function.ctypes)
    context: Any = ctypes.cast((ctypes.c_double * 1)(*parameter.values()), ctypes.c_void_p)
    return LowLevelCallable(function.ctypes, context)


def network_plan(risk: NodeRisk) -> NetworkPlan:
    """Describe a network's risk to ``derand_fast.kernels.embedded_network``.

    Parameters
    ----------
    risk : NodeRisk
        In float64. It must live as long as the plan is used.

    Returns
    -------
    NetworkPlan
        A named tuple that njit functions take. Any number of threads may share it.

    Raises
    ------
    TypeError
        If ``risk`` is no NodeRisk.
    ValueError
        If it computes in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.callables import network_plan
    >>> from derand_fast.kernels.embedded_network import (
    ...     network_value_and_gradient,
    ...     network_workspace,
    ... )
    >>> from derand_fast.objectives.node_risk import NodeRisk
    >>> risk = NodeRisk((1, 2, 1), "quadratic", [[1.0], [2.0]], [0.5, 0.5], [0.0, 0.0])
    >>> plan = network_plan(risk)
    >>> p, gradient = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]), np.empty(7)
    >>> network_value_and_gradient(plan, network_workspace(plan), p, gradient)
    8.5
    """
    if not isinstance(risk, NodeRisk):
        raise TypeError(f"risk must be a NodeRisk, not {risk!r}")
    if risk.dtype != float:
        raise ValueError(f"risk must compute in float64, not {risk.dtype}")
    scratch = risk._scratch()
    shape = risk._shape(1, risk.active, False, KEEP_NONE)
    return NetworkPlan(
        **risk._tools._asdict(),
        widths=shape.widths,
        weights_at=shape.weights_at,
        buffers_at=shape.buffers_at,
        active=shape.active,
        lowest=shape.lowest,
        kept_at=shape.kept_at,
        code=shape.code,
        iota=shape.iota,
        block=shape.block,
        **risk._nodes._asdict(),
        loss_address=risk._loss.address,
        loss_code=risk._loss.code,
        delta=risk._loss.delta,
        n_strands=risk._strands(risk.n_nodes),
        n_params=risk.n_params,
        buffers_size=scratch.buffers.size,
        packing_size=scratch.packing.size,
    )


def _scalar(name: str, derivative: int, form: str | None) -> Any:
    form = _checked_form(name, form)
    order = whole_number("derivative", derivative, 0)
    highest = len(SCALAR_FUNCTIONS[name].derivatives) - 1
    if order > highest:
        raise ValueError(f"derivative of {name} must be at most {highest}, got {order}")
    return scalar_c_function(name, order, form)


def _checked_form(name: str, form: str | None) -> str:
    if name not in SCALAR_FUNCTIONS:
        raise ValueError(f"name must be one of {', '.join(SCALAR_FUNCTIONS)}; got {name!r}")
    arguments = SCALAR_FUNCTIONS[name].arguments
    if form is None:
        return "number" if len(arguments) == 1 else "vector"
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if len(arguments) > 1 and form in ("number", "line"):
        raise ValueError(
            f"{name} has the arguments {', '.join(arguments)}; "
            f"form must be 'vector' or 'window', got {form!r}"
        )
    return form


def _capsule(name: str) -> Any:
    for module in _C_MODULES:
        if name in module.__pyx_capi__:
            return module.__pyx_capi__[name]
    raise ValueError(f"name must be one of {', '.join(function_names())}; got {name!r}")
