/** Small things that several elements need. */

import * as format from "../format";

/** Set the text only if it differs: nothing is laid out again for nothing. */
export function setText(node: Element, text: string, title?: string): void {
  if (node.textContent !== text) node.textContent = text;
  if (title !== undefined && node.getAttribute("title") !== title) node.setAttribute("title", title);
}

export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", text = ""): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** `<time>` of Unix seconds, in the reader's zone. */
export function timeOf(at: number): HTMLTimeElement {
  const node = make("time", "", format.when(at));
  node.dateTime = new Date(at * 1000).toISOString();
  node.title = format.moment(at);
  return node;
}

/** Keep `parent`'s children equal to one node per key, in order, reusing nodes. */
export function keyed<T>(parent: Element, items: T[], key: (item: T) => string, create: (item: T) => HTMLElement, update: (node: HTMLElement, item: T) => void): void {
  const nodes = new Map<string, HTMLElement>();
  for (const child of [...parent.children] as HTMLElement[]) {
    const k = child.dataset.key;
    if (k === undefined) child.remove();
    else nodes.set(k, child);
  }
  let place: Element | null = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let node = nodes.get(k);
    nodes.delete(k);
    if (!node) {
      node = create(item);
      node.dataset.key = k;
    }
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const gone of nodes.values()) gone.remove();
}

/** What a CSS colour expression comes to here and now, for a canvas. */
export function colour(element: Element, expression: string): string {
  const probe = document.createElement("i");
  probe.style.color = expression;
  probe.hidden = true;
  element.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const UNSEEN_MS = 2000;
const NEAR = "200px";

/**
 * Returns what to call on news: it renders at once while `element` is in view or near it, and otherwise every two seconds when
 * the browser has time, so that the frames of what is being looked at are not late for what is not.
 */
export function whenSeen(element: Element, render: () => void): () => void {
  let seen = true; // until the observer says otherwise
  let owed = false;
  let last = 0;
  const run = () => {
    owed = false;
    last = performance.now();
    render();
  };
  const observer = new IntersectionObserver(
    (entries) => {
      seen = entries.at(-1)?.isIntersecting ?? true;
      if (seen && owed) run();
    },
    { rootMargin: NEAR },
  );
  observer.observe(element);
  return () => {
    if (seen) return run();
    if (owed) return;
    owed = true;
    setTimeout(() => whenIdle(() => owed && run()), Math.max(0, UNSEEN_MS - (performance.now() - last)));
  };
}

function whenIdle(task: () => void): void {
  if ("requestIdleCallback" in window) requestIdleCallback(task, { timeout: UNSEEN_MS });
  else setTimeout(task, 0); // Safari before 26
}
