"""Plain transformers with the products of its blocks packed, see `models.packed`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from prism.models.backends.base import Call
from prism.models.backends.instead import instead
from prism.models.load import LoadedModel
from prism.models.packed import PackedLinear, can_pack
from prism.models.products import products_of, weight_and_bias


class PackedBackend:
    """The model's own blocks, multiplying faster; see `Backend`.

    Holds the weights of the blocks a second time.
    """

    name = "packed"
    hooked = True

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return why this model cannot run so here; see `Backend.obstacle`."""
        if loaded.precision != "float32":
            return f"{loaded.precision} is packed already; use eager for it"
        parameter = next(loaded.model.parameters())
        if not can_pack(parameter.device):
            return f"this torch packs no weights for {parameter.device.type}; use eager"
        return ""

    def prepare(self, loaded: LoadedModel) -> Call:
        """Pack the weights; see `Backend.prepare`."""
        packed = [
            (module, PackedLinear(*weight_and_bias(module))) for module in products_of(loaded)
        ]

        def call(**inputs: Any) -> Any:
            with ExitStack() as undo:
                for module, product in packed:
                    undo.callback(instead(module, product.forward))
                return loaded.model(**inputs)

        return call
