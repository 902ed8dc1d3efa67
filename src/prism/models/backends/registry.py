"""All backends, by name."""

from __future__ import annotations

from collections.abc import Mapping

from prism.models.backends.base import Backend
from prism.models.backends.compile import CompileBackend
from prism.models.backends.eager import EagerBackend
from prism.models.backends.onnxruntime import OnnxRuntimeBackend
from prism.models.backends.openvino import OpenVinoBackend
from prism.models.backends.packed import PackedBackend

EAGER: Backend = EagerBackend()
AUTO = "auto"
BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        EAGER,
        PackedBackend(),
        CompileBackend(),
        OpenVinoBackend(),
        OnnxRuntimeBackend(),
    )
}
