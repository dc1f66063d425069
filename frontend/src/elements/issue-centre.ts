/** `<issue-centre>`: what is wrong and what to do about it, as the site found it when it last looked, every 15 seconds. */

import { feed } from "../feed";
import * as format from "../format";
import type { Health, Problem } from "../types";
import { keyed, make, setText } from "./dom";

const PERIOD_MS = 10_000;

class IssueCentre extends HTMLElement {
  private health: Health | null = null;

  connectedCallback(): void {
    setInterval(() => !document.hidden && void this.load(), PERIOD_MS);
    document.addEventListener("visibilitychange", () => !document.hidden && void this.load());
    feed().addEventListener("tick", () => this.stamp());
    void this.load();
  }

  /** When the site cannot be reached the page's banner says so; what was known stays. */
  private async load(): Promise<void> {
    if (feed().link === "lost") return;
    try {
      this.health = await feed().health();
    } catch (e) {
      if (!(e instanceof Error)) throw e;
      return;
    }
    this.render(this.health);
  }

  private render({ problems, at }: Health): void {
    const broken = problems.filter((p) => p.severity === "bad").length;
    const list = this.querySelector("[data-problems]");
    if (list) keyed(list, problems, (p) => p.what + p.fix, item, () => {});
    this.classList.toggle("well", problems.length === 0);
    const words = at === null ? "○ not looked at yet" : problems.length === 0 ? "● all is well" : `${broken ? "✕" : "⚠"} ${problems.length} ${problems.length === 1 ? "thing" : "things"} to look at`;
    setText(this.querySelector("[data-count]") as Element, words);
    setText(this.querySelector("[data-first]") as Element, problems[0]?.what ?? "");
    this.stamp();
  }

  private stamp(): void {
    const at = this.health?.at;
    const now = feed().tick?.at;
    if (at && now) setText(this.querySelector("[data-examined]") as Element, `looked at ${format.ago(Math.max(0, now - at))}`, format.moment(at));
  }
}

function item(problem: Problem): HTMLElement {
  const node = make("li", problem.severity);
  node.append(make("p", "where", problem.severity === "bad" ? "✕ broken" : "⚠ watch"), make("p", "said", problem.what), make("p", "fix", problem.fix));
  return node;
}

customElements.define("issue-centre", IssueCentre);
