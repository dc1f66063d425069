/** Points of a chart: merging live ones into loaded ones, gaps, smoothing. Pure functions. */

import type { Series } from "./types";

export const POINTS_MAX = 6000;
/** Beyond this the page asks for a coarser series. */
const GAP_POINTS = 15;
/** A silence longer than this many points (at least 15 s) is drawn as a gap. */

export function empty(resolution: number): Series {
  return { resolution, at: [], loss: [], loss_validation: [], tokens: [], peers: [], complete_until: 0, outages: [] };
}

/** `base` with the points of `news` added or replaced; both sorted by time, and of one resolution. */
export function merge(base: Series, news: Series): Series {
  if (news.at.length === 0) return base;
  const first = news.at[0] as number;
  let from = base.at.length;
  while (from > 0 && (base.at[from - 1] as number) >= first) from--;
  const rows = new Map<number, [Series, number]>();
  for (let i = from; i < base.at.length; i++) rows.set(base.at[i] as number, [base, i]);
  news.at.forEach((at, i) => rows.set(at, [news, i]));
  const tail = [...rows.entries()].sort((a, b) => a[0] - b[0]);
  const merged: Series = {
    resolution: base.resolution,
    at: base.at.slice(0, from),
    loss: base.loss.slice(0, from),
    loss_validation: base.loss_validation.slice(0, from),
    tokens: base.tokens.slice(0, from),
    peers: base.peers.slice(0, from),
    complete_until: Math.max(base.complete_until, news.complete_until),
    outages: base.outages,
  };
  for (const [at, [source, i]] of tail) {
    merged.at.push(at);
    merged.loss.push(source.loss[i] ?? null);
    merged.loss_validation.push(source.loss_validation[i] ?? null);
    merged.tokens.push(source.tokens[i] ?? 0);
    merged.peers.push(source.peers[i] ?? 0);
  }
  return merged;
}

/** `series` with an empty point after each silence, so that no line is drawn across it. */
export function withGaps(series: Series): Series {
  const silence = Math.max(GAP_POINTS, GAP_POINTS * series.resolution);
  const out = empty(series.resolution);
  out.outages = series.outages;
  out.complete_until = series.complete_until;
  series.at.forEach((at, i) => {
    const former = series.at[i - 1];
    if (former !== undefined && at - former > silence) {
      out.at.push(former + series.resolution);
      out.loss.push(null);
      out.loss_validation.push(null);
      out.tokens.push(Number.NaN);
      out.peers.push(Number.NaN);
    }
    out.at.push(at);
    out.loss.push(series.loss[i] ?? null);
    out.loss_validation.push(series.loss_validation[i] ?? null);
    out.tokens.push(series.tokens[i] ?? 0);
    out.peers.push(series.peers[i] ?? 0);
  });
  return out;
}

/** What was trained in each point; NaN in those that are still growing: half a second drawn as a whole one would be a dip. */
export function finished(series: Series): number[] {
  return series.tokens.map((n, i) => ((series.at[i] as number) + series.resolution > series.complete_until ? Number.NaN : n));
}

/** Exponential moving average, unbiased at its start; `weight` 0 (none) to just under 1. Unknown values stay unknown. */
export function smooth(values: (number | null)[], weight: number): (number | null)[] {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    mass = mass * weight + (1 - weight);
    return sum / mass;
  });
}

/** Tokens per second, averaged over the `width` points up to each one. NaN marks a gap, and comes out as null. */
export function rate(tokens: number[], resolution: number, width: number): (number | null)[] {
  let sum = 0;
  const window: number[] = [];
  return tokens.map((value) => {
    if (Number.isNaN(value)) {
      window.length = 0;
      sum = 0;
      return null;
    }
    window.push(value);
    sum += value;
    if (window.length > width) sum -= window.shift() as number;
    return sum / (window.length * resolution);
  });
}

/** At most `rows` indices spread evenly over `length`, the last one included. */
export function spread(length: number, rows: number): number[] {
  if (length <= rows) return Array.from({ length }, (_, i) => i);
  return Array.from({ length: rows }, (_, i) => Math.round(((i + 1) * length) / rows) - 1);
}
