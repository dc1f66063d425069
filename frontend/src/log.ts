/** Events in words. Several of a kind at once, such as the claims of a newcomer, are one line. Pure functions. */

import { compact, loss, short } from "./format";
import type { HiveEvent } from "./types";

export type Group = [HiveEvent, ...HiveEvent[]];

const TOGETHER_S = 30;
const NAMED_MAX = 3;
const WHY_LOST: Record<string, string> = {
  lost: "another host holds it",
  lapsed: "its lease ran out",
  unstored: "its lease could not be stored",
};
const JOINED_UP = new Set(["expert-claimed", "expert-lost", "connected", "disconnected"]);

/** Neighbours in time of one kind and one peer, put together; `events` newest first, and so are the groups. */
export function grouped(events: HiveEvent[]): Group[] {
  const groups: Group[] = [];
  for (const event of events) {
    const group = groups.at(-1);
    const newest = group?.[0];
    if (group && newest && JOINED_UP.has(event.name) && newest.name === event.name && newest.peer === event.peer && newest.at - event.at < TOGETHER_S) group.push(event);
    else groups.push([event]);
  }
  return groups;
}

/** What a group says. */
export function sentence(group: Group): string {
  const { name, detail } = group[0];
  switch (name) {
    case "joined":
      if (detail.returned) return "is back";
      return detail.founded ? "joined, the first one here" : "joined";
    case "left":
      return detail.reason === "silent" ? "fell silent, and counts as gone" : "left";
    case "expert-claimed":
      return `took over ${listed(group, "uid", "an expert")}`;
    case "expert-lost":
      return detail.reason === "left" ? `gave up ${listed(group, "uid", "an expert")}` : `lost ${listed(group, "uid", "an expert")}${why(detail.reason)}`;
    case "first-batch":
      return `trained its first batch${typeof detail.loss === "number" ? `: loss ${loss(detail.loss)}` : ""}`;
    case "connected":
      return `connected to ${listed(group, "peer", "a peer")}`;
    case "disconnected":
      return `lost its connection to ${listed(group, "peer", "a peer")}`;
    case "sample":
      return `let the model write${typeof detail.step === "number" ? `, at step ${detail.step}` : ""}`;
    case "error":
      return typeof detail.why === "string" ? detail.why : "reports an error";
    case "trunk":
      return detail.taken_over ? `took the trunk over from another trainer, at step ${detail.step}` : "began with a fresh trunk";
    default: {
      const rest = Object.entries(detail).map(([key, value]) => `${key.replaceAll("_", " ")} ${typeof value === "number" ? compact(value) : value}`);
      return [name.replaceAll("-", " "), ...rest].join(", ");
    }
  }
}

function why(reason: unknown): string {
  return typeof reason === "string" ? `: ${WHY_LOST[reason] ?? reason}` : "";
}

function listed(group: Group, key: string, otherwise: string): string {
  const names = [...group].reverse().map((e) => (typeof e.detail[key] === "string" ? (key === "peer" ? short(e.detail[key]) : e.detail[key]) : otherwise));
  if (names.length <= NAMED_MAX) return names.join(", ");
  return `${names.slice(0, NAMED_MAX - 1).join(", ")} and ${names.length - NAMED_MAX + 1} more`;
}
