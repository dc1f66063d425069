/** `<peer-table>`: who is here now. */

import { feed } from "../feed";
import * as format from "../format";
import { glyph } from "../palette";
import type { Peer } from "../types";
import { units } from "../words";
import { keyed, make, setText, whenSeen } from "./dom";

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
  private rows = new WeakMap<HTMLElement, Cells>();

  connectedCallback(): void {
    feed().addEventListener("tick", whenSeen(this, () => this.render()));
  }

  private render(): void {
    const tick = feed().tick;
    const body = this.querySelector("tbody");
    if (!tick || !body) return;
    this.classList.toggle("empty", tick.peers.length === 0);
    keyed(
      body,
      tick.peers,
      (p) => p.peer,
      (peer) => this.row(peer),
      (node, peer) => update(this.rows.get(node) as Cells, peer, tick.at),
    );
    const more = this.querySelector("[data-more]");
    if (more) setText(more, tick.summary.peers > tick.peers.length ? `and ${tick.summary.peers - tick.peers.length} more, in the API` : "");
  }

  private row(peer: Peer): HTMLElement {
    const node = make("tr");
    const head = make("th", "peer");
    head.scope = "row";
    const name = make("a", "who");
    name.href = `/peers/${peer.peer}/`;
    name.append(glyph(feed().palette.slot(peer.peer)), make("code", "", format.short(peer.peer)));
    head.append(name);
    head.title = peer.peer;
    node.append(head);
    const cells = {} as Cells;
    for (const [column, label] of COLUMNS) {
      const cell = make("td", column);
      cell.dataset.label = label;
      cells[column] = cell.appendChild(make("span"));
      node.append(cell);
    }
    cells.relayed = cells.links.parentElement?.appendChild(make("span", "relayed")) as HTMLElement;
    this.rows.set(node, cells);
    return node;
  }
}

const COLUMNS = [
  ["stage", "stage"],
  ["step", "step"],
  ["rate", `${units()}/s`],
  ["tokens", units()],
  ["loss", "loss"],
  ["experts", "experts"],
  ["links", "links"],
  ["seen", "last seen"],
] as const;

type Cells = Record<(typeof COLUMNS)[number][0] | "relayed", HTMLElement> & { shown?: string };

/** Formatting takes longer than anything else here, so only of what was reported since. */
function update(cells: Cells, peer: Peer, now: number): void {
  setText(cells.seen, format.ago(Math.max(0, now - peer.seen_at)));
  const shown = `${peer.seen_at}|${peer.stage}|${peer.why}`;
  if (cells.shown === shown) return;
  cells.shown = shown;
  setText(cells.stage, `${STAGES[peer.stage] ?? ""} ${peer.stage}`, peer.why || `version ${peer.version}`);
  setText(cells.step, format.compact(peer.step), format.exact(peer.step));
  setText(cells.rate, format.compact(peer.tokens_per_s), format.exact(peer.tokens_per_s));
  setText(cells.tokens, format.compact(peer.tokens), format.exact(peer.tokens));
  setText(cells.loss, peer.loss === null ? format.UNKNOWN : format.loss(peer.loss), peer.loss === null ? "" : format.exact(peer.loss));
  setText(cells.experts, String(peer.experts));
  setText(cells.links, `━ ${peer.direct}`, `${peer.direct} direct connections`);
  setText(cells.relayed, `┅ ${peer.relayed}`, `${peer.relayed} relayed connections`);
  cells.relayed.classList.toggle("none", peer.relayed === 0);
  setText(cells.seen, cells.seen.textContent ?? "", format.moment(peer.seen_at));
}

customElements.define("peer-table", PeerTable);
