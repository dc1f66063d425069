/** Where the cells of a layer's grid lie in a honeycomb. Pure geometry: pointy-top hexagons of radius 1. */

import type { Expert } from "./types";

export interface Cell {
  expert: Expert;
  x: number;
  y: number;
}

export interface Layer {
  name: string;
  cells: Cell[];
  width: number;
  height: number;
  hosted: number;
}

const STEP_X = Math.sqrt(3);
const STEP_Y = 1.5;
const LINE_COLUMNS = 8;
/** A one-dimensional grid is wrapped into lines of this many. */

/** `ffn0.3.1` → the layer and the coordinates. */
export function parse(uid: string): [string, number[]] {
  const [layer = "", ...rest] = uid.split(".");
  return [layer, rest.map(Number)];
}

/** One comb per layer, rows by all coordinates but the last. */
export function layers(experts: Expert[]): Layer[] {
  const byLayer = new Map<string, Expert[]>();
  for (const expert of experts) {
    const [layer] = parse(expert.uid);
    const list = byLayer.get(layer) ?? [];
    list.push(expert);
    byLayer.set(layer, list);
  }
  return [...byLayer].map(([name, list]) => arrange(name, list));
}

function arrange(name: string, experts: Expert[]): Layer {
  const flat = experts.every((e) => parse(e.uid)[1].length === 1);
  const rows = new Map<string, number>();
  let columns = 0;
  const places = experts.map((expert, i) => {
    const [, coordinates] = parse(expert.uid);
    const key = flat ? String(Math.floor(i / LINE_COLUMNS)) : coordinates.slice(0, -1).join(".");
    const row = rows.get(key) ?? rows.size;
    rows.set(key, row);
    const column = flat ? i % LINE_COLUMNS : (coordinates.at(-1) ?? 0);
    columns = Math.max(columns, column + 1);
    return { expert, row, column };
  });
  return {
    name,
    cells: places.map(({ expert, row, column }) => ({
      expert,
      x: STEP_X * (column + 0.5 + (row % 2) * 0.5),
      y: 1 + STEP_Y * row,
    })),
    width: STEP_X * (columns + (rows.size > 1 ? 0.5 : 0)),
    height: 2 + STEP_Y * (rows.size - 1),
    hosted: experts.filter((e) => e.peer !== null).length,
  };
}

/** The outline of a hexagon of radius `r` around the origin, as an SVG path. */
export function hexagon(r: number): string {
  const points = Array.from({ length: 6 }, (_, i) => {
    const angle = (Math.PI / 3) * i + Math.PI / 6;
    return `${(r * Math.cos(angle)).toFixed(3)} ${(r * Math.sin(angle)).toFixed(3)}`;
  });
  return `M${points.join("L")}Z`;
}
