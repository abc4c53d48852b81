"""`invoke logs [SERVICE]`: invoke itself knows only positional arguments that must be given."""

from typing import Any

from invoke.parser.parser import ParseMachine

OPTIONAL = ("service",)


def allow() -> None:
    """Let the arguments in OPTIONAL be left out: they are empty then."""
    complete = ParseMachine.complete_context

    def complete_context(parser: Any) -> None:
        for argument in parser.context.positional_args if parser.context else ():
            if argument.name in OPTIONAL and argument.value is None:
                argument.value = ""
        complete(parser)

    ParseMachine.complete_context = complete_context  # type: ignore[method-assign,assignment]
