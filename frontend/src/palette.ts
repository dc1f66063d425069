/** A colour and a glyph for each peer, the same ones everywhere on the page, and seldom another one after a reload. */

export const COLOURS = 11;
export const GLYPHS = [
  "M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 1 0 0-11.6z", // disc
  "M8 1.8 14.6 13.4H1.4z", // triangle
  "M2.8 2.8h10.4v10.4H2.8z", // square
  "M8 .9 15.1 8 8 15.1.9 8z", // diamond
  "M6 1.8h4V6h4.2v4H10v4.2H6V10H1.8V6H6z", // plus
  "M8 14.2 1.4 2.6h13.2z", // triangle down
  "M8 .8l2 4.9 5.3.4-4 3.4 1.2 5.2L8 11.9l-4.5 2.8 1.2-5.2-4-3.4L6 5.7z", // star
  "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 1 0 8 1.8zm0 3.4a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 1 1 0-5.6z", // ring
] as const;
const SLOTS = COLOURS * GLYPHS.length; // coprime, so every slot is another pair

/** Gives each peer a slot by its id; a taken slot moves it on to the next free one. Slots of peers that left are reused. */
export class Palette {
  private slots = new Map<string, number>();

  /** Make `peers` the ones that have slots, those already known keep theirs. */
  keep(peers: Iterable<string>): void {
    const wanted = [...peers];
    const present = new Set(wanted);
    for (const peer of [...this.slots.keys()]) if (!present.has(peer)) this.slots.delete(peer);
    for (const peer of wanted) this.slot(peer);
  }

  slot(peer: string): number {
    const known = this.slots.get(peer);
    if (known !== undefined) return known;
    const taken = new Set(this.slots.values());
    let slot = hash(peer) % SLOTS;
    for (let i = 0; i < SLOTS && this.clashes(slot, taken); i++) slot = (slot + 1) % SLOTS;
    this.slots.set(peer, slot);
    return slot;
  }

  /** Few peers get different colours; more than there are colours share them and differ by glyph. */
  private clashes(slot: number, taken: Set<number>): boolean {
    if (taken.size >= SLOTS) return false;
    if (taken.size >= COLOURS) return taken.has(slot);
    return [...taken].some((other) => other % COLOURS === slot % COLOURS);
  }
}

/** The SVG icon of a slot. */
export function glyph(slot: number): SVGSVGElement {
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 16 16");
  icon.setAttribute("class", `glyph peer-${slot % COLOURS}`);
  icon.setAttribute("aria-hidden", "true");
  icon.append(glyphPath(slot));
  return icon;
}

export function glyphPath(slot: number): SVGPathElement {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", GLYPHS[slot % GLYPHS.length] as string);
  path.setAttribute("fill-rule", "evenodd");
  return path;
}

function hash(text: string): number {
  let h = 2166136261; // FNV-1a
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619) >>> 0;
  return h;
}
