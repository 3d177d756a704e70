"""Options of commands that run a network, as the functions of ``probe.api`` take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.cli.options import typed_command

if TYPE_CHECKING:
    from probe.cli.progress import Progress


def network_arguments(
    progress: Progress,
    *,
    inputs: list[str] | None,
    seed: int,
    input_shapes: list[str] | None,
    val_range: list[str] | None,
    threads: int,
    custom_op_lib: list[Path] | None,
    **further: Any,
) -> dict[str, Any]:
    """What every such command hands on: its inputs, how it was called and who watches.

    Args:
        further: arguments that need no other form, such as the golden, handed on as they are.

    Raises:
        InputError: ``--input-shapes`` or ``--val-range`` cannot be read.
    """
    from probe.model.feeds import parse_ranges, parse_shapes

    return {
        "inputs": inputs or None, "seed": seed, "input_shapes": parse_shapes(input_shapes or ()),
        "val_range": parse_ranges(val_range or ()), "threads": threads, "custom_op_libs": custom_op_lib or (),
        "command": typed_command(), "progress": progress.tell, **further,
    }  # fmt: skip
