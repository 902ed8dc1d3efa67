"""From a MODEL argument to a model in memory.

`prism.models.source` says what a MODEL argument may be. `describe` reads the configuration only and
is what the coordinator uses; `load` also brings in the weights.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from prism.errors import ModelError
from prism.models.families import Family, family_of, shape_of
from prism.models.pixels import Normalisation
from prism.models.source import DIGITS, files_of, split_source
from prism.plan import ModelShape, Precision

_SEED = 20260525
_PRESETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit-tiny": (
        "ViTConfig",
        "ViTForImageClassification",
        {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    ),
    "vit-small": (
        "ViTConfig",
        "ViTForImageClassification",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "vit-base": ("ViTConfig", "ViTForImageClassification", {"num_labels": 1000}),
    "bert-base": ("BertConfig", "BertForSequenceClassification", {}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {}),
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model before its weights are loaded.

    Attributes:
        source: the MODEL argument.
        files: where its files lie, a directory or a Hugging Face id; empty where it has none.
        architecture: the transformers class.
        config: its configuration.
        family: how it is partitioned.
        shape: what the cost of a plan depends on.
        normalisation: how uint8 pixels become the model's input; None when no processor says.
    """

    source: str
    files: str
    architecture: type[PreTrainedModel]
    config: Any
    family: Family
    shape: ModelShape
    normalisation: Normalisation | None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, ready to run.

    Attributes:
        info: its description.
        model: the transformers model, in evaluation mode.
        fingerprint: SHA-256 of configuration and weights; equal on nodes that agree, and that of
            the original on copies at another precision.
        precision: at which it computes.
        origin: the float32 model that a copy was made of, for who converts it once more.
    """

    info: ModelInfo
    model: PreTrainedModel
    fingerprint: str
    precision: Precision = "float32"
    origin: LoadedModel | None = None


def describe(source: str) -> ModelInfo:
    """Read a model's configuration.

    Args:
        source: `digits`, a local directory, a Hugging Face id, or `random:NAME_OR_DIR`.

    Raises:
        ModelError: there is no such model, or its configuration cannot be read.
        UnsupportedModel: it cannot be partitioned; says why.
    """
    random, name = split_source(source)
    if random and name in _PRESETS:
        return _describe_preset(source, name)
    files = files_of(name)
    if random and not Path(files).is_dir():
        raise ModelError(
            f"{source}: {name!r} is neither a directory nor one of {', '.join(_PRESETS)}, {DIGITS}"
        )
    _check_directory(name)
    info = _info(source, files, _architecture(name, _read_config(name, files)))
    if random and info.normalisation is None:
        return replace(info, normalisation=Normalisation.symmetric())
    return info


def load(source: str, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """Bring a model into memory, in evaluation mode.

    Args:
        source: `digits`, a local directory, a Hugging Face id, or `random:NAME_OR_DIR`.
        dtype: dtype of the weights.
        device: a torch device.

    Raises:
        ModelError: there is no such model, or weights are missing.
        UnsupportedModel: it cannot be partitioned; says why.
    """
    info = describe(source)
    torch_dtype = getattr(torch, dtype)
    random, _ = split_source(source)
    if random:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            model = info.architecture(info.config).to(torch_dtype)
    else:
        model = _from_pretrained(info, torch_dtype)
    return adopt(model.to(device), info)


def adopt(model: PreTrainedModel, info: ModelInfo | None = None) -> LoadedModel:
    """Wrap a model that is already in memory; puts it in evaluation mode."""
    if info is None:
        family = family_of(model.config)
        info = ModelInfo(
            source="",
            files="",
            architecture=type(model),
            config=model.config,
            family=family,
            shape=shape_of(family, model.config),
            normalisation=None,
        )
    model.train(False)
    # The configuration may gain defaults while the model is built; keep what it really runs with.
    info = replace(info, config=model.config)
    return LoadedModel(info, model, fingerprint(model))


def fingerprint(model: PreTrainedModel) -> str:
    """Return the SHA-256 of a model's configuration and weights.

    The names of the weights do not count: transformers renames them from release to release, and
    devices of one cluster need not run the same one.
    """
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_")}
    config.pop("transformers_version", None)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for tensor_digest in sorted(_tensor_digest(each) for each in model.state_dict().values()):
        digest.update(tensor_digest)
    return digest.hexdigest()


def _tensor_digest(tensor: torch.Tensor) -> bytes:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _check_directory(name: str) -> None:
    path = Path(files_of(name))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} has no config.json; give a model directory")
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"model directory {name} does not exist")


def _read_config(source: str, files: str) -> Any:
    try:
        return AutoConfig.from_pretrained(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "model type" in str(error) or "does not recognize" in str(error):
            raise ModelError(f"{source}: {_first_line(error)}") from error
        raise ModelError(
            f"{source} is neither a model directory nor a Hugging Face id that can be reached: "
            f"{_first_line(error)}"
        ) from error


def _architecture(source: str, config: Any) -> type[PreTrainedModel]:
    names = getattr(config, "architectures", None) or []
    if not names:
        raise ModelError(f"{source}/config.json names no class in `architectures`; add it")
    return _class_named(names[0], config, source)


def _class_named(name: str, config: Any, source: str) -> type[PreTrainedModel]:
    found = getattr(transformers, name, None)
    if found is None:  # some parts, such as WhisperEncoder, are not exported at the top
        module = type(config).__module__.replace(".configuration_", ".modeling_")
        found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ModelError(f"{source} asks for {name}, which this transformers does not have")
    return found


def _info(source: str, files: str, architecture: type[PreTrainedModel]) -> ModelInfo:
    config_class: Any = architecture.config_class
    config = config_class.from_pretrained(files)
    family = family_of(config)
    return ModelInfo(
        source=source,
        files=files,
        architecture=architecture,
        config=config,
        family=family,
        shape=shape_of(family, config),
        normalisation=Normalisation.of_directory(files),
    )


def _describe_preset(source: str, name: str) -> ModelInfo:
    config_name, class_name, values = _PRESETS[name]
    config = getattr(transformers, config_name)(**values)
    family = family_of(config)
    return ModelInfo(
        source=source,
        files="",
        architecture=getattr(transformers, class_name),
        config=config,
        family=family,
        shape=shape_of(family, config),
        normalisation=Normalisation.symmetric(),
    )


def _from_pretrained(info: ModelInfo, dtype: torch.dtype) -> PreTrainedModel:
    architecture: Any = info.architecture
    try:
        model, report = architecture.from_pretrained(
            info.files, config=info.config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{info.source} cannot be loaded: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{info.source} lacks weights of {info.architecture.__name__}: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}"
        )
    # Loaded in float32 first: transformers sets the whole process's default dtype meanwhile, and
    # another model may be running.
    return model.to(dtype)  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
