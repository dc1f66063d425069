/** `<sample-text>`: what the model wrote as training went, newest first. */

import { feed } from "../feed";
import * as format from "../format";
import { glyph } from "../palette";
import type { HiveEvent } from "../types";
import { keyed, make, timeOf, whenSeen } from "./dom";

const SHOWN_MAX = 20;

class SampleText extends HTMLElement {
  private newest = "";

  connectedCallback(): void {
    const render = whenSeen(this, () => this.render());
    feed().addEventListener("tick", render);
    feed().addEventListener("events", render);
  }

  private render(): void {
    const list = this.querySelector("ol");
    const samples = feed().eventList.filter((e) => e.name === "sample").slice(0, SHOWN_MAX);
    const state = samples.map((e) => e.id).join();
    if (!list || state === this.newest) return;
    this.newest = state;
    this.classList.toggle("empty", samples.length === 0);
    keyed(list, samples, (e) => String(e.id), item, () => {});
  }
}

function item({ at, peer, detail }: HiveEvent): HTMLElement {
  const node = make("li");
  const from = make("p", "from");
  if (typeof detail.step === "number") from.append(make("b", "", `step ${format.exact(detail.step)}`), " ");
  from.append(timeOf(at), " ");
  if (peer) {
    const who = make("span", "who", "by");
    who.append(glyph(feed().palette.slot(peer)), make("code", "", format.short(peer)));
    from.append(who);
  }
  const pre = make("pre");
  pre.append(make("span", "prompt", String(detail.prompt ?? "")), make("span", "written", String(detail.text ?? "")));
  node.append(from, pre);
  return node;
}

customElements.define("sample-text", SampleText);
