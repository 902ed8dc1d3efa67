"""Which plans `prism evaluate` measures, and which it leaves out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prism.cli.arguments import check_file_place, read_plans
from prism.errors import ConfigError
from prism.plan import Plan

if TYPE_CHECKING:
    from prism.fidelity.copies import Copies
    from prism.fidelity.samples import Samples
    from prism.perfmap import PerformanceMap


def asked_plans(
    plans: str | None, perf: Path | None
) -> tuple[tuple[Plan, ...] | None, PerformanceMap | None]:
    """Return the plans that were named, or the map that has them; neither = the usual ones.

    Args:
        plans: the text of `--plans`.
        perf: the file of `--map`.

    Raises:
        ConfigError: both are given, or the map cannot be written.
        PlanError: what is named is no plan.
        MapError: there is no map, or it cannot be read.
    """
    if plans is not None and perf is not None:
        raise ConfigError(f"--plans {plans} and --map {perf} both say what to measure; leave one")
    if perf is None:
        return read_plans(plans), None
    from prism.perfmap import PerformanceMap

    measured_map = PerformanceMap.load(perf)
    check_file_place("--map", perf, "the result goes into the map, move it where you may write")
    return None, measured_map


def chosen_plans(
    copies: Copies,
    samples: Samples,
    named: tuple[Plan, ...] | None,
    measured_map: PerformanceMap | None,
) -> tuple[tuple[Plan, ...], Mapping[str, str]]:
    """Return the plans to measure, counted, each once, `local` first; and those left out, and why.

    A precision that cannot be had here ends the command only where somebody named it.

    Args:
        copies: of the model.
        samples: they say how many means are usual.
        named: the plans that somebody named.
        measured_map: the map whose plans are asked for.

    Raises:
        UnsupportedPrecision: nothing that was asked for can be measured here.
        MapError: the map is of other weights, or holds exact plans only.
    """
    from prism.fidelity.plans_to_measure import compressions_of, measured_as, usual_compressions

    refused: Mapping[str, str] = {}
    if named is not None:
        for plan in named:
            copies.of(plan)
    elif measured_map is not None:
        asked = compressions_of(measured_map, copies.loaded.fingerprint)
        named, refused = copies.possible(asked)
        if not named:
            copies.of(asked[0])
    else:
        named, refused = copies.possible(usual_compressions(copies.loaded, samples))
    for reason in dict.fromkeys(refused.values()):
        shapes = ", ".join(shape for shape in refused if refused[shape] == reason)
        print(f"prism: {shapes} left out: {reason}", file=sys.stderr)
    return tuple(dict.fromkeys([Plan(), *map(measured_as, named)])), refused
