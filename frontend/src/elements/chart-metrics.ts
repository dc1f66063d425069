/** What each chart shows: its columns, lines, axes and words. */

import type uPlot from "uplot";
import * as format from "../format";
import { finished, rate, smooth, withGaps } from "../series";
import type { Series } from "../types";
import { nats, units, unitsFirst } from "../words";
import type { Colours } from "./chart-marks";

export interface View {
  smoothing: number;
  markers: boolean;
}

export interface Metric {
  scales: Record<string, uPlot.Scale>;
  /** Room on the right, so that the plots below each other line up. */
  right: number;
  columns(series: Series, view: View): uPlot.AlignedData;
  series(colours: Colours): uPlot.Series[];
  axes(axis: uPlot.Axis): uPlot.Axis[];
  /** The values at an index, in words. */
  read(data: uPlot.AlignedData, i: number): string;
  /** What the picture shows, for those who cannot see it. */
  label(series: Series): string;
  cells(series: Series, i: number): string[];
}

const RATE_WINDOW = 5;
const value = (data: uPlot.AlignedData, column: number, i: number) => (data[column]?.[i] ?? null) as number | null;
const latest = (values: (number | null)[]) => values.findLast((v) => v !== null) ?? null;
const earliest = (values: (number | null)[]) => values.find((v) => v !== null) ?? null;

const loss: Metric = {
  right: 34,
  scales: {},
  columns(series, view) {
    const s = withGaps(series);
    return [s.at, s.loss, smooth(s.loss, view.smoothing), s.loss_validation];
  },
  series: (c) => [
    { label: "training", stroke: c.faint, width: 1, points: { show: false } },
    { label: "training, smoothed", stroke: c.honey, width: 2, points: { show: false } },
    { label: "validation", stroke: c.sea, width: 1.5, spanGaps: true, points: { show: true, size: 6, fill: c.sea, width: 0 } },
  ],
  axes: (axis) => [{ ...axis, size: 44, values: (_, ticks) => ticks.map((t) => t.toFixed(ticks.length > 1 && (ticks[1] as number) - (ticks[0] as number) < 0.1 ? 2 : 1)) }],
  read(data, i) {
    const validation = value(data, 3, i);
    return `training ${format.loss(value(data, 2, i))}${validation === null ? "" : ` · validation ${format.loss(validation)}`}`;
  },
  label: (s) =>
    `Loss over time, ${s.at.length} points: training from ${format.loss(earliest(s.loss))} to ${format.loss(latest(s.loss))} ${nats()}, validation now ${format.loss(latest(s.loss_validation))}.`,
  cells: (s, i) => [format.loss(s.loss[i] ?? null), format.loss(s.loss_validation[i] ?? null)],
};

const throughput: Metric = {
  right: 4,
  scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.15)] }, peers: { range: (_, __, max) => [0, Math.max(2, max + 1)] } },
  columns(series) {
    const s = withGaps(series);
    // within one second some peers report twice and some not at all
    const peers = s.peers.map((n, i) => (Number.isNaN(n) ? null : Math.max(...s.peers.slice(Math.max(0, i - 2), i + 1).filter((m) => !Number.isNaN(m)))));
    return [s.at, rate(finished(s), s.resolution, s.resolution === 1 ? RATE_WINDOW : 1), peers];
  },
  series: (c) => [
    { label: `${units()}/s`, stroke: c.sea, fill: c.seaFill, width: 1.5, points: { show: false } },
    { label: "peers", scale: "peers", stroke: c.soft, width: 1.2, dash: [4, 3], points: { show: false } },
  ],
  axes: (axis) => [
    { ...axis, size: 44, values: (_, ticks) => ticks.map((t) => format.compact(t).replace(" ", "")) },
    { ...axis, scale: "peers", side: 1, size: 30, grid: { show: false }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
  ],
  read(data, i) {
    const perSecond = value(data, 1, i);
    const peers = value(data, 2, i);
    return `${perSecond === null ? format.UNKNOWN : format.compact(perSecond)} ${units()}/s · ${peers ?? format.UNKNOWN} peers`;
  },
  label: (s) => `${unitsFirst()} per second and number of peers over time, ${s.at.length} points; ${s.peers.at(-1) ?? 0} peers at the end.`,
  cells(s, i) {
    const trained = finished(s)[i] ?? Number.NaN;
    return [Number.isNaN(trained) ? format.UNKNOWN : format.exact(Math.round(trained / s.resolution)), String(s.peers[i] ?? 0)];
  },
};

export const METRICS: Record<string, Metric> = { loss, rate: throughput };
