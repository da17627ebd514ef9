"""A batch's picture as one HTML page that needs no other file: the drawing, and below it what its results came to."""

from __future__ import annotations

from collections.abc import Sequence

from producer.pictures.durations import seconds
from producer.pictures.picture import WIDTH, draw, words
from producer.pictures.portrait import Portrait
from producer.pictures.summary import LABELS
from protocol.batches import STATUSES
from protocol.errors import shorten

_STYLE = f"""
  :root {{ color-scheme: light dark }}
  body {{ margin: 0; padding: 24px; background: #f6f8fa; color: #1f2328;
    font: 14px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif }}
  main {{ max-width: {WIDTH}px; margin: 0 auto }}
  svg {{ width: 100%; height: auto; border: 1px solid #d8dee4; border-radius: 8px }}
  h2 {{ font-size: 15px; margin: 28px 0 8px }}
  table {{ border-collapse: collapse; width: 100% }}
  td, th {{ text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid #d8dee4; overflow-wrap: anywhere }}
  td.number, th.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }}
  @media (prefers-color-scheme: dark) {{
    body {{ background: #010409; color: #c9d1d9 }} svg, td, th {{ border-color: #30363d }}
  }}
"""


def page(portrait: Portrait) -> str:
    """Draw a batch; an HTML document."""
    drawing, title = draw(portrait), words(portrait.title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = f"<main>{drawing}{_outcomes(portrait)}{_failures(portrait)}{_slowest(portrait)}</main>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _outcomes(portrait: Portrait) -> str:
    tally = portrait.tally
    rows = [
        (LABELS[status][0], f"{tally.counts[status]:,}", f"{100 * tally.counts[status] / tally.total:.3g} %")
        for status in STATUSES
        if tally.counts[status]
    ]
    return _table("Results", ("outcome", "jobs", "share"), rows, numbers=(1, 2))


def _failures(portrait: Portrait) -> str:
    rows = [(str(kind), f"{kind.count:,}") for kind in portrait.tally.failures()[:20]]
    return _table("Failures", ("error", "jobs"), rows, numbers=(1,))


def _slowest(portrait: Portrait) -> str:
    rows = [(shorten(key, 200), LABELS[status][0], seconds(took)) for took, key, status in portrait.tally.slowest()]
    return _table("Slowest", ("job", "outcome", "run time"), rows, numbers=(2,))


def _table(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...]) -> str:
    if not rows:
        return ""
    kinds = ["number" if column in numbers else "" for column in range(len(names))]
    head = "".join(f'<th class="{kind}">{words(name)}</th>' for kind, name in zip(kinds, names, strict=True))
    lines = [
        "".join(f'<td class="{kind}">{words(cell)}</td>' for kind, cell in zip(kinds, row, strict=True)) for row in rows
    ]
    return f"<h2>{title}</h2><table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
