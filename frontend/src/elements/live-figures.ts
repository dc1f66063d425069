/** The figures at the head of the page: `<live-figures>` around `<dd data-figure="tokens">` and the like. */

import { feed } from "../feed";
import * as format from "../format";
import type { Summary } from "../types";
import { nats, units } from "../words";
import { setText } from "./dom";

/** A figure's text, its exact value, and a remark below it. */
type Figure = (s: Summary) => [text: string, title: string, remark?: string];

const FIGURES: Record<string, Figure> = {
  loss: (s) => [format.loss(s.loss), s.loss === null ? "no report has one yet" : `${format.exact(s.loss)} ${nats()}`],
  validation: (s) => [
    format.loss(s.loss_validation),
    s.loss_validation === null ? "no agent has measured it yet" : `${format.exact(s.loss_validation)} ${nats()}`,
  ],
  rate: (s) => [format.compact(s.tokens_per_s), `${format.exact(s.tokens_per_s)} ${units()} per second`],
  tokens: (s) => [format.compact(s.tokens), `${format.exact(s.tokens)} ${units()}`],
  peers: (s) => [format.compact(s.peers), `${s.peers} peers reported within 15 seconds`, `${s.trainers} training`],
  experts: (s) => [
    `${s.experts_hosted}`,
    `${s.experts_hosted} of ${s.experts_total} experts have a host`,
    s.experts_hosted < s.experts_total && s.peers > 0 ? `of ${s.experts_total} · ${s.experts_total - s.experts_hosted} without a host` : `of ${s.experts_total}`,
  ],
};

class LiveFigures extends HTMLElement {
  connectedCallback(): void {
    feed().addEventListener("tick", () => this.render());
  }

  private render(): void {
    const summary = feed().tick?.summary;
    if (!summary) return;
    for (const node of this.querySelectorAll<HTMLElement>("[data-figure]")) {
      const figure = FIGURES[node.dataset.figure ?? ""];
      if (!figure) continue;
      const [text, title, remark] = figure(summary);
      setText(node, text, title);
      node.classList.toggle("unknown", text === format.UNKNOWN);
      const below = node.parentElement?.querySelector("[data-remark]");
      if (below && remark !== undefined) setText(below, remark);
    }
    const experts = this.querySelector("[data-figure=experts]")?.parentElement;
    experts?.classList.toggle("bad", summary.peers > 0 && summary.experts_hosted < summary.experts_total);
  }
}

customElements.define("live-figures", LiveFigures);
