/** What is drawn on a chart besides its lines: comings and goings, and the times when no coordinator was up. */

import type uPlot from "uplot";
import type { HiveEvent } from "../types";
import { colour } from "./dom";

export interface Colours {
  ink: string;
  soft: string;
  rule: string;
  honey: string;
  faint: string;
  sea: string;
  seaFill: string;
  joined: string;
  left: string;
  away: string;
  font: string;
}

const MARK = 4;
/** Half the width of a marker, CSS pixels. */

export function readColours(element: Element): Colours {
  const of = (name: string) => colour(element, `var(--${name})`);
  return {
    ink: of("ink"),
    soft: of("soft"),
    rule: of("rule"),
    honey: of("honey-line"),
    faint: of("honey-faint"),
    sea: of("sea"),
    seaFill: of("sea-faint"),
    joined: of("good"),
    left: of("alert"),
    away: of("away"),
    font: `12px ${getComputedStyle(element).fontFamily}`,
  };
}

/** Bands where no coordinator was up: reports of that time came later, or never. */
export function drawOutages(u: uPlot, outages: [number, number][], colours: Colours): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = colours.away;
  for (const [from, to] of outages) {
    const a = Math.max(bbox.left, u.valToPos(from, "x", true));
    const b = Math.min(bbox.left + bbox.width, u.valToPos(to, "x", true));
    if (b > a) ctx.fillRect(a, bbox.top, b - a, bbox.height);
  }
  ctx.restore();
}

/** ▲ where a peer joined, ▼ where one left, along the upper edge. */
export function drawMarkers(u: uPlot, events: HiveEvent[], colours: Colours): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const size = MARK * ratio;
  ctx.save();
  for (const event of events) {
    if (event.name !== "joined" && event.name !== "left") continue;
    const x = u.valToPos(event.at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const up = event.name === "joined";
    const y = bbox.top - size - 3 * ratio;
    ctx.fillStyle = ctx.strokeStyle = up ? colours.joined : colours.left;
    ctx.globalAlpha = 0.35;
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(x, up ? y - size : y + size);
    ctx.lineTo(x - size, up ? y + size : y - size);
    ctx.lineTo(x + size, up ? y + size : y - size);
    ctx.fill();
  }
  ctx.restore();
}
