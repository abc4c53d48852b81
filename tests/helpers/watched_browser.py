"""A browser context that notices whatever a hostile text does in a page, whether a policy forbids it or not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from testbed.waiting import stretched

if TYPE_CHECKING:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        Dialog,
        Frame,
        Page,
        Request,
        Route,
    )  # not needed to collect the tests

PAGE_SECONDS = 15.0
_ON_VIOLATION = """document.addEventListener("securitypolicyviolation", (event) =>
  %s(`violation of ${event.effectiveDirective} by ${event.blockedURI}`));"""
_MADE_BY_TEXTS = """(mark) => {
  if (document.contentType !== "text/html") return [];  // shown as text, by elements of the browser's own
  const found = [];
  const ours = (url) => new URL(url, location.href).origin === location.origin;
  const never = "animate applet base embed frame iframe math object style svg template".split(" ");
  for (const element of document.querySelectorAll("*")) {
    const name = element.localName;
    if (never.includes(name) || name.includes(mark)) found.push(`element ${name}`);
    if (name === "script" && (!element.src || element.textContent)) found.push("inline script");
    for (const attribute of element.attributes) {
      const shown = `${name} ${attribute.name}="${attribute.value}"`;
      const text = name === "input" && attribute.name === "value";
      if (/^on|^style$|^srcdoc$/i.test(attribute.name)) found.push(shown);
      if (attribute.name.includes(mark) || (attribute.value.includes(mark) && !text)) found.push(shown);
      const leads = /^(src|href|action|formaction|data|poster)$/.test(attribute.name);
      if (leads && !ours(attribute.value)) found.push(shown);
    }
  }
  return found;
}"""


@dataclass
class Watched:
    """`noticed` is everything that no page of the portal does by itself. Payloads call the function `mark`."""

    context: "BrowserContext"
    origin: str
    mark: str
    noticed: list[str] = field(default_factory=list)

    def open(self, path: str) -> "Page":
        """A new page at a path."""
        page = self.context.new_page()
        page.goto(self.origin + path)
        return page

    def elements_made_by_texts(self, page: "Page") -> list[str]:
        """Elements and attributes of a page that no template makes."""
        made: list[str] = page.evaluate(_MADE_BY_TEXTS, self.mark)
        return made


@contextmanager
def watched(browser: "Browser", origin: str, mark: str, *, bypass_csp: bool) -> Iterator[Watched]:
    """A context for the pages of one origin; requests elsewhere are aborted. `bypass_csp` ignores pages' policies."""
    context = browser.new_context(bypass_csp=bypass_csp, service_workers="block")
    context.set_default_timeout(1000 * stretched(PAGE_SECONDS))
    made = Watched(context, origin, mark)
    context.expose_binding(mark, lambda source, *said: made.noticed.append(_call(source["frame"], said)))
    context.add_init_script(_ON_VIOLATION % mark)
    context.on("dialog", lambda dialog: _dismiss(made, dialog))
    context.on("request", lambda request: _check(made, request))
    context.route(re.compile(".*"), lambda route: _route(made, route))
    try:
        yield made
    finally:
        context.close()


def visible_text(page: "Page") -> str:
    """What a page shows, without white space."""
    return without_space(page.inner_text("body"))


def without_space(text: str) -> str:
    """Browsers collapse white space, and break lines at it."""
    return re.sub(r"\s", "", text)


def _call(frame: "Frame", said: tuple[object, ...]) -> str:
    return " ".join(map(str, said)) if said else f"script run in {_name(frame)}"


def _name(frame: "Frame") -> str:
    """The name of a frame or, in one that a payload made, of the frame around it."""
    return frame.name or (frame.parent_frame and frame.parent_frame.name) or "the page"


def _dismiss(made: Watched, dialog: "Dialog") -> None:
    made.noticed.append(f"dialog {dialog.message}")
    dialog.dismiss()


def _check(made: Watched, request: "Request") -> None:
    """Notice requests elsewhere, and those that a page makes of a text; its own address may have one."""
    foreign = not _is_ours(made, request.url)
    if foreign or (made.mark in unquote(request.url) and request.resource_type != "document"):
        made.noticed.append(f"request for {request.url} of {_name(request.frame)}")


def _route(made: Watched, route: "Route") -> None:
    if _is_ours(made, route.request.url):
        route.continue_()
    else:
        route.abort()


def _is_ours(made: Watched, url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("data", "about", "blob") or f"{parts.scheme}://{parts.netloc}" == made.origin
