/** Numbers and times as people read them. The exact value goes into a title. */

export const UNKNOWN = "unknown";

// Made once: making one takes a hundred times as long as using it.
const EXACT = new Intl.NumberFormat(undefined, { maximumFractionDigits: 6 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

const SCALES: [number, string][] = [
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

/** 1234567 → "1.23 M"; three significant digits, so that a figure keeps its width. */
export function compact(value: number): string {
  const size = Math.abs(value);
  for (const [scale, letter] of SCALES) {
    if (size >= scale * 0.9995) return `${significant(value / scale)} ${letter}`;
  }
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : significant(value);
}

/** "1,234,567" in the reader's locale. */
export function exact(value: number): string {
  return EXACT.format(value);
}

/** Nats per token with three decimals, or "unknown". */
export function loss(value: number | null): string {
  return value === null ? UNKNOWN : value.toFixed(3);
}

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
  [1, "s"],
];

/** 75 → "1 min"; whole units, rounded down. */
export function age(seconds: number): string {
  for (const [size, unit] of UNITS) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return "now";
}

/** "12 s ago", or "now". */
export function ago(seconds: number): string {
  const text = age(seconds);
  return text === "now" ? text : `${text} ago`;
}

/** Unix seconds → "14:03:07" in the reader's zone. */
export function clock(at: number): string {
  return CLOCK.format(at * 1000);
}

/** Labels of a time axis whose ticks are `step` seconds apart: seconds only where they matter, the day where it changes. */
export function ticks(ats: number[], step: number): string[] {
  let day = new Date(ats[0] === undefined ? 0 : ats[0] * 1000).toDateString();
  return ats.map((at) => {
    const date = new Date(at * 1000);
    if (step >= 86_400 || date.toDateString() !== day) {
      day = date.toDateString();
      return DAY.format(date);
    }
    return clock(at).slice(0, step < 60 ? 8 : 5);
  });
}

/** Unix seconds → date and time in the reader's zone, for titles. */
export function moment(at: number): string {
  return MOMENT.format(at * 1000);
}

/** Unix seconds → "14:03:07" today, "12 May, 14:03" otherwise. */
export function when(at: number): string {
  const date = new Date(at * 1000);
  if (date.toDateString() === new Date().toDateString()) return clock(at);
  return `${DAY.format(date)}, ${clock(at).slice(0, 5)}`;
}

/** The first eight letters of a peer's id. */
export function short(peer: string): string {
  return peer.slice(0, 8);
}

function significant(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}
