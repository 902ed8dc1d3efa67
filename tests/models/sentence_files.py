"""The files that sentence-transformers writes beside a model, written down once more."""

import json

KINDS = "sentence_transformers.models."


def model_with(folder, kinds, pooling=None):
    """Write the files of a model; return its directory."""
    modules = [
        {"idx": place, "name": str(place), "path": f"{place}_{kind}" if place else "", "type": kind}
        for place, kind in enumerate(KINDS + kind for kind in kinds)
    ]
    for module in modules:
        module["path"] = module["path"].replace(KINDS, "")
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


FLAGS = {
    "word_embedding_dimension": 384,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
