"""The typer application: the list of commands, nothing else."""

from __future__ import annotations

import typer

from probe.cli.bench import bench
from probe.cli.build import build
from probe.cli.check import check
from probe.cli.convert import convert
from probe.cli.demo import demo
from probe.cli.diff import diff
from probe.cli.dump import dump
from probe.cli.find import find
from probe.cli.inspect import inspect
from probe.cli.report import report
from probe.cli.run import run
from probe.cli.tactics import tactics

HELP = ("-h", "--help")
COMMANDS = (run, check, find, convert, build, bench, dump, diff, inspect, report, demo)

app = typer.Typer(
    name="probe",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich costs more to import than everything else here
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": list(HELP)},
)


@app.callback()
def probe(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error. Works anywhere on the line."),
) -> None:
    """Find where, why and by how much a compiled network differs from its golden.

    Exit codes: 0 passed or warned, 1 failed or not found, 2 your input cannot be used, 3 a bug in probe.
    """


for _command in COMMANDS:
    app.command(context_settings={"help_option_names": list(HELP)})(_command)
app.add_typer(tactics)
