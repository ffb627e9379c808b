"""What stands in a program where a platform cannot run it: lowering it raises, tracing it does not.

A call is traced for all platforms before it is known which of them it is for.
"""

from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

_refused = Primitive("refused")
_refused.def_abstract_eval(lambda x, *, reason: x)
batching.defvectorized(_refused)


def refused(x: Array, reason: str) -> Array:
    """`x`, in a program that cannot be: raises ValueError with the reason when it is lowered."""
    return _refused.bind(x, reason=reason)


@_refused.def_impl
def _raise(x, *, reason):
    raise ValueError(reason)


mlir.register_lowering(_refused, lambda context, x, *, reason: _raise(x, reason=reason))
