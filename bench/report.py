"""Tables of ratios, and the same as JSON in bench/results/."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def repeat(runs: Mapping[str, Callable[[], float]], times: int = 5) -> dict[str, list[float]]:
    """Each of ``runs`` ``times`` times, in turns, so that a noisy minute hits them all."""
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(times):
        for name, run in runs.items():
            figures[name].append(run())
            print(f"  {turn + 1}/{times} {name}: {figures[name][-1]:.4g}", file=sys.stderr, flush=True)
    return figures


def machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    named = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    cpu = named[0].partition(":")[2].strip() if named else platform.processor()
    return {"cpu": cpu, "cores": str(os.cpu_count()), "python": platform.python_version(), "system": platform.system()}


def versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def row(name: str, figures: list[float], unit: str, base: list[float] | None = None) -> dict[str, Any]:
    """One row: the median, the spread, and the ratio to ``base``'s median."""
    median = statistics.median(figures)
    return {
        "name": name,
        "median": median,
        "lowest": min(figures),
        "highest": max(figures),
        "unit": unit,
        "ratio": median / statistics.median(base) if base else None,
    }


def publish(subject: str, rows: list[dict[str, Any]], targets: list[dict[str, Any]], packages: dict[str, str]) -> None:
    """Print the table and the targets, and write ``results/<subject>.json``."""
    print(f"\n{subject}  ({', '.join(f'{key} {value}' for key, value in (machine() | packages).items())})\n")
    width = max(len(each["name"]) for each in rows)
    for each in rows:
        ratio = "" if each["ratio"] is None else f"{each['ratio']:8.2f}x"
        spread = f"{each['lowest']:.4g} to {each['highest']:.4g}"
        print(f"  {each['name']:<{width}}  {each['median']:>10.4g} {each['unit']:<6} {ratio:>9}   {spread}")
    print()
    for target in targets:
        mark = "met" if target["met"] else "MISSED"
        print(f"  {mark:>6}  {target['what']}: {target['figure']:.3g} (target {target['target']})")
    RESULTS.mkdir(exist_ok=True)
    content = {"subject": subject, "machine": machine(), "packages": packages, "rows": rows, "targets": targets}
    (RESULTS / f"{subject}.json").write_text(json.dumps(content, indent=1) + "\n")


def target(what: str, figure: float, wanted: float, *, at_least: bool = True) -> dict[str, Any]:
    met = figure >= wanted if at_least else figure <= wanted
    return {"what": what, "figure": figure, "target": f"{'≥' if at_least else '≤'} {wanted:g}", "met": met}
