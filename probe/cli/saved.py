"""Options that a saved engine has decided already."""

from __future__ import annotations

import typer

from probe.errors import InputError

_DECIDED = ("precision", "passes", "passes_limit", "fusion", "interior", "tactics")


def takes_saved(context: typer.Context, model: str) -> bool:
    """Whether the model of a command is a saved engine; if so, no option may be typed that asks for another.

    Raises:
        InputError: one was typed that is not how the engine was built.
    """
    from probe.api.saved import built_as, is_saved_engine

    if not is_saved_engine(model):
        return False
    for name in _DECIDED:
        source = context.get_parameter_source(name) if name in context.params else None
        if source is not None and source.name == "COMMANDLINE" and context.params[name] != built_as(model, name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} was decided when the engine was built",
                where=model,
                hint=f"leave {option} out, or build another: probe build MODEL -o FILE",
            )
    return True
