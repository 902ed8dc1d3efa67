"""What a person has, as model inputs; what a model gives, as something a person can read.

Owns the way from image files and text to the tensors a request carries, and from logits back to
labels. Images stay uint8 until they are on a node, which normalises them there: a quarter of the
bytes of floats, and the same pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoTokenizer

# Where it is defined: from the top of the package, transformers 5.4 to 5.17 give it only to those
# who have torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.generic import ModelOutput

from prism.errors import RequestError, UnsupportedModel
from prism.models.families import image_size
from prism.models.inputs import main_input
from prism.models.load import ModelInfo
from prism.models.outputs import TopK, top_k

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One thing a model says about one input.

    Attributes:
        index: of the class, or of the token in the vocabulary.
        label: name of the class, or the token as text.
        probability: 0..1; None where the output is a plain score.
        score: the logit.
    """

    index: int
    label: str
    score: float
    probability: float | None


def reads_images(info: ModelInfo) -> bool:
    """Return whether a model reads images; otherwise it reads text.

    Raises:
        UnsupportedModel: it reads something else.
    """
    name = main_input(info)
    if name not in ("pixel_values", "input_ids"):
        raise UnsupportedModel(
            f"{info.architecture.__name__} reads {name}, which cannot be made from files here; "
            f"call the model from Python with {name}"
        )
    return name == "pixel_values"


def read_image(path: Path) -> Image.Image:
    """Read an image file, turned as its camera said.

    Raises:
        RequestError: there is no such file, or it holds no image that can be read.
    """
    try:
        with Image.open(_existing(path)) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise RequestError(f"{path} is not an image; give a PNG, JPEG or similar file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"image {path} cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """Read a text file, as one text.

    Raises:
        RequestError: there is no such file, or it is not UTF-8 text.
    """
    try:
        return _existing(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text; give a text file") from error
    except OSError as error:
        raise RequestError(f"text {path} cannot be read: {error.strerror}") from error


def _existing(path: Path) -> Path:
    if not path.exists():
        raise RequestError(f"input file {path} does not exist; check the path")
    if not path.is_file():
        raise RequestError(f"{path} is not a file; name each file to read")
    return path


def image_inputs(info: ModelInfo, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return images as one batch of uint8 pixels; `pixels_by` with the processor of the model."""
    return pixels_by(image_processor_of(info), info, images)


def pixels_by(
    processor: Any, info: ModelInfo, images: Sequence[Image.Image]
) -> dict[str, torch.Tensor]:
    """Return images as one batch of uint8 pixels `(batch, channels, height, width)`.

    The model's own image processor resizes and crops. Without one, or where it makes another size
    than the model was configured for, images are resized to the configured size.

    Args:
        processor: from `image_processor_of`, which reads files: who has many images keeps it.
        info: the model.
        images: of any size and mode.

    Raises:
        RequestError: there are no images, or the model reads neither grey nor colour images.
    """
    if not images:
        raise RequestError("there is no image to run on; give at least one")
    channels = int(info.config.num_channels)
    if channels not in _MODES:
        raise RequestError(
            f"the model reads images of {channels} channels; only 1 (grey) and 3 (colour) can be "
            f"made from files"
        )
    converted = [image.convert(_MODES[channels]) for image in images]
    height, width = image_size(info.config)
    pixels_BCHW = None if processor is None else _processed(processor, converted)
    if pixels_BCHW is None or pixels_BCHW.shape[2:] != (height, width):
        pixels_BCHW = torch.stack([_resized(image, height, width) for image in converted])
    return {"pixel_values": pixels_BCHW}


def image_processor_of(info: ModelInfo) -> Any:
    """Return the image processor that lies beside a model; None when it has none."""
    if not info.files:  # a built-in configuration has no processor
        return None
    factory: Any = AutoImageProcessor
    try:
        return factory.from_pretrained(info.files)
    except (OSError, ValueError, ImportError):
        return None


def _processed(processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Apply an image processor without its normalisation."""
    # As arrays: transformers < 5.4 cannot tell which side of a grey PIL image are its channels.
    made: torch.Tensor = processor(
        images=[np.atleast_3d(np.array(image)) for image in images],
        input_data_format="channels_last",
        do_rescale=False,
        do_normalize=False,
        return_tensors="pt",
    )["pixel_values"]
    return made if made.dtype == torch.uint8 else made.round().clamp(0, 255).to(torch.uint8)


def _resized(image: Image.Image, height: int, width: int) -> torch.Tensor:
    resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.reshape(height, width, -1)).permute(2, 0, 1)


def tokenizer_of(info: ModelInfo) -> Any:
    """Return the tokenizer that lies beside a model, able to pad on the right.

    Raises:
        RequestError: there is none.
    """
    missing = (
        f"{info.source} has no tokenizer; put tokenizer.json beside the model, or call the model "
        f"from Python with input_ids"
    )
    if not info.files:
        raise RequestError(missing)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(info.files)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise RequestError(missing) from error
    # Without files transformers makes a tokenizer that knows its special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise RequestError(missing)
    if tokenizer.pad_token is None:
        # The attention mask hides padding, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    # On the left it would move every position of a model that counts from the first row.
    tokenizer.padding_side = "right"
    return tokenizer


def text_inputs(info: ModelInfo, tokenizer: Any, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return texts as one padded batch of token ids with its mask.

    Raises:
        RequestError: there are no texts, or one is empty.
    """
    if not texts:
        raise RequestError("there is no text to run on; give at least one")
    for number, text in enumerate(texts, start=1):
        if not text.strip() or not tokenizer(text)["input_ids"]:
            raise RequestError(f"text {number} of {len(texts)} is empty: {text!r}; give some words")
    # Quiet: `models.inputs` refuses a text that is too long, and says so better.
    made = tokenizer(list(texts), padding=True, return_tensors="pt", verbose=False)
    known = inspect.signature(info.architecture.forward).parameters
    return {name: tensor for name, tensor in made.items() if name in known}


def predictions(
    info: ModelInfo,
    output: Any,
    inputs: Mapping[str, Any],
    count: int,
    tokenizer: Any = None,
) -> list[list[Prediction]] | None:
    """Return the `count` likeliest answers to each input, the likeliest first.

    Classes for a classifier, the next token for a causal language model; None for a model whose
    output is neither.

    Args:
        info: the model.
        output: what it returned.
        inputs: what it was given.
        count: answers per input, at most.
        tokenizer: writes tokens as text; None writes them as numbers.
    """
    best = _best(info, output, count)
    if best is None:
        return None
    values, indices, chances = best
    names = info.config.id2label
    of_tokens = values.dim() == 3
    if of_tokens:
        if not info.family.causal:
            return None
        at = _last_rows(values, inputs.get("attention_mask"))
        values, indices = values[at], indices[at]
        chances = None if chances is None else chances[at]

    def prediction(row: int, rank: int) -> Prediction:
        index = int(indices[row, rank])
        label = _token(tokenizer, index) if of_tokens else str(names.get(index, index))
        chance = None if chances is None else float(chances[row, rank])
        return Prediction(index, label, float(values[row, rank]), chance)

    ranks = range(min(count, values.shape[-1]))
    return [[prediction(row, rank) for rank in ranks] for row in range(len(values))]


def _best(info: ModelInfo, output: Any, count: int) -> TopK | None:
    """Return the best of each row of logits; None for a model that gives no logits."""
    if isinstance(output, TopK):
        return output
    logits = output.get("logits") if isinstance(output, ModelOutput) else None
    if not isinstance(logits, torch.Tensor) or logits.dim() not in (2, 3):
        return None
    return top_k(info, logits.float(), count)


def _last_rows(
    values_BNk: torch.Tensor, mask_BN: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index of each sample's last real row."""
    batch, given = values_BNk.shape[:2]
    samples = torch.arange(batch)
    if mask_BN is None:
        return samples, torch.full((batch,), given - 1)
    # A model asked for its last rows only (`logits_to_keep`) returns fewer than it was given.
    return samples, mask_BN.long().sum(1) - 1 - (mask_BN.shape[1] - given)


def _token(tokenizer: Any, index: int) -> str:
    return str(index) if tokenizer is None else str(tokenizer.decode([index]))


def output_shapes(output: Any) -> dict[str, list[int]]:
    """Return the name and shape of every tensor a model returned."""
    if isinstance(output, TopK):
        output = output._asdict()
    values = output if isinstance(output, Mapping) else {"output": output}
    return {
        name: list(value.shape) for name, value in values.items() if isinstance(value, torch.Tensor)
    }
