"""Kernels: what runs hot. They know only arrays and numbers; checks happen in the callers.

Inputs are C-contiguous arrays, outputs are passed in, nothing is validated. Import them from
``derand_fast.kernels.<module>``. Those in ``derand_fast.callables.STABLE_KERNELS`` are public and
callable from your own njit code, also in a prange; the others may change in any release.
``cuts``, ``gauss_hermite`` and ``lanczos`` have a ``.pxd`` beside them for Cython.
"""
