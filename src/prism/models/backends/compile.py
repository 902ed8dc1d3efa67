"""torch.compile, block by block: the exchange of a sequence plan stays outside.

Compiled is what a block does from its input on, except attention itself: hooks run before a block,
and what a plan puts into attention runs as it is. So whole batches and parts of a sequence gain
alike. Kernels are made for any number of samples and rows, once for one and once for more, and all
of them when a model is loaded: a rehearsal calls the model in every way that requests will.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prism.models.backends.base import Call
from prism.models.backends.failure import named_failure
from prism.models.backends.instead import instead
from prism.models.backends.rehearsal import rehearse
from prism.models.instrument import leave_uncompiled
from prism.models.load import LoadedModel
from prism.models.sites import sites_of

# Kernels of one piece of code: by samples, rows and masks (one or more, with or without), for
# plain and for partitioned attention, and for layers of several kinds.
_MOST_KERNELS = 64


class CompileBackend:
    """torch.compile around the blocks' own work; see `Backend`."""

    name = "compile"
    hooked = True

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return why this model cannot run so here; see `Backend.obstacle`."""
        if loaded.precision != "float32":
            return f"the products of {loaded.precision} are kernels already; use eager for it"
        if next(loaded.model.parameters()).device.type == "cuda":
            if importlib.util.find_spec("triton") is None:
                return "compile needs triton on GPUs: pip install triton"
            return ""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"compile needs a C++ compiler, and {compiler} was not found; install g++"
        if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
            return "compile needs Python's headers; install python3-dev"
        return ""

    def prepare(self, loaded: LoadedModel) -> Call:
        """Compile a model's blocks and call it until nothing is left to compile.

        See `Backend.prepare`.
        """
        with named_failure(self, loaded), _compiling():
            leave_uncompiled()
            blocks = [site.block for site in sites_of(loaded.info.family, loaded.model)]
            call = _CompiledBlocks(loaded.model, blocks)
            rehearse(loaded, call)
            return call


class _CompiledBlocks:
    """Runs a model with compiled blocks; outside its calls the model is as it was."""

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        self._model = model
        self._blocks = [(block, torch.compile(block.forward, dynamic=True)) for block in blocks]

    def __call__(self, **inputs: Any) -> Any:
        with ExitStack() as undo:
            for block, forward in self._blocks:
                undo.callback(instead(block, forward))
            return self._model(**inputs)


@contextmanager
def _compiling() -> Iterator[None]:
    """Let the compiler make as many kernels as there are cases, and keep its warnings to itself.

    They are of what torch's own parts do with each other.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", module=r"torch\.")
        # Imported late: it takes seconds, and memory, that other backends need not spend.
        import torch._dynamo.config as dynamo

        # For good: beyond its limit the compiler also stops looking for kernels that are there.
        dynamo.cache_size_limit = max(dynamo.cache_size_limit, _MOST_KERNELS)
        yield
