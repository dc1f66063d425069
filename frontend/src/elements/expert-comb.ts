/** `<expert-comb>`: the grid that the server drew, coloured by who hosts each expert, red where one copy or none is left; and as a table. */

import { BADGES, describe, state } from "../experts";
import { feed } from "../feed";
import * as format from "../format";
import { COLOURS, glyph, glyphPath } from "../palette";
import type { Expert } from "../types";
import { keyed, make, setText, whenSeen } from "./dom";

const SVG = "http://www.w3.org/2000/svg";
const LOAD_WIDTH = 40;
/** Of the bar of the expert with the most load. */

class ExpertComb extends HTMLElement {
  private cells = new Map<string, Cell>();

  connectedCallback(): void {
    for (const group of this.querySelectorAll<SVGGElement>("[data-uid]")) this.cells.set(group.dataset.uid as string, new Cell(group));
    feed().addEventListener("tick", whenSeen(this, () => this.render()));
    this.querySelector("details")?.addEventListener("toggle", () => this.render());
  }

  private render(): void {
    const tick = feed().tick;
    if (!tick) return;
    const most = Math.max(0, ...tick.experts.map((e) => e.rows_per_s ?? 0));
    const hosted = new Map<string, [hosted: number, all: number]>();
    for (const expert of tick.experts) {
      this.cells.get(expert.uid)?.draw(expert, tick.at, most);
      const layer = expert.uid.slice(0, expert.uid.indexOf("."));
      const [some, all] = hosted.get(layer) ?? [0, 0];
      hosted.set(layer, [some + (expert.peer ? 1 : 0), all + 1]);
    }
    for (const [layer, [some, all]] of hosted) this.caption(layer, `${some} of ${all} hosted`);
    this.querySelector("[data-comb]")?.classList.toggle("untouched", tick.summary.reported_at === null);
    this.legend(tick.experts);
    if (this.querySelector("details")?.open) this.table(tick.experts, tick.at);
  }

  private caption(layer: string, text: string): void {
    const figure = this.querySelector(`figure[data-layer="${layer}"]`);
    const caption = figure?.querySelector("figcaption span");
    if (!figure || !caption || caption.textContent === text) return;
    setText(caption, text);
    figure.querySelector("svg")?.setAttribute("aria-label", `Layer ${layer}: ${text}. The table has the details.`);
  }

  private legend(experts: Expert[]): void {
    const list = this.querySelector("[data-legend]");
    if (!list) return;
    const counts = new Map<string, number>();
    for (const { peer } of experts) if (peer) counts.set(peer, (counts.get(peer) ?? 0) + 1);
    const rows = [...counts].sort((a, b) => b[1] - a[1]);
    keyed(
      list,
      rows,
      ([peer]) => peer,
      ([peer]) => {
        const item = make("li");
        item.append(glyph(feed().palette.slot(peer)), make("code", "", format.short(peer)), make("span"));
        item.title = peer;
        return item;
      },
      (node, [, count]) => setText(node.querySelector("span") as Element, `${count} ${count === 1 ? "expert" : "experts"}`),
    );
    const count = (name: string, n: number, text: string) => setText(this.querySelector(`[data-${name}]`) as Element, `${n} ${text}`);
    count("vacant", experts.filter((e) => e.peer === null).length, "without a host");
    count("single", experts.filter((e) => e.peer !== null && e.copies < 2).length, "in one copy only: lost if its host crashes");
  }

  private table(experts: Expert[], now: number): void {
    const body = this.querySelector("tbody");
    if (!body) return;
    keyed(body, experts, (e) => e.uid, row, (node, e) => {
      const cell = (name: string) => node.querySelector(`.${name}`) as HTMLElement;
      const number = (name: string, value: number | null) => setText(cell(name), value === null ? format.UNKNOWN : format.compact(value), value === null ? "" : format.exact(value));
      setText(cell("host"), e.peer ? format.short(e.peer) : "× nobody", e.peer ?? "no peer that reports hosts it");
      cell("host").classList.toggle("bad", e.peer === null);
      setText(cell("copies"), e.copies === 1 ? "1 only" : String(e.copies));
      cell("copies").classList.toggle("bad", e.copies < 2);
      number("version", e.version);
      number("load", e.rows_per_s);
      number("rows", e.rows);
      setText(cell("seen"), e.seen_at === null ? "never" : format.ago(Math.max(0, now - e.seen_at)));
    });
  }
}

function row(expert: Expert): HTMLElement {
  const node = make("tr");
  const head = make("th");
  head.scope = "row";
  head.append(make("code", "", expert.uid));
  node.append(head, ...["host", "copies", "version", "load", "rows", "seen"].map((name) => make("td", name)));
  return node;
}

/** One place of the grid; touches the document only where something changed. */
class Cell {
  private drawn = "";
  private readonly title: Element;
  private readonly version: Element;
  private readonly cross: Element;
  private readonly badge = text("badge", 25, -14);
  private readonly load = document.createElementNS(SVG, "rect");
  private mark: Element | null = null;

  constructor(private readonly group: SVGGElement) {
    this.title = group.querySelector("title") as Element;
    this.version = group.querySelector(".version") as Element;
    this.cross = group.querySelector(".cross") as Element;
    this.load.setAttribute("class", "load");
    this.load.setAttribute("y", "25");
    this.load.setAttribute("height", "3");
    group.append(this.badge, this.load);
  }

  draw(expert: Expert, now: number, most: number): void {
    const is = state(expert, now);
    const slot = expert.peer ? feed().palette.slot(expert.peer) : -1;
    const version = expert.peer === null || expert.version === null ? "" : format.compact(expert.version).replace(" ", "");
    const load = most > 0 ? Math.round((LOAD_WIDTH * (expert.rows_per_s ?? 0)) / most) : 0;
    const drawn = `${is}|${slot}|${version}|${load}`;
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.group.setAttribute("class", `cell ${is}${slot >= 0 ? ` peer-${slot % COLOURS}` : ""}`);
      this.load.setAttribute("width", String(load));
      this.load.setAttribute("x", String(-load / 2));
      setText(this.version, version);
      setText(this.cross, expert.peer === null ? "×" : "");
      setText(this.badge, BADGES[is]);
      this.show(slot);
    }
    setText(this.title, describe(expert, now));
  }

  private show(slot: number): void {
    const wanted = String(slot);
    if (this.mark?.getAttribute("data-slot") === wanted) return;
    this.mark?.remove();
    this.mark = null;
    if (slot < 0) return;
    this.mark = glyphPath(slot);
    this.mark.setAttribute("data-slot", wanted);
    this.mark.setAttribute("transform", "translate(-10.5 -25) scale(1.32)");
    this.mark.setAttribute("class", "mark");
    this.group.append(this.mark);
  }
}

function text(className: string, x: number, y: number): SVGTextElement {
  const node = document.createElementNS(SVG, "text");
  node.setAttribute("x", String(x));
  node.setAttribute("y", String(y));
  node.setAttribute("class", className);
  return node;
}

customElements.define("expert-comb", ExpertComb);
