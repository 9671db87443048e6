"""Kernels: what runs hot. They know only arrays and numbers; checks happen in the callers.

Inputs are C-contiguous arrays, outputs are passed in, nothing is validated. Import them from
``derand_fast.kernels.<module>``; each function is also callable from your own njit code.
"""
