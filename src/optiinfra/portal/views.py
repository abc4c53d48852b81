"""Templates, and how figures are written in them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import jinja2

from optiinfra.portal.dashboard import awaited, refused

UNKNOWN = "\N{EN DASH}"

_ACRONYMS = {"kv": "KV", "ondemand": "on-demand", "percent": "%"}


def render(name: str, **values: Any) -> str:
    """The page of that template."""
    return _TEMPLATES.get_template(name).render(**values)


def problem_page(status: int, detail: str, trace_id: str) -> str:
    """The page of an error."""
    titles = {403: "Not allowed", 404: "Not found", 409: "Not possible", 422: "Something is missing"}
    title = titles.get(status, "Not available" if status >= 500 else "Refused")
    return render("problem.html", title=title, detail=detail, trace_id=trace_id, retry=status >= 500)


def money(dollars: float | None) -> str:
    """Whole dollars; a dash for what is not known."""
    if dollars is None:
        return UNKNOWN
    whole = f"${abs(dollars):,.0f}"
    return f"\N{MINUS SIGN}{whole}" if dollars < 0 and whole != "$0" else whole


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 0..1 in percent."""
    return UNKNOWN if share is None else f"{share * 100:.{digits}f}%"


def milliseconds(value: float | None) -> str:
    """Latency, in seconds from one second on."""
    if value is None:
        return UNKNOWN
    return f"{_plain(value / 1000, 3)} s" if value >= 999.5 else f"{value:.0f} ms"


def words(identifier: str) -> str:
    """`scale_to_50_percent` as people write it."""
    text = " ".join(_ACRONYMS.get(word, word) for word in identifier.split("_")).replace(" %", "%")
    return text[:1].upper() + text[1:]


def moment(value: datetime | None) -> str:
    """Day and time, UTC."""
    return UNKNOWN if value is None else f"{value:%d %b %H:%M:%S} UTC"


def took(started: datetime | None, ended: datetime | None) -> str:
    """How long something lasted; empty while it does."""
    if started is None or ended is None:
        return ""
    seconds = (ended - started).total_seconds()
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def details(noted: dict[str, Any]) -> dict[str, str]:
    """What a step noted, a line each; of the agents' verdicts their reasons."""
    verdicts = {f"{agent} agent": verdict["reason"] for agent, verdict in noted.get("verdicts", {}).items()}
    others = {key: value for key, value in noted.items() if key not in ("verdicts", "since")}
    return {words(key): _line(value) for key, value in (others | verdicts).items() if value not in (None, [], {}, "")}


def _line(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items())
    return _plain(value, 4) if isinstance(value, float) else str(value)


def _plain(value: float, digits: int) -> str:
    """Rounded to so many significant digits, but to whole ones at most, and never with an exponent."""
    rounded = f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(float(rounded)) >= 10**digits else format(Decimal(rounded), ",f")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("optiinfra.portal"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "money": money,
    "percent": percent,
    "milliseconds": milliseconds,
    "words": words,
    "moment": moment,
    "details": details,
}
_TEMPLATES.globals |= {"took": took, "refused": refused, "awaited": awaited}
