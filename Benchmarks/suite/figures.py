"""What was measured, against what was aimed for."""

from __future__ import annotations

import dataclasses
import json
import pathlib


@dataclasses.dataclass
class Figure:
    """One number with its goal. `at_most`: smaller is better."""

    name: str
    value: float
    unit: str
    goal: float
    at_most: bool

    @property
    def ratio(self) -> float:
        """How far within the goal: 1 is just there, 2 is twice as good."""
        if self.at_most:
            return self.goal / self.value if self.value else float("inf")
        return self.value / self.goal

    @property
    def verdict(self) -> str:
        return "pass" if self.ratio >= 1 else "MISS"

    def row(self) -> list[str]:
        bound = "≤" if self.at_most else "≥"
        return [
            self.name, f"{shown(self.value)} {self.unit}", f"{bound} {shown(self.goal)} {self.unit}",
            f"{self.ratio:.2f}", self.verdict,
        ]


def at_most(name: str, value: float, goal: float, unit: str) -> Figure:
    return Figure(name, value, unit, goal, at_most=True)


def at_least(name: str, value: float, goal: float, unit: str) -> Figure:
    return Figure(name, value, unit, goal, at_most=False)


def shown(number: float) -> str:
    """Three digits are what such figures are good for."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Plain columns; all but the first are set right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        return "  " + "  ".join(cells).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def report(figures: list[Figure]) -> str:
    return table(["figure", "measured", "goal", "ratio", ""], [figure.row() for figure in figures])


def save(path: pathlib.Path, figures: list[Figure]) -> None:
    """The figures of this run, over those of earlier ones by name."""
    kept = {entry["name"]: entry for entry in json.loads(path.read_text())} if path.exists() else {}
    for figure in figures:
        kept[figure.name] = {**dataclasses.asdict(figure), "ratio": round(figure.ratio, 3), "verdict": figure.verdict}
    path.write_text(json.dumps(list(kept.values()), indent=2, ensure_ascii=False) + "\n")
