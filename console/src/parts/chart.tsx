// A small live chart of one value over time.
import { useEffect, useRef } from "preact/hooks";
import UPlot from "uplot";
import { timeOfDay } from "../format";

const HEIGHT = 160;
// Between two marks of the time axis.
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

interface Charted {
  label: string;
  points: readonly { at: number; perMinute: number }[];
}

export function Chart({ label, points }: Charted) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<UPlot | null>(null);
  const data: UPlot.AlignedData = [points.map((each) => each.at), points.map((each) => each.perMinute)];

  useEffect(() => {
    const element = place.current!;
    chart.current = new UPlot(options(element), data, element);
    const watching = new ResizeObserver(() => chart.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    watching.observe(element);
    return () => {
      watching.disconnect();
      chart.current?.destroy();
    };
  }, []);
  useEffect(() => chart.current?.setData(data), [points]);

  return <div class="chart" ref={place} role="img" aria-label={label} />;
}

function options(element: HTMLElement): UPlot.Options {
  const style = getComputedStyle(element);
  const axis = {
    stroke: style.getPropertyValue("--quiet"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: style.getPropertyValue("--line"), width: 1 },
    ticks: { show: false },
  };
  const accent = style.getPropertyValue("--accent");
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(10, most * 1.1)] } },
    axes: [{ ...axis, incrs: SECONDS, space: 90, size: 30, values: (_, splits) => splits.map(timeOfDay) }, { ...axis, size: 56 }],
    series: [{}, { stroke: accent, width: 2, fill: `${accent}22`, points: { show: false } }],
  };
}
