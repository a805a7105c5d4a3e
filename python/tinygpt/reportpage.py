"""Pages made of templates: whatever a text holds, it stays text. One file each, no script, nothing from elsewhere.

Every value is escaped by the template engine; what cannot be seen, and what would turn the order of letters around, is
escaped before. The page itself forbids scripts and the network by its content security policy.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from tinygpt import __version__
from tinygpt.chart import Chart
from tinygpt.svgchart import figure
from tinygpt.tokenview import visible

_TEMPLATES = ("page.html", "tables.html", "run.html", "comparison.html")


def page(template: str, **values: Any) -> str:
    """A page as text; `values` are what the template names."""
    return _environment().get_template(template).render(version=__version__, **values) + "\n"


def chart(drawn: Chart) -> Markup:
    """A chart as an element of a page; `svgchart` escapes what is in it."""
    return Markup(figure(drawn))


@cache
def _environment() -> jinja2.Environment:
    folder = files("tinygpt") / "pages"
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in _TEMPLATES}
    made = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader(sources),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )
    made.filters |= {"chart": chart, "shortened": visible}
    return made
