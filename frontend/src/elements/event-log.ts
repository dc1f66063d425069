/** `<event-log>`: what happened, newest first. */

import { feed } from "../feed";
import * as format from "../format";
import { glyph } from "../palette";
import { type Group, grouped, sentence } from "../log";
import { keyed, make, setText, timeOf, whenSeen } from "./dom";

const SHOWN_MAX = 60;

class EventLog extends HTMLElement {
  private newest = "";

  connectedCallback(): void {
    const render = whenSeen(this, () => this.render());
    feed().addEventListener("tick", render);
    feed().addEventListener("events", render);
  }

  private render(): void {
    const list = this.querySelector("ol");
    if (!list) return;
    const groups = grouped(feed().eventList).slice(0, SHOWN_MAX);
    const state = groups.map((g) => `${g[0].id}+${g.length}`).join();
    if (state === this.newest) return;
    this.newest = state;
    this.classList.toggle("empty", groups.length === 0);
    keyed(list, groups, (g) => String(g.at(-1)?.id), line, (node, g) => setText(node.querySelector(".what") as Element, sentence(g)));
  }
}

function line([event]: Group): HTMLElement {
  const node = make("li", `event-${event.name}`);
  const who = make("span", "who");
  if (event.peer) who.append(glyph(feed().palette.slot(event.peer)), make("code", "", format.short(event.peer)));
  else who.textContent = "coordinator";
  const what = make("span", "what");
  node.append(timeOf(event.at), who, what);
  return node;
}

customElements.define("event-log", EventLog);
