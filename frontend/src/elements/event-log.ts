/** `<event-log>`: what happened, newest first. */

import { feed } from "../feed";
import * as format from "../format";
import { glyph } from "../palette";
import type { HiveEvent } from "../types";
import { keyed, make, setText } from "./dom";

const SHOWN_MAX = 60;

class EventLog extends HTMLElement {
  private newest = "";

  connectedCallback(): void {
    feed().addEventListener("tick", () => this.render());
    feed().addEventListener("events", () => this.render());
  }

  private render(): void {
    const list = this.querySelector("ol");
    if (!list) return;
    const events = feed().eventList.slice(0, SHOWN_MAX);
    const state = events.map((e) => e.id).join();
    if (state === this.newest) return;
    this.newest = state;
    this.classList.toggle("empty", events.length === 0);
    keyed(list, events, (e) => String(e.id), line, () => undefined);
  }
}

function line(event: HiveEvent): HTMLElement {
  const node = make("li", `event-${event.name}`);
  const time = make("time", "", format.clock(event.at));
  time.dateTime = new Date(event.at * 1000).toISOString();
  time.title = format.moment(event.at);
  const who = make("span", "who");
  if (event.peer) who.append(glyph(feed().palette.slot(event.peer)), make("code", "", format.short(event.peer)));
  else who.textContent = "coordinator";
  const what = make("span", "what");
  setText(what, sentence(event));
  node.append(time, who, what);
  return node;
}

/** What an event says, in words. */
export function sentence({ name, detail }: HiveEvent): string {
  const text = (key: string) => (detail[key] === undefined || detail[key] === null ? "" : String(detail[key]));
  switch (name) {
    case "joined":
      return detail.returned ? "is back" : "joined";
    case "left":
      return detail.reason === "silent" ? "fell silent, and counts as gone" : "left";
    case "expert-claimed":
      return `took over ${text("uid") || "an expert"}`;
    case "expert-lost":
      return `lost ${text("uid") || "an expert"}`;
    default: {
      const rest = Object.entries(detail).map(([key, value]) => `${key} ${value}`);
      return [name.replaceAll("-", " "), ...rest].join(" · ");
    }
  }
}

customElements.define("event-log", EventLog);
