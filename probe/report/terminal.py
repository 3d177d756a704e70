"""Results as text for a terminal or a pipe: 80 columns unless the terminal is wider or narrower, colour only where it is wanted."""

from __future__ import annotations

import os
import shutil
from typing import Any, TextIO

from probe.report.text import Page


def page_for(stream: TextIO) -> Page:
    """Width and colour for a stream: a terminal's own width (72 to 160), 80 and no colour for pipes, files, ``NO_COLOR``, ``TERM=dumb``."""
    if not stream.isatty():
        return Page()
    width = shutil.get_terminal_size((80, 24)).columns
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Page(width=min(160, max(72, width)), colour=colour)


def render(
    result: Any,
    page: Page | None = None,
    *,
    rows: int | None = None,
    all_metrics: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> str:
    """Text of any result, ending in a newline.

    Args:
        rows: lines a table may have; None: what suits the result.
        all_metrics: for diffs, every metric of every output.
        verbose: no bound on rows, and what is normally only counted.
        quiet: the verdict line alone (its wrapped sentence), or the summary of what has none.

    Raises:
        TypeError: not a result of probe.
    """
    page = page or Page()
    bound = {} if rows is None else {"rows": rows}
    match type(result).__name__:
        case "DiffResult":
            from probe.report.diff_page import diff_page, headline
            from probe.report.words import verdict_lines

            lines = (
                verdict_lines(result.verdict, headline(result), page)
                if quiet
                else diff_page(result, page, all_metrics=all_metrics, verbose=verbose, **bound)
            )
        case "RegressionResult":
            from probe.report.regression_page import regression_page

            lines = regression_page(result, page, verbose=verbose, **bound)
            lines = lines[: lines.index("")] if quiet else lines
        case "InspectResult":
            from probe.report.inspect_page import inspect_page

            lines = inspect_page(result, page, verbose=verbose, **bound)
            lines = lines[: lines.index("")] if quiet else lines
        case "DumpResult":
            from probe.report.inspect_page import dump_page

            lines = dump_page(result, page, verbose=verbose)
            lines = lines[: lines.index("")] if quiet else lines
        case "RunResult":
            from probe.report.run_page import run_headline, run_page

            lines = run_headline(result, page) if quiet else run_page(result, page, verbose=verbose, **bound)
        case "OpsResult":
            from probe.report.ops_page import ops_page

            lines = ops_page(result, page, verbose=verbose, **bound)
            lines = lines[: lines.index("")] if quiet else lines
        case "ConvertResult":
            from probe.report.convert_page import convert_headline, convert_page

            lines = convert_headline(result, page) if quiet else convert_page(result, page, verbose=verbose, **bound)
        case "FindResult":
            from probe.report.find_page import find_headline, find_page

            lines = find_headline(result, page) if quiet else find_page(result, page, verbose=verbose, **bound)
        case "BenchResult":
            from probe.report.bench_page import bench_headline, bench_page

            lines = bench_headline(result, page) if quiet else bench_page(result, page, verbose=verbose, **bound)
        case "BuildResult":
            from probe.report.build_page import build_headline, build_page

            lines = build_headline(result, page) if quiet else build_page(result, page, verbose=verbose, **bound)
        case "SavedEngine":
            from probe.report.build_page import header_page

            lines = header_page(result, page)
        case "CheckResult":
            from probe.report.check_page import check_headline, check_page

            lines = check_headline(result, page) if quiet else check_page(result, page, verbose=verbose, rows=rows)
        case "TacticsRecordResult":
            from probe.report.tactics_page import record_headline, record_page

            lines = record_headline(result, page) if quiet else record_page(result, page, verbose=verbose, **bound)
        case "TacticsReplayResult":
            from probe.report.tactics_page import replay_headline, replay_page

            lines = replay_headline(result, page) if quiet else replay_page(result, page, verbose=verbose, **bound)
        case "TacticFile":
            from probe.report.tactics_page import file_page

            lines = file_page(result, page, verbose=verbose, **bound)
            lines = lines[: lines.index("")] if quiet else lines
        case "TacticsLogResult":
            from probe.report.tactics_page import log_headline, log_page

            lines = log_headline(result, page) if quiet else log_page(result, page, verbose=verbose, **bound)
        case "TacticsDiffResult":
            from probe.report.blame_diff_page import tactics_diff_headline, tactics_diff_page

            lines = (
                tactics_diff_headline(result, page)
                if quiet
                else tactics_diff_page(result, page, verbose=verbose, **bound)
            )
        case "TacticsBisectResult":
            from probe.report.blame_bisect_page import tactics_bisect_headline, tactics_bisect_page

            lines = (
                tactics_bisect_headline(result, page)
                if quiet
                else tactics_bisect_page(result, page, verbose=verbose, **bound)
            )
        case "TacticsTableResult":
            from probe.report.blame_table_page import tactics_table_headline, tactics_table_page

            lines = (
                tactics_table_headline(result, page)
                if quiet
                else tactics_table_page(result, page, verbose=verbose, **bound)
            )
        case "BuildsResult":
            from probe.report.blame_builds_page import builds_headline, builds_page

            lines = builds_headline(result, page) if quiet else builds_page(result, page, verbose=verbose, **bound)
        case other:
            raise TypeError(f"cannot render a {other}")
    return "\n".join(lines) + "\n"
