"""Optional positional arguments for invoke, which knows only required ones: `invoke logs [SERVICE]`."""

from typing import Any

from invoke.parser.parser import ParseMachine

OPTIONAL = ("service",)


def allow() -> None:
    """Make the arguments in OPTIONAL optional, with an empty default."""
    complete = ParseMachine.complete_context

    def complete_context(parser: Any) -> None:
        for argument in parser.context.positional_args if parser.context else ():
            if argument.name in OPTIONAL and argument.value is None:
                argument.value = ""
        complete(parser)

    ParseMachine.complete_context = complete_context  # type: ignore[method-assign,assignment]
