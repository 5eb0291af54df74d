"""The diagrams of docs/scale.svg."""

import math
from collections.abc import Sequence
from pathlib import Path

from bench.simulation import WORKERS, Load

PLOT = Path(__file__).parent.parent / "docs" / "scale.svg"
Points = list[tuple[float, float]]


def polyline(points: Sequence[tuple[float, float]], colour: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def panel(
    left: float,
    title: str,
    series: dict[str, Points],
    ticks: Sequence[float],
    top: float,
    log: bool,
    unit: str,
) -> list[str]:
    """A diagram of 300 by 200. The y axis runs from zero to ``top``, and the x axis has ``ticks``."""
    low, high = ticks[0], ticks[-1]
    colours = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / low) / math.log(high / low) if log else (x - low) / (high - low)
        return left + 300 * share, 240 - 200 * min(y, top) / top

    drawn = [
        text(left, 24, title),
        f'<path d="M{left} 40V240H{left + 300}" fill="none" stroke="#999"/>',
        *(text(place(tick, 0)[0], 256, f"{tick:,.0f}", "middle") for tick in ticks),
        text(left + 300, 272, unit, "end"),
    ]
    for part in (0.25, 0.5, 0.75, 1.0):
        y = 240 - 200 * part
        drawn.append(f'<path d="M{left} {y}h300" stroke="#eee"/>')
        drawn.append(text(left - 6, y + 4, f"{top * part:,.3g}", "end"))
    for number, (name, points) in enumerate(series.items()):
        drawn.append(polyline([place(*point) for point in points], colours[number]))
        drawn.append(text(left, 292 + 16 * number, name, colour=colours[number]))
    return drawn


def write_plot(times: Points, costs: Points, loads: dict[str, Load]) -> None:
    """Write the diagrams. ``times`` and ``costs`` have the number of lines as x."""
    workers = {name: _workers(load) for name, load in loads.items()}
    minutes = max(points[-1][0] for points in workers.values())
    most = max(count for points in workers.values() for _, count in points)
    ticks = [lines for lines, _ in times]
    drawn = [
        *panel(60, "ms a line, at 10 s an answer", {"measured and scaled": times}, ticks, 80, True, "lines"),
        *panel(430, "$ per 1M lines, at 10 s an answer", {"counted and scaled": costs}, ticks, 1.0, True, "lines"),
        *panel(
            800,
            "100 batches of 50,000: workers",
            workers,
            [0, 10, 20, 30, math.ceil(minutes / 10) * 10],
            most,
            False,
            "minutes",
        ),
    ]
    PLOT.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1140 380" font-family="sans-serif" font-size="11">'
        '<rect width="1140" height="380" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _workers(load: Load) -> Points:
    """The busy workers of every fifth second, by minutes."""
    seconds = sorted(load.used[WORKERS].items())
    return [(second / 60, count) for second, count in seconds][::5]
