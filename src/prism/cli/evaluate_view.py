"""How an evaluation looks on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism.cli import output

if TYPE_CHECKING:
    from prism.fidelity.distributed import Difference
    from prism.fidelity.samples import Samples
    from prism.fidelity.summary import Evaluated

# By metric: what the value is called, and what is shown beside it.
_VALUES = {
    "accuracy": "accuracy %",
    "agreement": "same as exact %",
    "embedding": "cosine %",
    "language": "same next token %",
}
_BESIDE = {
    "accuracy": ("same as\nlocal %", "agreement", "{:.1%}"),
    "agreement": ("tokens", "tokens", "{:,}"),
    "embedding": ("lowest\ncosine", "lowest_cosine", "{:.4f}"),
    "language": ("perplexity,\nto exact", "perplexity_ratio", "{:.3f}x"),
}
_MEANING = {
    "accuracy": "drop: accuracy lost against local, in float32, on the same samples",
    "agreement": "drop: answers that are not the exact ones; no more accuracy than that is lost",
    "embedding": "drop: 1 - mean cosine with the exact embedding",
    "language": "drop: next tokens that are not the exact ones",
}


def evaluation_document(
    entries: Sequence[Evaluated], exchanged: Mapping[str, int], samples: Samples
) -> dict[str, Any]:
    """Return what an evaluation found, for a program."""
    plans = []
    for entry in entries:
        values = asdict(entry)
        extras = values.pop("extras")
        for name in ("task", "metric"):  # the same for all
            del values[name]
        plans.append({**values, "bytes_per_block": exchanged[entry.plan], **extras})
    return {
        "dataset": samples.name,
        "samples": len(samples),
        "skipped": samples.skipped,
        "metric": entries[0].metric,
        "plans": plans,
    }


def print_evaluation(
    entries: Sequence[Evaluated], exchanged: Mapping[str, int], samples: Samples, place: Path
) -> None:
    """Print a table of plans, what its figures mean and where it was written."""
    from rich import box
    from rich.table import Table

    metric = entries[0].metric
    name, key, form = _BESIDE[metric]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("plan", no_wrap=True)
    for column in (_VALUES[metric], "drop, points\n(95 % interval)", name, "bytes per\nblock"):
        table.add_column(column, justify="right")
    for entry in entries:
        low, high = entry.drop_low or 0.0, entry.drop_high or 0.0
        table.add_row(
            entry.plan,
            f"{100 * entry.accuracy:.2f}",
            f"{100 * entry.drop:.2f} ({100 * low:.2f} to {100 * high:.2f})",
            form.format(entry.extras[key]) if key in entry.extras else "-",
            f"{exchanged[entry.plan]:,}" if exchanged[entry.plan] else "-",
        )
    output.print_table(table)
    skipped = f", {samples.skipped} skipped that cannot be used" if samples.skipped else ""
    print(f"{len(samples)} samples of {samples.name}{skipped}; {_MEANING[metric]}")
    print(f"wrote {place}")


def difference_lines(differences: Sequence[Difference]) -> list[str]:
    """Return what node processes gave beside this process, one line per plan."""
    lines = []
    for each in differences:
        verdict = "agrees" if each.agrees else "DIFFERS"
        lines.append(
            f"on node processes, {each.plan}: {verdict}, largest difference {each.largest:.1e} "
            f"(rounding explains {each.tolerance:.0e}), {each.equal} of {each.samples} answers "
            f"are equal"
        )
    return lines
