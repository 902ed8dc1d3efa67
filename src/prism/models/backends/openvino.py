"""OpenVINO, for whole models on the CPU in float32 and in half precision."""

from __future__ import annotations

import importlib.util
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from prism.models.backends.base import Call
from prism.models.backends.failure import named_failure
from prism.models.backends.graph import Arrays, GraphCall, graph_obstacle, graph_of, tracing
from prism.models.load import LoadedModel
from prism.plan import ModelShape, Precision

_DEVICE = "CPU"
# What OpenVINO calls a half that a processor computes with, the one that is like torch's first.
_HALVES = {"BF16": "bf16", "FP16": "f16"}


class OpenVinoBackend:
    """Models converted to OpenVINO; see `Backend`.

    `half` stores and multiplies in bfloat16, or in float16 on processors that have only that.
    """

    name = "openvino"
    hooked = False

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return why this model cannot run so here; see `Backend.obstacle`."""
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed: pip install 'prism-edge[openvino]'"
        if loaded.precision == "int8":
            return "openvino runs models in float32 and half here; use eager for int8"
        if loaded.precision == "half" and not _half():
            return "openvino computes in no half precision on this processor; use float32"
        return graph_obstacle(loaded, self.name)

    def prepare(self, loaded: LoadedModel) -> Call:
        """Convert and compile a model; see `Backend.prepare`."""
        with named_failure(self, loaded):
            graph = graph_of(loaded)
            request = _Request(graph, loaded.precision)
            return GraphCall(
                graph, request, loaded.model, partial(_leaves_no_row_blank, loaded.info.shape)
            )


class _Request:
    """Runs one compiled graph, one call at a time."""

    def __init__(self, graph: Any, precision: Precision) -> None:
        import openvino

        with tracing():
            trace: Any = torch.jit.trace
            traced = trace(graph.module, graph.example, check_trace=False, strict=False)
            model = openvino.convert_model(traced, example_input=graph.example)
        axes = graph.dynamic_axes()
        for port, name, example in zip(model.inputs, graph.inputs, graph.example, strict=True):
            shape = [-1 if axis in axes[name] else size for axis, size in enumerate(example.shape)]
            port.get_node().set_partial_shape(openvino.PartialShape(shape))
        model.validate_nodes_and_infer_types()
        compiled = openvino.Core().compile_model(model, _DEVICE, _options(precision))
        self._inputs = graph.inputs
        self._request = compiled.create_infer_request()
        self._ports = compiled.outputs

    def __call__(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        given = [arrays[name] for name in self._inputs]
        # The results are copied: the request's own memory is overwritten by the next call.
        found = self._request.infer(given, share_inputs=True, share_outputs=False)
        return [found[port] for port in self._ports]


def _leaves_no_row_blank(shape: ModelShape, mask_BN: torch.Tensor) -> bool:
    """Return whether every row, padding too, attends to some token.

    OpenVINO's attention makes NaN of a row that may not, and NaN spreads to those that may.
    """
    if shape.windowed:
        return bool(mask_BN.all())
    return not shape.causal or bool(mask_BN[:, 0].all())


def _options(precision: Precision) -> dict[str, Any]:
    hint = _half() if precision == "half" else "f32"
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }


@cache
def _half() -> str:
    """Return the half precision of this processor as OpenVINO writes it; empty without one."""
    import openvino

    able = openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return next((hint for name, hint in _HALVES.items() if name in able), "")
