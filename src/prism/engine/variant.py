"""A loaded model at one precision, made callable by a backend, ready for any strategy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from prism.errors import Cancelled, ModelFailed, NodeFailed, PrismError
from prism.models.backends import Backend
from prism.models.inputs import prepare
from prism.models.instrument import BeforeBlock, Instrumented
from prism.models.load import LoadedModel
from prism.models.outputs import Reduction
from prism.partition.forward_pass import ForwardPass, PassComplete
from prism.transport.base import Transport
from prism.transport.staging import Staging

_MACHINE_ERRORS = (torch.OutOfMemoryError, MemoryError, OSError)
# How torch words a machine's trouble in a plain RuntimeError.
_MACHINE_WORDS = ("can't allocate memory", "not enough memory", "CUDA error", "cuDNN", "CUBLAS_")


class Variant:
    """The `Runner` of strategies; runs one request at a time.

    Args:
        loaded: the model; its blocks are hooked until `close`.
        backend: makes it callable.

    Attributes:
        loaded: the model.
        device: where it lives.
        backend: name of the backend.
        hooked: whether whole batches, too, run through the hooked blocks.

    Raises:
        UnsupportedModel: the model is laid out differently from its family.
        UnsupportedPrecision: the backend cannot run it here.
    """

    def __init__(self, loaded: LoadedModel, backend: Backend) -> None:
        self._call = backend.prepare(loaded)
        self.loaded = replace(loaded, origin=None)
        self.backend = backend.name
        self.hooked = backend.hooked
        self.device = next(loaded.model.parameters()).device
        self._instrumented = Instrumented(loaded.model, loaded.info.family)
        self._staging: dict[Transport, Staging] = {}

    def forward(
        self,
        inputs: Mapping[str, Any],
        forward_pass: ForwardPass | None,
        should_cancel: Callable[[], bool],
        reduction: Reduction,
        before_block: BeforeBlock | None = None,
    ) -> Any:
        """Return what becomes of the model's output; None where its blocks are left early.

        Args:
            inputs: as the caller gave them.
            forward_pass: decides what the blocks compute; None = what plain transformers would.
            should_cancel: asked before every block; before the first where blocks are not hooked.
            reduction: makes the wanted form of the output.
            before_block: see `Instrumented.running`; for hooked variants.

        Raises:
            Cancelled, ModelFailed, NodeFailed, PeerLost, DeadlineExceeded: as `Engine.run`.
        """
        if not self.hooked and should_cancel():
            raise Cancelled("the request was given up; it ended before the first block")
        try:
            prepared = prepare(self.loaded.info, inputs, self.loaded.model)
            running = self._instrumented.running(forward_pass, should_cancel, before_block)
            with torch.inference_mode(), running:
                try:
                    output = self._called(prepared, reduction.base_only, forward_pass is not None)
                    output = reduction(output)
                except PassComplete:
                    output = None
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                return output
        except PrismError:
            raise
        except Exception as error:
            raise _as_prism_error(error) from error

    def staging_for(self, transport: Transport) -> Staging:
        """Return the frames of this transport, kept so that they are reused while it lives."""
        if transport not in self._staging:
            self.drop_frames()
            self._staging[transport] = Staging(self.device, transport.header_bytes)
        self._staging[transport].reset()
        return self._staging[transport]

    def drop_frames(self) -> None:
        """Let go of the frames of closed transports; those of others may still be on their way."""
        self._staging = {each: kept for each, kept in self._staging.items() if not each.closed}

    def close(self) -> None:
        """Take the hooks off the model and let go of the frames. Safe to call twice."""
        self._instrumented.remove()
        self._staging.clear()

    def _called(self, prepared: Mapping[str, Any], base_only: bool, partitioned: bool) -> Any:
        """Call the model, or only what is below its head, with the inputs that this takes.

        A part of a sequence is computed by the hooked blocks, whatever the backend, and what is
        below the head by the model itself.
        """
        model: Any = self.loaded.model
        call: Any = self._call if self.hooked or not partitioned else model
        if base_only:
            call = model.base_model
            known = inspect.signature(call.forward).parameters
            prepared = {key: prepared[key] for key in prepared if key in known}
        output = call(**prepared)
        return as_float32(output) if self.loaded.precision == "half" else output


def as_float32(output: Any) -> Any:
    """Return a model's output with its halves widened, in place where it is a transformers one."""
    if isinstance(output, torch.Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, tuple | list):
        return type(output)(as_float32(each) for each in output)
    if is_dataclass(output) and isinstance(output, dict):  # a ModelOutput
        for field in fields(output):
            value = getattr(output, field.name)
            if value is not None:
                setattr(output, field.name, as_float32(value))
    return output


def _as_prism_error(error: Exception) -> PrismError:
    """Tell a machine's failure, which another node may not have, from the model's own."""
    text = f"{type(error).__name__}: {error}"
    of_machine = isinstance(error, RuntimeError) and any(
        words in str(error) for words in _MACHINE_WORDS
    )
    if isinstance(error, _MACHINE_ERRORS) or of_machine:
        return NodeFailed(text)
    return ModelFailed(text)
