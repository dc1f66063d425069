/** Times in the reader's zone, and pages that a server made: the part `[data-fresh]` is fetched again now and then. */

import * as format from "../format";

const PERIOD_MS = 15_000;

export function localTimes(root: ParentNode): void {
  for (const node of root.querySelectorAll<HTMLTimeElement>("time[datetime]:not([title])")) {
    const at = Date.parse(node.dateTime);
    if (Number.isNaN(at)) continue;
    node.title = format.moment(at / 1000);
    node.textContent = new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

/** Put the fresh part in place of the old one, unless the reader is at work in it. */
function replace(old: Element, text: string): void {
  const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-fresh]");
  if (!fresh || old.contains(document.activeElement) || !getSelection()?.isCollapsed) return;
  const scrolled = [...old.querySelectorAll(".scroll")].map((node) => node.scrollLeft);
  localTimes(fresh);
  old.replaceChildren(...document.adoptNode(fresh).childNodes);
  for (const [i, node] of [...old.querySelectorAll(".scroll")].entries()) node.scrollLeft = scrolled[i] ?? 0;
}

async function refresh(part: Element): Promise<void> {
  if (document.hidden) return;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (response?.ok) replace(part, await response.text());
}

localTimes(document);
const part = document.querySelector("[data-fresh]");
if (part) setInterval(() => void refresh(part), PERIOD_MS);
