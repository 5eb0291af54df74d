"""Prints tables of ratios, and writes them as JSON to bench/results/.

`python -m bench.report` writes the tables of all results into bench/README.md.
"""

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


def repeat(runs: Mapping[str, Callable[[], float]], times: int = 3) -> dict[str, list[float]]:
    """Do each of ``runs`` ``times`` times, in turns, so that a noisy minute affects all of them."""
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
    """One row: the median, the lowest and the highest figure, and the ratio to the median of ``base``."""
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


# --- the README -----------------------------------------------------------------------------------------------------

README = Path(__file__).parent / "README.md"
MARK = "<!-- the tables below are written by `python -m bench.report` -->"
SUBJECTS = (
    *("run_chunk", "validate", "finalize", "cold_start", "cost", "cost_long", "tls", "api", "scale", "fairness"),
    *("tails", "batch_mode", "memory"),
)
# Rows that are only in the JSON: the counts of a batch, and the quotas.
LEFT_OUT = ("counted", "scaled to", "100 x")


def tables() -> str:
    """The results as Markdown."""
    found = {subject: RESULTS / f"{subject}.json" for subject in SUBJECTS}
    return "\n".join(_table(json.loads(path.read_text())) for path in found.values() if path.exists())


def _table(result: dict[str, Any]) -> str:
    measured_with = {**result["machine"], **result["packages"]}
    lines = [
        f"## {result['subject']}",
        "",
        ", ".join(f"{key} {value}" for key, value in measured_with.items()) + ".",
        "",
    ]
    if result["targets"]:
        lines += ["| target | | measured | |", "| --- | --- | --- | --- |"]
        for each in result["targets"]:
            met = "met" if each["met"] else "**missed**"
            lines.append(f"| {each['what']} | {each['target']} | {each['figure']:.3g} | {met} |")
        lines.append("")
    rows = [row for row in result["rows"] if not row["name"].startswith(LEFT_OUT)]
    lines += ["| | median | ratio | lowest to highest |", "| --- | --- | --- | --- |"]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        spread = "" if row["lowest"] == row["highest"] else f"{row['lowest']:.4g} to {row['highest']:.4g}"
        lines.append(f"| {row['name']} | {row['median']:.4g} {row['unit']} | {ratio} | {spread} |")
    return "\n".join([*lines, ""])


def write_readme() -> None:
    head = README.read_text().partition(MARK)[0]
    README.write_text(f"{head}{MARK}\n\n{tables()}")


if __name__ == "__main__":
    write_readme()
