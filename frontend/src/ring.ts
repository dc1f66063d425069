/** Peers on a circle, and the curves between them. Pure geometry; the picture's centre is the origin. */

import type { Connection } from "./types";

export const RADIUS = 225;

export interface Spot {
  x: number;
  y: number;
}

/** Evenly spread, the first at the top; a single one in the middle. */
export function spots(count: number): Spot[] {
  if (count === 1) return [{ x: 0, y: 0 }];
  return Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count - Math.PI / 2;
    return { x: RADIUS * Math.cos(angle), y: RADIUS * Math.sin(angle) };
  });
}

/** One SVG path of all `links`, bent towards the centre so that neighbours' lines keep inside. */
export function path(links: Connection[], places: Map<string, Spot>): string {
  let d = "";
  for (const { a, b } of links) {
    const from = places.get(a);
    const to = places.get(b);
    if (!from || !to) continue;
    const bend = 0.28;
    d += `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${((from.x + to.x) * bend).toFixed(1)} ${((from.y + to.y) * bend).toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
  }
  return d;
}

export interface Degree {
  direct: number;
  relayed: number;
  /** Median round trip of the connections that tell one, ms. */
  rttMs: number | null;
}

/** How each of `peers` is connected within `links`. */
export function degrees(peers: string[], links: Connection[]): Map<string, Degree> {
  const found = new Map<string, Degree & { trips: number[] }>(peers.map((p) => [p, { direct: 0, relayed: 0, rttMs: null, trips: [] }]));
  for (const link of links) {
    for (const end of [found.get(link.a), found.get(link.b)]) {
      if (!end) continue;
      if (link.kind === "relayed") end.relayed++;
      else end.direct++;
      if (link.rtt_ms !== null) end.trips.push(link.rtt_ms);
    }
  }
  for (const degree of found.values()) {
    degree.trips.sort((a, b) => a - b);
    degree.rttMs = degree.trips[Math.floor(degree.trips.length / 2)] ?? null;
  }
  return found;
}
