"""Templates, and the formatting of figures in them."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import jinja2
from starlette.responses import HTMLResponse

from optiinfra.portal.dashboard import missing_validators, refused

UNKNOWN = "\N{EN DASH}"

_ACRONYMS = {"kv": "KV", "ondemand": "on-demand", "percent": "%"}


def render(name: str, **values: Any) -> str:
    """Render a template."""
    return _TEMPLATES.get_template(name).render(**values)


def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Respond with a template."""
    return HTMLResponse(render(name, **values), status)


def problem_page(status: int, detail: str, trace_id: str) -> str:
    """The error page."""
    titles = {403: "Not allowed", 404: "Not found", 409: "Not possible", 422: "Something is missing"}
    title = titles.get(status, "Not available" if status >= 500 else "Refused")
    return render("problem.html", title=title, detail=detail, trace_id=trace_id, retry=status >= 500)


def money(dollars: float | None) -> str:
    """Whole dollars; a dash if unknown."""
    if dollars is None:
        return UNKNOWN
    whole = f"${abs(dollars):,.0f}"
    return f"\N{MINUS SIGN}{whole}" if dollars < 0 and whole != "$0" else whole


def percent(share: float | None, digits: int = 0) -> str:
    """A share 0..1 in percent; a dash if unknown."""
    return UNKNOWN if share is None else f"{share * 100:.{digits}f}%"


def milliseconds(value: float | None) -> str:
    """A latency, in seconds from one second on; a dash if unknown."""
    if value is None:
        return UNKNOWN
    return f"{_plain(value / 1000, 3)} s" if value >= 999.5 else f"{value:.0f} ms"


def humanize(identifier: str) -> str:
    """An identifier as text: `scale_to_50_percent` becomes `Scale to 50%`."""
    text = " ".join(_ACRONYMS.get(word, word) for word in identifier.split("_")).replace(" %", "%")
    return text[:1].upper() + text[1:]


def moment(value: datetime | None) -> str:
    """Date and time in UTC; a dash if unknown."""
    return UNKNOWN if value is None else f"{value:%d %b %H:%M:%S} UTC"


def dated_moment(value: datetime | None) -> str:
    """Date with year, and time in UTC; `never` if there was no such moment."""
    return "never" if value is None else f"{value:%d %b %Y %H:%M:%S} UTC"


def duration(started: datetime | None, ended: datetime | None) -> str:
    """The duration between two moments; empty if one is missing."""
    if started is None or ended is None:
        return ""
    seconds = (ended - started).total_seconds()
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def details(detail: dict[str, Any]) -> dict[str, str]:
    """The detail of a step as labelled lines; of the agents' verdicts only the reasons."""
    verdicts = {f"{agent} agent": verdict["reason"] for agent, verdict in detail.get("verdicts", {}).items()}
    others = {key: value for key, value in detail.items() if key not in ("verdicts", "since")}
    return {
        humanize(key): _line(value) for key, value in (others | verdicts).items() if value not in (None, [], {}, "")
    }


def document(value: dict[str, Any]) -> str:
    """A JSON document in readable lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _line(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in value.items())
    return _plain(value, 4) if isinstance(value, float) else str(value)


def _plain(value: float, digits: int) -> str:
    """Rounded to so many significant digits, whole numbers in full, without an exponent."""
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
    "humanize": humanize,
    "moment": moment,
    "dated_moment": dated_moment,
    "details": details,
    "document": document,
}
_TEMPLATES.globals |= {"duration": duration, "refused": refused, "missing_validators": missing_validators}
