"""What a linter of metrics would say: conventions of names, units and types, and histograms that add up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

UNITS = ("seconds", "bytes", "ratio")
NAME = re.compile(r"straggler(_[a-z]+)+")


def parse(text: str) -> dict[str, Metric]:
    """Read an exposition, and find nothing to complain of in it."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [problem for family in families.values() for problem in problems(family)] == []
    return families


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """Add up a metric's samples that have these labels."""
    family = families[name.removesuffix("_total").removesuffix("_count").removesuffix("_sum")]
    return sum(
        sample.value for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()
    )


def problems(family: Metric) -> Iterable[str]:
    name = family.name
    if not family.documentation.endswith("."):
        yield f"{name}: no help"
    if family.type not in ("counter", "gauge", "histogram"):
        yield f"{name}: type {family.type}"
    if family.type == "counter" and not all(sample.name == f"{name}_total" for sample in family.samples):
        yield f"{name}: a counter's samples end in _total"
    if family.type != "counter" and name.endswith(("_total", "_count", "_sum", "_bucket")):
        yield f"{name}: an ending that means another type"
    yield from name_problems(name)
    if len({(sample.name, *sorted(sample.labels.items())) for sample in family.samples}) != len(family.samples):
        yield f"{name}: a sample twice"
    if family.type == "histogram":
        yield from histogram_problems(family)


def name_problems(name: str) -> Iterable[str]:
    if not NAME.fullmatch(name):
        yield f"{name}: lower case with underscores, and our prefix"
    if re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)\b", name):
        yield f"{name}: base units are {', '.join(UNITS)}"


def histogram_problems(family: Metric) -> Iterable[str]:
    for function in {sample.labels["function"] for sample in family.samples}:
        samples = [sample for sample in family.samples if sample.labels["function"] == function]
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        if any(left >= right for (left, _), (right, _) in pairwise(buckets)):
            yield f"{family.name}: bounds out of order"
        if any(left > right for (_, left), (_, right) in pairwise(buckets)):
            yield f"{family.name}: buckets that do not add up"
        [count] = [sample.value for sample in samples if sample.name.endswith("_count")]
        if buckets[-1] != (float("inf"), count):
            yield f"{family.name}: {buckets[-1]} is not the count {count}"
