"""ONNX Runtime, for whole models on the CPU in float32."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prism.models.backends.base import Call
from prism.models.backends.failure import named_failure
from prism.models.backends.graph import Arrays, Graph, GraphCall, graph_obstacle, graph_of, tracing
from prism.models.load import LoadedModel

# The newest whose attention and normalisation torch's exporter writes as ONNX's own operators.
_OPSET = 17
_ERRORS_ONLY = 3


class OnnxRuntimeBackend:
    """Models exported to ONNX; see `Backend`."""

    name = "onnxruntime"
    hooked = False

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return why this model cannot run so here; see `Backend.obstacle`."""
        # The exporter writes with the package onnx.
        missing = [each for each in ("onnxruntime", "onnx") if not importlib.util.find_spec(each)]
        if missing:
            return f"{missing[0]} is not installed: pip install 'prism-edge[onnxruntime]'"
        if loaded.precision != "float32":
            return f"onnxruntime runs models in float32 here; use eager for {loaded.precision}"
        return graph_obstacle(loaded, self.name)

    def prepare(self, loaded: LoadedModel) -> Call:
        """Export a model and open a session on it; see `Backend.prepare`."""
        with named_failure(self, loaded):
            graph = graph_of(loaded)
            return GraphCall(graph, _Session(graph), loaded.model)


class _Session:
    """Runs one exported graph."""

    def __init__(self, graph: Graph) -> None:
        # A file, since weights beyond 2 GB are written beside the graph.
        with tempfile.TemporaryDirectory(prefix="prism-onnx-") as folder:
            path = Path(folder) / "model.onnx"
            _export(graph, path)
            self._session = _open(path)
        self._names = [each.name for each in self._session.get_inputs()]

    def __call__(self, arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        found: list[np.ndarray[Any, Any]] = self._session.run(
            None, {name: arrays[name] for name in self._names}
        )
        return found


def _export(graph: Graph, path: Path) -> None:
    # Exported from a trace: the newer exporter, which reads the model's code, needs two more
    # packages and fixes the sizes of some masks.
    outputs = [f"output_{name}" for name in graph.outputs]
    axes = {**graph.dynamic_axes(), **{name: {0: "batch"} for name in outputs}}
    with tracing():
        torch.onnx.export(
            graph.module,
            graph.example,
            str(path),
            input_names=list(graph.inputs),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _open(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads that go on waiting actively after a run would take the processor from torch's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
