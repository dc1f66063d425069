/** Small things that several elements need. */

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
