/** `<peer-table>`: who is here now. */

import { feed } from "../feed";
import * as format from "../format";
import { glyph } from "../palette";
import type { Peer } from "../types";
import { keyed, make, setText } from "./dom";

const STAGES: Record<string, string> = {
  training: "▶",
  hosting: "◉",
  waiting: "◔",
  joining: "◌",
  starting: "◌",
  paused: "⏸",
  draining: "◢",
  stopped: "■",
};

class PeerTable extends HTMLElement {
  connectedCallback(): void {
    feed().addEventListener("tick", () => this.render());
  }

  private render(): void {
    const tick = feed().tick;
    const body = this.querySelector("tbody");
    if (!tick || !body) return;
    this.classList.toggle("empty", tick.peers.length === 0);
    keyed(body, tick.peers, (p) => p.peer, row, (node, peer) => update(node, peer, tick.at));
    const more = this.querySelector("[data-more]");
    if (more) setText(more, tick.summary.peers > tick.peers.length ? `and ${tick.summary.peers - tick.peers.length} more` : "");
  }
}

const COLUMNS = ["stage", "step", "rate", "tokens", "loss", "experts", "links", "seen"] as const;

function row(peer: Peer): HTMLElement {
  const node = make("tr");
  const head = make("th", "peer");
  head.scope = "row";
  const name = make("a", "who");
  name.href = `/peers/${peer.peer}/`;
  name.append(glyph(feed().palette.slot(peer.peer)), make("code", "", format.short(peer.peer)));
  head.append(name);
  head.title = peer.peer;
  node.append(head);
  for (const column of COLUMNS) {
    const cell = make("td", column);
    cell.dataset.label = { stage: "stage", step: "step", rate: "tokens/s", tokens: "tokens", loss: "loss", experts: "experts", links: "links", seen: "last seen" }[column];
    if (column === "links") cell.append(make("span", "direct"), make("span", "relayed"));
    else cell.append(make("span"));
    node.append(cell);
  }
  return node;
}

function update(node: HTMLElement, peer: Peer, now: number): void {
  const cell = (name: string) => node.querySelector(`td.${name} span`) as HTMLElement;
  setText(cell("stage"), `${STAGES[peer.stage] ?? ""} ${peer.stage}`, peer.why || `version ${peer.version}`);
  setText(cell("step"), format.compact(peer.step), format.exact(peer.step));
  setText(cell("rate"), format.compact(peer.tokens_per_s), format.exact(peer.tokens_per_s));
  setText(cell("tokens"), format.compact(peer.tokens), format.exact(peer.tokens));
  setText(cell("loss"), peer.loss === null ? "–" : format.loss(peer.loss));
  setText(cell("experts"), String(peer.experts));
  setText(cell("links"), `━ ${peer.direct}`, `${peer.direct} direct connections`);
  const relayed = node.querySelector("td.links .relayed") as HTMLElement;
  setText(relayed, `┅ ${peer.relayed}`, `${peer.relayed} relayed connections`);
  relayed.classList.toggle("none", peer.relayed === 0);
  setText(cell("seen"), format.ago(Math.max(0, now - peer.seen_at)), format.moment(peer.seen_at));
}

customElements.define("peer-table", PeerTable);
