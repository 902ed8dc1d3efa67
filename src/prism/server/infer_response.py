"""A response of the Open Inference Protocol: from a model's output to bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prism.api.profiling import with_cluster_energy
from prism.models.outputs import TopK
from prism.output_form import OutputForm
from prism.record import RunRecord
from prism.server.binary_tensors import BYTES, array_of, datatype_of, to_binary
from prism.server.errors import BadRequest
from prism.server.infer_request import InferRequest, RequestedOutput
from prism.server.json_tensors import to_json
from prism.server.served import Served
from prism.server.work import Answered

VERSION = "1"
_POOLED = "embedding"
_LOGITS = "logits"
_OF_FORM: Mapping[str, tuple[str, ...]] = {
    "logits": (_LOGITS,),
    "top_k": TopK._fields,
    "pooled": (_POOLED,),
}


@dataclass(frozen=True, slots=True)
class InferResponse:
    """A response, ready to be sent.

    Attributes:
        body: JSON, and behind it the binary data.
        header_length: bytes of the JSON where binary data follow; None where none do.
    """

    body: bytes
    header_length: int | None


def output_names(served: Served, form: OutputForm) -> tuple[str, ...]:
    """Return the names of the outputs that a model has in a form."""
    whole = tuple(spec.name for spec in served.outputs)
    return _OF_FORM.get(form.kind, whole)


def check_outputs(served: Served, form: OutputForm, wanted: Sequence[RequestedOutput]) -> None:
    """Check, before anything runs, that a model has the outputs that a request names.

    Raises:
        BadRequest: it has not; says which it has.
    """
    names = output_names(served, form)
    for each in wanted:
        if each.name not in names:
            raise BadRequest(
                f"{served.name} gives no output {each.name!r} as {form}; it gives "
                f"{', '.join(names)}"
            )
        if each.classes and each.name != _LOGITS:
            raise BadRequest(f"classification is for the output {_LOGITS}, not for {each.name}")
    if len({each.name for each in wanted}) != len(wanted):
        raise BadRequest("an output is requested twice")


def make_response(served: Served, request: InferRequest, answered: Answered) -> InferResponse:
    """Return the response to a request.

    Raises:
        BadRequest: an output cannot be had as it was requested.
    """
    tensors = tensors_of(answered.output)
    wanted = request.outputs or tuple(RequestedOutput(name) for name in tensors)
    described, data = [], []
    for each in wanted:
        array, datatype = _made(served, each, tensors)
        entry: dict[str, Any] = {
            "name": each.name,
            "datatype": datatype,
            "shape": list(array.shape),
        }
        if request.binary if each.binary is None else each.binary:
            raw = to_binary(array)
            entry["parameters"] = {"binary_data_size": len(raw)}
            data.append(raw)
        else:
            entry["data"] = to_json(array)
        described.append(entry)
    document: dict[str, Any] = {"model_name": served.name, "model_version": VERSION}
    if request.id is not None:
        document["id"] = request.id
    document["parameters"] = cost_of(answered)
    document["outputs"] = described
    header = json.dumps(document, separators=(",", ":")).encode()
    return InferResponse(b"".join([header, *data]), len(header) if data else None)


def cost_of(answered: Answered) -> dict[str, str | float | int]:
    """Return what a response says of how it came to be, and what that cost.

    All times in ms. `measured_ms` is that of the run, of which `predicted_ms` was the prediction
    where the plan was chosen; `queue_ms` came before. Energy is that of the whole batch, whose rows
    are `batch_rows`; it is left out where not every node measured.
    """
    record = with_cluster_energy(answered.record)
    cost: dict[str, str | float | int] = {
        "plan": str(record.plan),
        "nodes": "+".join([record.node, *record.per_node]),
        "batch_rows": answered.rows,
        "outcome": record.outcome,
        "measured_ms": _milliseconds(record.total_s - record.queue_s),
        **_parts(record),
        "queue_ms": _milliseconds(answered.queue_s),
    }
    if record.setback:
        cost["setback"] = record.setback
    if answered.decision is not None:
        cost["predicted_ms"] = _milliseconds(answered.decision.predicted_s)
    if record.energy_j is not None:
        cost["energy_j"] = record.energy_j
        cost["energy_quality"] = str(record.energy_quality)
        cost["energy_scope"] = str(record.energy_scope)
    return cost


def _parts(record: RunRecord) -> dict[str, float]:
    return {
        "compute_ms": _milliseconds(record.compute_s),
        "staging_ms": _milliseconds(record.staging_s),
        "comm_ms": _milliseconds(record.comm_s),
        "input_ms": _milliseconds(record.input_s),
        "output_ms": _milliseconds(record.output_s),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def tensors_of(output: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of an output, in any form, by name."""
    if isinstance(output, torch.Tensor):
        return {_POOLED: output}
    fields = output._asdict() if isinstance(output, TopK) else output
    return {name: each for name, each in fields.items() if isinstance(each, torch.Tensor)}


def _made(
    served: Served, wanted: RequestedOutput, tensors: Mapping[str, torch.Tensor]
) -> tuple[np.ndarray[Any, Any], str]:
    """Return an output as an array, and its datatype."""
    if wanted.name not in tensors:
        raise BadRequest(f"{served.name} gave no output {wanted.name!r} for this request")
    tensor = tensors[wanted.name]
    if wanted.classes:
        return _classes(served, tensor, wanted.classes), BYTES
    return array_of(tensor), datatype_of(tensor.dtype)


def _classes(served: Served, logits: torch.Tensor, most: int) -> np.ndarray[Any, Any]:
    """Return the best classes of every row as `score:index:label`, the best first."""
    best = logits.float().topk(min(most, logits.shape[-1]))
    labels = getattr(served.info.config, "id2label", None) or {}
    words = np.empty(tuple(best.indices.shape), dtype=object)
    for place, index in np.ndenumerate(best.indices.numpy()):
        label = labels.get(int(index), "")
        words[place] = f"{float(best.values[place]):f}:{index}:{label}".encode()
    return words
