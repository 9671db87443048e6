# For compiled callers only: see gauss_hermite.pxd.
__all__: list[str]
# Addresses of the functions, by name: what cimport reads.
__pyx_capi__: dict[str, object]
