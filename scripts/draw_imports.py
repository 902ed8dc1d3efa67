"""Draw who imports whom among prism's rooms, and refuse circles and arrows that point up.

    python -m scripts.draw_imports            # checks, then writes docs/images/architecture.svg
    python -m scripts.draw_imports --check    # checks, the picture in the repository too

Exits 1 where a room imports one that is not below it, where files import each other in a circle, or
where the picture is not the code's.
"""

from __future__ import annotations

import argparse
import html
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.import_graph import Edge, House, faults, read_house, reduced

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# The picture: rows of boxes; an arrow over several rows passes between their boxes.
MARGIN, GAP, ROW_GAP = 24, 18, 44
WIDTHS = (0, 330, 270, 230, 206)  # of a box, by how many stand in its row
LINE_HEIGHT, LETTER = 16, 6.6
SWEEPS = 40
ENTRY = "__main__"  # hands over to cli, and needs no box


@dataclass(eq=False)
class Spot:
    """A box, or the place where an arrow passes a row."""

    room: str = ""
    width: float = 0.0
    x: float = 0.0
    up: list[Spot] = field(default_factory=list)
    down: list[Spot] = field(default_factory=list)

    def pull(self, spots: Sequence[Spot]) -> float:
        return sum(spot.x for spot in spots) / len(spots) if spots else self.x


def arrange(house: House, arrows: Sequence[Edge]) -> tuple[list[list[Spot]], list[list[Spot]]]:
    """Return the rows from top to bottom, and every arrow as the spots it passes."""
    rows = [
        [Spot(room, WIDTHS[min(len(layer), len(WIDTHS) - 1)]) for room in layer]
        for layer in house.layers
        if layer and layer != [ENTRY]
    ]
    place = {spot.room: (number, spot) for number, row in enumerate(rows) for spot in row}
    paths = []
    for a, b in arrows:
        (top, start), (bottom, end) = place[a], place[b]
        lanes = [Spot() for _ in range(top + 1, bottom)]
        for row, lane in zip(rows[top + 1 : bottom], lanes, strict=True):
            # On alternate sides, where the sweeps sort them out.
            row.insert(0 if len(row) % 2 else len(row), lane)
        path = [start, *lanes, end]
        for upper, lower in zip(path, path[1:], strict=False):
            upper.down.append(lower)
            lower.up.append(upper)
        paths.append(path)
    for row in rows:
        settle(row, [0.0] * len(row))
    best, fewest = [list(row) for row in rows], crossings(rows)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = {spot: spot.pull(spot.up if down else spot.down) for spot in row}
            row.sort(key=wanted.__getitem__)
            settle(row, [wanted[spot] for spot in row])
        if (count := crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], count
    for _ in range(SWEEPS):
        for row in best:
            settle(row, [spot.pull([*spot.up, *spot.down]) for spot in row])
    return best, paths


def settle(row: Sequence[Spot], wanted: Sequence[float]) -> None:
    """Place a row as near to where its spots want to be as order and distance allow.

    Least squares under an order: neighbours that would overlap move as one block.
    """
    offsets, at = [], 0.0
    for number, spot in enumerate(row):
        if number:
            at += (row[number - 1].width + spot.width) / 2 + GAP
        offsets.append(at)
    blocks: list[tuple[float, int]] = []  # mean of what its spots want, without offsets; how many
    for place, offset in zip(wanted, offsets, strict=True):
        mean, count = place - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, count = (before * more + mean * count) / (more + count), more + count
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    for spot, mean, offset in zip(row, means, offsets, strict=True):
        spot.x = mean + offset


def crossings(rows: Sequence[Sequence[Spot]]) -> int:
    count = 0
    for row in rows:
        lines = [(spot.x, lower.x) for spot in row for lower in spot.down]
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(lines) for c, d in lines[:i])
    return count


def draw(house: House) -> str:
    rows, paths = arrange(house, reduced({arrow for arrow in house.arrows if ENTRY not in arrow}))
    left = min(spot.x - spot.width / 2 for row in rows for spot in row) - MARGIN
    width = max(spot.x + spot.width / 2 for row in rows for spot in row) + MARGIN - left
    texts = {
        spot.room: textwrap.wrap(house.about[spot.room], int((spot.width - 28) / LETTER))
        for row in rows
        for spot in row
        if spot.room
    }
    boxes, spans, top = [], {}, MARGIN + 56.0
    for row in rows:
        height = 34.0 + LINE_HEIGHT * max(len(texts[spot.room]) for spot in row if spot.room)
        for spot in row:
            spot.x -= left
            spans[spot] = (top, top + height)
            if spot.room:
                boxes.append(box(spot, top, height, texts[spot.room], spot.room in house.plain))
        top += height + ROW_GAP
    caption = (
        "An arrow: the upper room imports the lower one; none points up. Arrows that follow from "
        "others are left out: where a imports b and b imports c, a may import c too. Green: plain "
        "Python, without torch. Drawn from the code by scripts/draw_imports.py."
    )
    lines = textwrap.wrap(caption, int((width - 2 * MARGIN) / LETTER))
    total = top - ROW_GAP + 34 + LINE_HEIGHT * len(lines) + MARGIN / 2
    return SVG.format(
        width=round(width),
        height=round(total),
        arrows="\n".join(curve(path, spans) for path in paths),
        boxes="\n".join(boxes),
        caption=written(lines, MARGIN, top - ROW_GAP + 34, "about"),
    )


def box(spot: Spot, top: float, height: float, lines: Sequence[str], plain: bool) -> str:
    x = spot.x - spot.width / 2
    kind = "plain" if plain else "room"
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{top:.1f}" width="{spot.width}" '
        f'height="{height:.1f}" rx="7"/>\n'
        f'<text class="name" x="{x + 14:.1f}" y="{top + 21:.1f}">{spot.room}</text>\n'
        f"{written(lines, x + 14, top + 39, 'about')}"
    )


def written(lines: Sequence[str], x: float, y: float, kind: str) -> str:
    return "\n".join(
        f'<text class="{kind}" x="{x:.1f}" y="{y + LINE_HEIGHT * number:.1f}">'
        f"{html.escape(line)}</text>"
        for number, line in enumerate(lines)
    )


def curve(path: Sequence[Spot], spans: Mapping[Spot, tuple[float, float]]) -> str:
    """Return an arrow: straight through the rows it passes, bent between them."""
    x, y = port(path[0], path[0].down, path[1]), spans[path[0]][1]
    steps = [f"M{x:.1f},{y:.1f}"]
    for spot in path[1:]:
        last = spot is path[-1]
        to_x = port(spot, spot.up, path[-2]) if last else spot.x
        top, bottom = spans[spot]
        middle, end = (y + top) / 2, top - 7 if last else top
        steps.append(f"C{x:.1f},{middle:.1f} {to_x:.1f},{middle:.1f} {to_x:.1f},{end:.1f}")
        if not last:
            steps.append(f"L{to_x:.1f},{bottom:.1f}")
        x, y = to_x, bottom
    return f'<path class="arrow" d="{" ".join(steps)}"/>'


def port(spot: Spot, neighbours: Sequence[Spot], other: Spot) -> float:
    """Return where on its box an arrow starts or ends: side by side, in its neighbours' order."""
    number = sorted(neighbours, key=lambda each: each.x).index(other)
    step = min(26.0, spot.width * 0.8 / len(neighbours))
    return spot.x + step * (number - (len(neighbours) - 1) / 2)


SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}">
<title>The rooms of prism and what they import</title>
<style>
text {{ font-family: "DejaVu Sans", Verdana, sans-serif; fill: #24303c; }}
.title {{ font-size: 20px; font-weight: bold; }}
.name {{ font-size: 15px; font-weight: bold; }}
.about {{ font-size: 12px; fill: #51606e; }}
.room {{ fill: #f3f7fc; stroke: #6c8ebf; stroke-width: 1.2; }}
.plain {{ fill: #f1f9f0; stroke: #74a870; stroke-width: 1.2; }}
.arrow {{ fill: none; stroke: #8a97a5; stroke-width: 1.4; marker-end: url(#tip); }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#8a97a5"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>
<text class="title" x="28" y="46">The rooms of prism</text>
{arrows}
{boxes}
{caption}
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    house = read_house(ROOT)
    if found := faults(house):
        sys.exit("\n".join(found))
    picture = draw(house)
    if not options.check:
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.write_text(picture, "utf-8")
        print(f"wrote {PICTURE.relative_to(ROOT)}")
    elif not PICTURE.is_file() or PICTURE.read_text("utf-8") != picture:
        sys.exit(
            f"{PICTURE.relative_to(ROOT)} shows other code than this; "
            f"run python -m scripts.draw_imports"
        )


if __name__ == "__main__":
    main()
