/** `<peer-topology>`: who is connected to whom, solid where directly and dashed where through a relay; beside it the same as a table. */

import { feed } from "../feed";
import * as format from "../format";
import { COLOURS, glyph, glyphPath } from "../palette";
import { type Degree, type Spot, degrees, path, spots } from "../ring";
import type { Connection } from "../types";
import { keyed, make, setText, whenSeen } from "./dom";

const SVG = "http://www.w3.org/2000/svg";
const DRAWN_MAX = 100;
/** Peers in the picture, those that have been here longest. */
const PERIOD_MS = 4000;
const NAMED_MAX = 12;

class PeerTopology extends HTMLElement {
  private links: Connection[] = [];
  private peers: string[] = [];
  private chosen: string | null = null;
  private seen = false;
  private loading = false;
  private places = new Map<string, Spot>();

  connectedCallback(): void {
    new IntersectionObserver((entries) => {
      this.seen = entries.at(-1)?.isIntersecting ?? false;
      if (this.seen) void this.load();
    }, { rootMargin: "300px" }).observe(this);
    setInterval(() => this.seen && !document.hidden && void this.load(), PERIOD_MS);
    feed().addEventListener("tick", whenSeen(this, () => this.come()));
  }

  /** The ring follows who is here at once; the lines follow with the next answer. */
  private come(): void {
    const peers = (feed().tick?.peers ?? []).slice(0, DRAWN_MAX).map((p) => p.peer);
    if (peers.join() === this.peers.join()) return;
    this.peers = peers;
    if (this.seen) void this.load();
    this.render();
  }

  private async load(): Promise<void> {
    if (this.loading || feed().link === "lost") return;
    this.loading = true;
    try {
      this.links = await feed().connections(DRAWN_MAX);
      this.classList.remove("loading");
    } catch (e) {
      if (!(e instanceof Error)) throw e; // the page's banner says that the site is away
    } finally {
      this.loading = false;
    }
    this.render();
  }

  private render(): void {
    const placed = spots(this.peers.length);
    this.places = new Map(this.peers.map((peer, i) => [peer, placed[i] as Spot]));
    this.links = this.links.filter((l) => this.places.has(l.a) && this.places.has(l.b));
    if (this.chosen !== null && !this.places.has(this.chosen)) this.chosen = null;
    const found = degrees(this.peers, this.links);
    this.nodes();
    this.lines(found);
    this.table(found);
    this.excuse();
  }

  private excuse(): void {
    const excuse = this.querySelector("[data-excuse]") as HTMLElement;
    const loading = this.classList.contains("loading");
    setText(excuse, this.peers.length === 0 ? "Nobody is here." : loading ? "Loading…" : this.links.length === 0 ? "No connection has been reported." : "");
  }

  private nodes(): void {
    const group = this.querySelector("[data-nodes]") as SVGGElement;
    const size = this.peers.length > 40 ? 0.8 : 1.15;
    const known = new Map([...group.children].map((node) => [node.getAttribute("data-peer"), node]));
    for (const [peer, { x, y }] of this.places) {
      const slot = feed().palette.slot(peer);
      let node = known.get(peer);
      known.delete(peer);
      if (node?.getAttribute("data-slot") !== String(slot)) {
        node?.remove();
        node = group.appendChild(this.node(peer, slot));
      }
      node.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size}) translate(-8 -8)`);
    }
    for (const gone of known.values()) gone.remove();
  }

  private node(peer: string, slot: number): SVGGElement {
    const node = document.createElementNS(SVG, "g");
    const title = document.createElementNS(SVG, "title");
    title.textContent = peer;
    node.append(glyphPath(slot), title);
    node.setAttribute("class", `peer peer-${slot % COLOURS}`);
    node.setAttribute("data-peer", peer);
    node.setAttribute("data-slot", String(slot));
    node.addEventListener("click", () => this.choose(peer));
    return node;
  }

  private lines(found: Map<string, Degree>): void {
    const mine = (l: Connection) => l.a === this.chosen || l.b === this.chosen;
    const draw = (name: string, links: Connection[]) => this.querySelector(`.${name}`)?.setAttribute("d", path(links, this.places));
    const relayed = this.links.filter((l) => l.kind === "relayed");
    const direct = this.links.filter((l) => l.kind !== "relayed");
    draw("link-direct", direct);
    draw("link-relayed", relayed);
    draw("link-chosen-direct", direct.filter(mine));
    draw("link-chosen-relayed", relayed.filter(mine));
    this.classList.toggle("choosing", this.chosen !== null);
    const all = feed().tick?.summary.peers ?? this.peers.length;
    setText(this.querySelector("[data-drawn]") as Element, all > this.peers.length ? `the ${this.peers.length} longest here, of ${all}` : "");
    const words = `${this.peers.length} peers, ${direct.length} direct and ${relayed.length} relayed connections between them. The table has the details.`;
    this.querySelector("svg")?.setAttribute("aria-label", words);
    this.tell(found);
  }

  private tell(found: Map<string, Degree>): void {
    const place = this.querySelector("[data-chosen]") as Element;
    if (this.chosen === null || !found.has(this.chosen)) return setText(place, "Choose a peer to see its connections. The round trip is the median of them.");
    const theirs = this.links.filter((l) => l.a === this.chosen || l.b === this.chosen);
    const named = theirs.slice(0, NAMED_MAX).map((l) => {
      const trip = l.rtt_ms === null ? "round trip unknown" : `${format.compact(l.rtt_ms)} ms`;
      return `${format.short(l.a === this.chosen ? l.b : l.a)} (${l.kind === "relayed" ? "relayed, " : ""}${trip})`;
    });
    const more = theirs.length > NAMED_MAX ? ` and ${theirs.length - NAMED_MAX} more` : "";
    setText(place, theirs.length === 0 ? `${format.short(this.chosen)} reports no connection.` : `${format.short(this.chosen)} is connected to ${named.join(", ")}${more}.`);
  }

  private choose(peer: string): void {
    this.chosen = this.chosen === peer ? null : peer;
    this.render();
  }

  private table(found: Map<string, Degree>): void {
    const body = this.querySelector("tbody") as Element;
    keyed(body, [...found], ([peer]) => peer, ([peer]) => this.row(peer), (node, [peer, d]) => {
      const cell = (name: string) => node.querySelector(`.${name}`) as HTMLElement;
      const unknown = this.classList.contains("loading");
      setText(cell("direct"), unknown ? "…" : String(d.direct));
      setText(cell("relay"), unknown ? "…" : String(d.relayed));
      setText(cell("trip"), unknown ? "…" : d.rttMs === null ? "unknown" : `${format.compact(d.rttMs)} ms`, d.rttMs === null ? "" : `${format.exact(d.rttMs)} ms`);
      node.querySelector("button")?.setAttribute("aria-pressed", String(peer === this.chosen));
    });
  }

  private row(peer: string): HTMLElement {
    const node = make("tr");
    const head = make("th");
    head.scope = "row";
    const button = make("button", "who plain");
    button.type = "button";
    button.title = peer;
    button.append(glyph(feed().palette.slot(peer)), make("code", "", format.short(peer)));
    button.addEventListener("click", () => this.choose(peer));
    head.append(button);
    node.append(head, make("td", "direct"), make("td", "relay"), make("td", "trip"));
    return node;
  }
}

customElements.define("peer-topology", PeerTopology);
