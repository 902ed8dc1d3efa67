"""The image processors of transformers that work on PIL images, whatever a release calls them.

Releases that have `*ImageProcessorPil` use the plain name for the one that needs torchvision.
"""

import transformers.models.clip as clip
import transformers.models.vit as vit


def _pil(module, name: str):
    return getattr(module, f"{name}Pil", None) or getattr(module, name)


CLIPProcessor = _pil(clip, "CLIPImageProcessor")
ViTProcessor = _pil(vit, "ViTImageProcessor")
