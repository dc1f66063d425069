/** `<expert-comb>`: the grid of experts as a honeycomb, coloured by who hosts each, red where nobody does; and as a table. */

import { type Layer, hexagon, layers } from "../comb";
import { feed } from "../feed";
import * as format from "../format";
import { COLOURS, glyph, glyphPath } from "../palette";
import type { Expert } from "../types";
import { keyed, make, setText } from "./dom";

const SVG = "http://www.w3.org/2000/svg";
const CELL = 46;
/** Radius of a cell in the picture's units; one unit is a CSS pixel at full size. */
const GAP = 2.6;
const STALE_S = 6;
const CELLS_MAX = 1024;
/** Larger grids show only the table. */

class ExpertComb extends HTMLElement {
  private shape = "";
  private cells = new Map<string, { group: SVGGElement; drawn: string }>();

  connectedCallback(): void {
    feed().addEventListener("tick", () => this.render());
    this.querySelector("details")?.addEventListener("toggle", () => this.render());
  }

  private render(): void {
    const tick = feed().tick;
    const stage = this.querySelector<HTMLElement>("[data-comb]");
    if (!tick || !stage) return;
    const shown = layers(tick.experts.slice(0, CELLS_MAX));
    const shape = shown.map((l) => `${l.name}:${l.cells.length}`).join();
    if (shape !== this.shape) {
      this.shape = shape;
      this.cells.clear();
      stage.replaceChildren(...shown.map((layer) => this.build(layer)));
    }
    for (const layer of shown) this.update(layer, tick.at, stage);
    stage.classList.toggle("untouched", tick.summary.reported_at === null);
    this.legend(tick.experts);
    if (this.querySelector("details")?.open) this.table(tick.experts, tick.at);
  }

  private build(layer: Layer): HTMLElement {
    const figure = make("figure", "layer");
    const svg = document.createElementNS(SVG, "svg");
    const [w, h] = [layer.width * CELL + 4, layer.height * CELL + 4];
    svg.setAttribute("viewBox", `-2 -2 ${w.toFixed(1)} ${h.toFixed(1)}`);
    svg.setAttribute("width", w.toFixed(0));
    svg.setAttribute("role", "img");
    svg.dataset.layer = layer.name;
    for (const cell of layer.cells) {
      const group = document.createElementNS(SVG, "g");
      group.setAttribute("transform", `translate(${(cell.x * CELL).toFixed(2)} ${(cell.y * CELL).toFixed(2)})`);
      group.dataset.uid = cell.expert.uid;
      svg.append(group);
      this.cells.set(cell.expert.uid, { group, drawn: "" });
    }
    const caption = make("figcaption");
    caption.append(make("b", "", layer.name), make("span"));
    figure.append(svg, caption);
    figure.dataset.layer = layer.name;
    return figure;
  }

  private update(layer: Layer, now: number, stage: Element): void {
    for (const { expert } of layer.cells) {
      const cell = this.cells.get(expert.uid);
      if (!cell) continue;
      const slot = expert.peer ? feed().palette.slot(expert.peer) : -1;
      const stale = expert.peer !== null && expert.seen_at !== null && now - expert.seen_at > STALE_S;
      const version = expert.version === null ? "" : format.compact(expert.version).replace(" ", "");
      const drawn = `${slot}|${stale}|${version}|${expert.seen_at === null}`;
      if (cell.drawn !== drawn) {
        cell.drawn = drawn;
        draw(cell.group, expert, slot, stale, version);
      }
      const title = cell.group.querySelector("title");
      if (title) setText(title, describe(expert, now));
    }
    const figure = stage.querySelector<HTMLElement>(`figure[data-layer="${layer.name}"]`);
    const text = `${layer.hosted} of ${layer.cells.length} hosted`;
    const caption = figure?.querySelector("figcaption span");
    if (caption) setText(caption, text);
    figure?.querySelector("svg")?.setAttribute("aria-label", `Layer ${layer.name}: ${text}. The table has the details.`);
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
    const vacant = experts.filter((e) => e.peer === null).length;
    const note = this.querySelector<HTMLElement>("[data-vacant]");
    if (note) {
      note.hidden = vacant === 0;
      setText(note.querySelector("span") ?? note, `${vacant} without a host`);
    }
  }

  private table(experts: Expert[], now: number): void {
    const body = this.querySelector("tbody");
    if (!body) return;
    keyed(
      body,
      experts,
      (e) => e.uid,
      (e) => {
        const node = make("tr");
        const head = make("th");
        head.scope = "row";
        head.append(make("code", "", e.uid));
        node.append(head, ...["host", "version", "rows", "seen"].map((name) => make("td", name)));
        return node;
      },
      (node, e) => {
        const cell = (name: string) => node.querySelector(`.${name}`) as HTMLElement;
        setText(cell("host"), e.peer ? format.short(e.peer) : "× nobody", e.peer ?? "no peer that reports hosts it");
        cell("host").classList.toggle("bad", e.peer === null);
        setText(cell("version"), e.version === null ? format.UNKNOWN : format.exact(e.version));
        setText(cell("rows"), e.rows === null ? format.UNKNOWN : format.compact(e.rows), e.rows === null ? "" : format.exact(e.rows));
        setText(cell("seen"), e.seen_at === null ? "never" : format.ago(Math.max(0, now - e.seen_at)));
      },
    );
  }
}

function draw(group: SVGGElement, expert: Expert, slot: number, stale: boolean, version: string): void {
  const state = expert.peer ? (stale ? "stale" : "hosted") : expert.seen_at === null ? "unseen" : "vacant";
  group.setAttribute("class", `cell ${state}${slot >= 0 ? ` peer-${slot % COLOURS}` : ""}`);
  const title = document.createElementNS(SVG, "title");
  const hex = document.createElementNS(SVG, "path");
  hex.setAttribute("d", hexagon(CELL - GAP));
  hex.setAttribute("class", "hex");
  group.replaceChildren(title, hex);
  if (slot >= 0) {
    const mark = glyphPath(slot);
    mark.setAttribute("transform", "translate(-10.5 -23) scale(1.32)");
    mark.setAttribute("class", "mark");
    group.append(mark, text(version, 19, "version"));
  } else {
    group.append(text("×", 9, "cross"));
  }
}

function text(content: string, y: number, className: string): SVGTextElement {
  const node = document.createElementNS(SVG, "text");
  node.setAttribute("y", String(y));
  node.setAttribute("class", className);
  node.textContent = content;
  return node;
}

function describe(e: Expert, now: number): string {
  if (e.seen_at === null) return `${e.uid}: no report has named it yet`;
  const seen = format.ago(Math.max(0, now - e.seen_at));
  if (e.peer === null) return `${e.uid}: nobody hosts it; last seen ${seen} at version ${e.version}`;
  return `${e.uid}: hosted by ${format.short(e.peer)}, version ${e.version}, ${e.rows} rows served, seen ${seen}`;
}

customElements.define("expert-comb", ExpertComb);
