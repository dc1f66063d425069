/** What is known of an expert, in words and as a state of its cell. Pure functions; coordinator/dashboard/comb.py says the same. */

import * as format from "./format";
import type { Expert } from "./types";

export type CellState = "hosted" | "single" | "stale" | "vacant" | "never";

const STALE_S = 6;

export function state(expert: Expert, now: number): CellState {
  if (expert.peer === null) return expert.seen_at === null ? "never" : "vacant";
  if (expert.seen_at !== null && now - expert.seen_at > STALE_S) return "stale";
  return expert.copies < 2 ? "single" : "hosted";
}

/** The glyph in a cell's corner, so that colour alone says nothing. */
export const BADGES: Record<CellState, string> = { hosted: "", single: "1", stale: "⋯", vacant: "", never: "" };

export function describe(e: Expert, now: number): string {
  if (e.seen_at === null) return `${e.uid}: no report has named it yet`;
  const seen = format.ago(Math.max(0, now - e.seen_at));
  if (e.peer === null) return `${e.uid}: nobody hosts it; last seen ${seen} at version ${e.version}`;
  const load = e.rows_per_s === null ? "load unknown" : `${format.compact(e.rows_per_s)} rows a second`;
  const copies = e.copies < 2 ? "one copy only" : `${e.copies} copies`;
  return `${e.uid}: hosted by ${format.short(e.peer)}, ${copies}, version ${e.version}, ${load}, ${e.rows} rows served, seen ${seen}`;
}
