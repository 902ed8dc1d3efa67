"""Models of another length: the same blocks over larger or smaller images."""

from __future__ import annotations

import copy
import math
from pathlib import Path

from prism.errors import ConfigError
from prism.models.families import patch
from prism.models.inputs import main_input
from prism.models.load import describe
from prism.models.source import split_source


def sized(source: str, tokens: int | None, directory: Path) -> str:
    """Return the MODEL argument of a model that has so many tokens per sample.

    For a text model that is the argument itself, since texts have any length; for an image model it
    is a configuration with other images, written where every node of the lab can read it.

    Args:
        source: a MODEL argument.
        tokens: per sample; None = as the model has.
        directory: to write into.

    Raises:
        ConfigError: no square image has so many tokens, or the model's weights are its own.
    """
    info = describe(source)
    longest = info.shape.max_length
    if tokens is None or tokens == longest:
        return source
    if main_input(info) == "input_ids":
        if not 1 <= tokens <= longest:
            raise ConfigError(f"{source} takes 1 to {longest} tokens, not {tokens}")
        return source
    if main_input(info) != "pixel_values" or not split_source(source)[0]:
        raise ConfigError(
            f"{source} has {longest} tokens; only random: image models can be given another "
            f"number: leave --tokens {tokens} out, or use random:vit-base"
        )
    more = info.family.image_tokens
    edge = math.isqrt(max(0, tokens - more))
    if edge < 1 or edge * edge + more != tokens:
        near = ", ".join(str(each * each + more) for each in (edge, edge + 1) if each)
        raise ConfigError(f"--tokens {tokens}: a square image has {near} tokens with {source}")
    config = copy.deepcopy(info.config)
    config.image_size = edge * patch(config)
    config.architectures = [info.architecture.__name__]
    path = directory / f"tokens-{tokens}"
    config.save_pretrained(path)
    return f"random:{path}"
