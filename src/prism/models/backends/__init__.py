"""What makes a loaded model callable: plain transformers, a compiler, or another runtime.

A backend is one file and one row in `registry`; nothing outside this package knows of any but
`EAGER`. `choose` tries it on the model and compares it with eager.
"""

from prism.models.backends.base import Backend
from prism.models.backends.registry import AUTO, BACKENDS, EAGER
from prism.models.backends.selection import Prepared, check_backend, choose

__all__ = ["AUTO", "BACKENDS", "EAGER", "Backend", "Prepared", "check_backend", "choose"]
