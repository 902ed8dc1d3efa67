"""Who imports whom among prism's rooms, read from the code, and what is wrong with it.

A room is a folder of src/prism or a module beside them. Imports for type checkers only do not run
and do not count. The layers are those that import-linter keeps (pyproject.toml): a room may import
rooms of lower layers only.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "prism"

Edge = tuple[str, str]


@dataclass(frozen=True)
class House:
    """The code's own structure.

    Attributes:
        layers: rooms by layer, the highest first; each imports lower layers only.
        about: by room, what it owns, in one sentence.
        plain: rooms that must not import torch.
        imports: between files, by module name.
    """

    layers: Sequence[Sequence[str]]
    about: Mapping[str, str]
    plain: frozenset[str]
    imports: Mapping[str, frozenset[str]]

    @property
    def arrows(self) -> set[Edge]:
        """Imports between rooms; the package's own `__init__` hands on names, and is no room."""
        pairs = {(room_of(a), room_of(b)) for a, targets in self.imports.items() for b in targets}
        return {(a, b) for a, b in pairs if a != b and PACKAGE not in (a, b)}


def read_house(root: Path) -> House:
    source = root / "src"
    files = {module_of(path, source): path for path in sorted((source / PACKAGE).rglob("*.py"))}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in files.items()}
    imports = {
        name: frozenset(known(imported(tree), files)) - {name} for name, tree in trees.items()
    }
    rooms = {room_of(name) for name in files} - {PACKAGE}
    settings = (root / "pyproject.toml").read_text("utf-8")
    layers = [re.findall(r"\w+", line) for line in listed("layers", settings)]
    plain = listed("source_modules", settings)
    return House(
        layers=[[name for name in layer if name in rooms] for layer in layers],
        about={room: first_sentence(trees[f"{PACKAGE}.{room}"]) for room in rooms},
        plain=frozenset(name.removeprefix(f"{PACKAGE}.") for name in plain),
        imports=imports,
    )


def listed(key: str, settings: str) -> list[str]:
    """Return a list of strings in TOML: Python 3.10 has no reader for it, and reads the list."""
    found = re.search(rf"^{key} = (\[.*?^\])", settings, re.M | re.S)
    assert found, f"pyproject.toml has no {key}"
    texts: list[str] = ast.literal_eval(found[1])
    return texts


def module_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names that code imports when it runs, in functions too."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{name.name}" for name in node.names)
    else:
        children = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            children = iter(node.orelse)
        for child in children:
            yield from imported(child)


def known(names: Iterable[str], files: Mapping[str, Path]) -> Iterator[str]:
    """Yield the files that names stand for: a module, or the module that defines the name."""
    for name in names:
        module = name if name in files else name.rpartition(".")[0]
        if module in files:
            yield module


def first_sentence(tree: ast.Module) -> str:
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    sentence = re.match(r".*?\.(?=\s|$)", text)
    return (sentence[0] if sentence else text).replace("`", "").rstrip(".")


def faults(house: House) -> list[str]:
    """Return what is wrong with the house, a sentence each."""
    found = []
    level = {room: number for number, layer in enumerate(house.layers) for room in layer}
    homeless = sorted(set(house.about) - set(level))
    found += [f"{room} stands in no layer of pyproject.toml" for room in homeless]
    for a, b in sorted(house.arrows):
        if a in level and b in level and level[a] >= level[b]:
            where = "beside it" if level[a] == level[b] else "above it"
            found.append(f"{a} imports {b}, which stands {where}")
    try:
        TopologicalSorter(house.imports).prepare()
    except CycleError as error:
        found.append(f"files import each other in a circle: {' <- '.join(error.args[1])}")
    return found


def reduced(arrows: set[Edge]) -> list[Edge]:
    """Leave out the arrows that follow from others: a to c, where a to b and b to c."""
    following = defaultdict(set)
    for a, b in arrows:
        following[a].add(b)

    def reach(start: str) -> set[str]:
        return following[start].union(*map(reach, following[start]))

    return sorted(
        (a, b) for a, b in arrows if not any(b in reach(c) for c in following[a] if c != b)
    )
