import { describe, expect, it } from "vitest";
import { describe as describeExpert, state } from "../src/experts";
import * as format from "../src/format";
import { grouped, sentence } from "../src/log";
import { COLOURS, GLYPHS, Palette } from "../src/palette";
import { empty, finished, merge, rate, smooth, spread, withGaps } from "../src/series";
import { RADIUS, type Spot, degrees, path, spots } from "../src/ring";
import type { Connection, Expert, HiveEvent, Series } from "../src/types";

function series(at: number[], loss: (number | null)[] = at.map(() => 1)): Series {
  return { ...empty(1), at, loss, loss_validation: at.map(() => null), tokens: at.map(() => 10), peers: at.map(() => 1) };
}

describe("numbers", () => {
  it.each([
    [0, "0"],
    [7, "7"],
    [0.5, "0.50"],
    [999, "999"],
    [999.7, "1.00 k"],
    [1234, "1.23 k"],
    [12345, "12.3 k"],
    [999_600, "1.00 M"],
    [1.5e12, "1.50 T"],
  ])("%d is written %s", (value, text) => expect(format.compact(value)).toBe(text));
  it("says unknown", () => expect(format.loss(null)).toBe("unknown"));
  it("ages", () => expect([0.4, 59, 61, 7200, 200_000].map(format.age)).toEqual(["now", "59 s", "1 min", "2 h", "2 d"]));
  it("labels a time axis by its step", () => {
    expect(format.ticks([0, 10], 10)[1]).toHaveLength(8);
    expect(format.ticks([0, 600], 600)[1]).toHaveLength(5);
  });
});

describe("series", () => {
  it("adds points, replaces those that came again, and keeps the order", () => {
    const merged = merge(series([1, 2, 5], [9, 8, 5]), series([2, 3], [7, 6]));
    expect(merged.at).toEqual([1, 2, 3, 5]);
    expect(merged.loss).toEqual([9, 7, 6, 5]);
  });
  it("is unchanged by nothing", () => {
    const base = series([1]);
    expect(merge(base, empty(1))).toBe(base);
  });
  it("starts from nothing", () => expect(merge(empty(1), series([3, 4])).at).toEqual([3, 4]));
  it("draws no line across a silence", () => {
    const out = withGaps(series([0, 15, 31]));
    expect(out.at).toEqual([0, 15, 16, 31]);
    expect(out.loss).toEqual([1, 1, null, 1]);
  });
  it("smooths without bias at the start, and keeps what is unknown unknown", () => {
    expect(smooth([4, 4, null, 4], 0.9).map((v) => v?.toFixed(6) ?? null)).toEqual(["4.000000", "4.000000", null, "4.000000"]);
    expect(smooth([1, 3], 0)).toEqual([1, 3]);
    const [, second] = smooth([0, 1], 0.5);
    expect(second).toBeCloseTo(2 / 3);
  });
  it("averages a rate over a window, and begins anew after a gap", () => {
    expect(rate([10, 20, 30], 1, 2)).toEqual([10, 15, 25]);
    expect(rate([60, Number.NaN, 120], 60, 5)).toEqual([1, null, 2]);
  });
  it("leaves out of a rate what is still growing", () => {
    const seconds = { ...series([1, 2, 3]), complete_until: 3.4 };
    expect(finished(seconds)).toEqual([10, 10, Number.NaN]);
    expect(rate(finished(seconds), 1, 5)).toEqual([10, 10, null]);
    const merged = merge(seconds, { ...series([3, 4]), complete_until: 4.2 });
    expect(finished(merged)).toEqual([10, 10, 10, Number.NaN]);
    expect(finished({ ...series([60]), resolution: 60, complete_until: 119 })).toEqual([Number.NaN]);
  });
  it("spreads rows and includes the last", () => {
    expect(spread(3, 5)).toEqual([0, 1, 2]);
    expect(spread(100, 4)).toEqual([24, 49, 74, 99]);
  });
});

describe("palette", () => {
  const peers = Array.from({ length: COLOURS * GLYPHS.length + 5 }, (_, i) => `peer${i}`);
  it("gives few peers different colours", () => {
    const palette = new Palette();
    palette.keep(peers.slice(0, COLOURS));
    expect(new Set(peers.slice(0, COLOURS).map((p) => palette.slot(p) % COLOURS)).size).toBe(COLOURS);
  });
  it("gives every peer its own pair while there are any, and then still one", () => {
    const palette = new Palette();
    palette.keep(peers);
    const slots = peers.map((p) => palette.slot(p));
    expect(new Set(slots).size).toBe(COLOURS * GLYPHS.length);
  });
  it("keeps a peer's slot while others come and go", () => {
    const palette = new Palette();
    palette.keep(["a", "b", "c"]);
    const before = palette.slot("c");
    palette.keep(["c", "d"]);
    expect(palette.slot("c")).toBe(before);
  });
});

describe("experts", () => {
  const expert = (changes: Partial<Expert>): Expert => ({ uid: "ffn0.1", peer: "p", copies: 2, epoch: 1, version: 1, rows: 1, rows_per_s: 3, seen_at: 100, ...changes });
  it.each([
    ["hosted", expert({})],
    ["single", expert({ copies: 1 })],
    ["stale", expert({ seen_at: 90 })],
    ["vacant", expert({ peer: null })],
    ["never", expert({ peer: null, seen_at: null })],
  ])("are %s", (wanted, e) => expect(state(e, 101)).toBe(wanted));
  it("are described, unknown as unknown", () => {
    expect(describeExpert(expert({ copies: 1, rows_per_s: null }), 101)).toContain("one copy only, version 1, load unknown");
    expect(describeExpert(expert({ peer: null }), 101)).toContain("nobody hosts it");
  });
});

describe("ring", () => {
  const link = (a: string, b: string, kind: "direct" | "relayed", rtt_ms: number | null): Connection => ({ a, b, kind, rtt_ms });
  const links = [link("a", "b", "direct", 10), link("a", "c", "relayed", 90), link("a", "d", "direct", 20)];
  it("puts one peer into the middle and several on a circle", () => {
    expect(spots(1)).toEqual([{ x: 0, y: 0 }]);
    for (const { x, y } of spots(7)) expect(Math.hypot(x, y)).toBeCloseTo(RADIUS);
  });
  it("counts connections and takes the median round trip", () => {
    const found = degrees(["a", "b", "z"], links);
    expect(found.get("a")).toMatchObject({ direct: 2, relayed: 1, rttMs: 20 });
    expect(found.get("z")).toMatchObject({ direct: 0, relayed: 0, rttMs: null });
  });
  it("draws only what has both ends in the picture", () => {
    const places = new Map(["a", "b"].map((p, i) => [p, spots(2)[i] as Spot]));
    expect(path(links, places).match(/M/g)).toHaveLength(1);
  });
});

describe("log", () => {
  const event = (id: number, name: string, at: number, detail: HiveEvent["detail"] = {}, peer = "p"): HiveEvent => ({ id, name, at, detail, peer });
  it("puts the claims of a newcomer into one line", () => {
    const claims = [4, 3, 2, 1].map((i) => event(i, "expert-claimed", i, { uid: `ffn0.${i}` }));
    const groups = grouped([...claims, event(0, "joined", 0)]);
    expect(groups.map((g) => g.length)).toEqual([4, 1]);
    expect(groups.map(sentence)).toEqual(["took over ffn0.1, ffn0.2 and 2 more", "joined"]);
  });
  it("keeps peers and times apart", () => {
    expect(grouped([event(2, "expert-lost", 2, {}, "q"), event(1, "expert-lost", 1, {}, "p")])).toHaveLength(2);
    expect(grouped([event(2, "expert-lost", 99), event(1, "expert-lost", 1)])).toHaveLength(2);
  });
  it("says why an expert went, and what a first batch was like", () => {
    expect(sentence([event(1, "expert-lost", 1, { uid: "ffn0.1", reason: "lost" })])).toBe("lost ffn0.1: another host holds it");
    expect(sentence([event(1, "expert-lost", 1, { uid: "ffn0.1", reason: "left" })])).toBe("gave up ffn0.1");
    expect(sentence([event(1, "expert-lost", 1, { uid: "ffn0.1", reason: "<b>" })])).toBe("lost ffn0.1: <b>");
    expect(sentence([event(1, "expert-lost", 1)])).toBe("lost an expert");
    expect(sentence([event(1, "first-batch", 1, { loss: 5.5451788902282715 })])).toBe("trained its first batch: loss 5.545");
  });
  it("writes what it does not know as it is", () => {
    expect(sentence([event(1, "something-new", 1, { step_count: 3 })])).toBe("something new, step count 3");
    expect(sentence([event(1, "something-new", 1, { share: 0.123456789 })])).toBe("something new, share 0.12");
  });
});
