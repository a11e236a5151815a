"""usage: python -m suite NAME…"""

from __future__ import annotations

import importlib
import os
import sys

from . import figures
from .service import WORK

NAMES = ("health", "rpc", "create", "read", "watch", "size", "abuse", "scale", "days", "lists", "takeover", "batches")


def main() -> None:
    chosen = sys.argv[1:] or list(NAMES)
    measured: list[figures.Figure] = []
    for name in chosen:
        print(f"\n{name}: {importlib.import_module(f'suite.{name}').__doc__.splitlines()[0]}", flush=True)
        results = importlib.import_module(f"suite.{name}").run()
        figures.save(WORK / "figures.json", results)
        measured += results
    print(f"\n{os.cpu_count()} cores, load before: {os.environ.get('BENCH_LOAD', 'unknown')}")
    print(figures.report(measured))
    if any(figure.verdict != "pass" for figure in measured):
        sys.exit(1)


main()
