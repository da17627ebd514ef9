"""From a template's name to HTML: everything is escaped, and a name that is not there is an error."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dashboard import words

_environment = Environment(
    loader=PackageLoader("dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
    finalize=words.visible,
)
_environment.filters.update(
    number=words.number,
    duration=words.duration,
    brief=words.brief,
    rate=words.rate,
    size=words.size,
    moment=words.moment,
    iso=words.iso,
    value=words.value,
    glimpse=words.glimpse,
    cut=words.cut,
    line=words.line,
)
_environment.globals.update(share=words.share, labels=words.LABELS, state_of=words.state)


def prepare() -> None:
    """Read all templates now, so that the first visitor does not wait for it, nor a running batch pay for it."""
    for name in _environment.list_templates():
        _environment.get_template(name)


def render(template: str, **context: Any) -> str:
    """Fill in a template."""
    return _environment.get_template(template).render(context)
