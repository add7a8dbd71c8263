"""Pages that open anywhere without a network: templates of one style that contain all pictures and numbers."""

from __future__ import annotations

import base64
import io
import math
import warnings

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

__all__ = ["data_uri", "number", "png", "render"]


def render(template: str, **values: object) -> str:
    """Fill a template of ``report/templates``; values are escaped, a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("medcontext.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(**values)


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """Return a number as shown, a dash where there is none.

    Args:
        value: the number.
        digits: digits after the point.
        sign: show a plus or a true minus sign, for differences.
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:+z.{digits}f}".replace("-", "−") if sign else f"{value:z.{digits}f}"


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # letters that the font lacks become boxes
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """Return a PNG as a data URI for ``<img src>``."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
