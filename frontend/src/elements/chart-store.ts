/** What the charts of a page draw. */

import { feed } from "../feed";
import { POINTS_MAX, merge } from "../series";
import type { Series } from "../types";

const EARLY_MAX = 60;
/** Points of ticks that came while the series was loading; the answer may be older than they are. */
const SETTLED_S = 90;
/** So long after its end a point is complete, although no tick has said so: nothing came any more. */

/** The series that all charts of the page draw: loaded once, and kept up to date. While the reader looks closer, a finer part of it. */
class Store extends EventTarget {
  problem = "";
  rangeS = 0;
  zoom: [number, number] | null = null;
  private main: Series | null = null;
  private detail: Series | null = null;
  private loading = false;
  private early: Series[] = [];

  constructor() {
    super();
    feed().addEventListener("tick", () => this.take());
    feed().addEventListener("link", (e) => {
      if (feed().link === "live" && (e as CustomEvent).detail.before === "lost") void this.load();
    });
    void this.load();
  }

  get series(): Series | null {
    return this.zoom && this.detail ? this.detail : this.main;
  }

  /** Fetch what the range asks for; 0 is everything. */
  async load(rangeS = this.rangeS): Promise<void> {
    this.rangeS = rangeS;
    if (this.loading) return;
    this.loading = true;
    try {
      [this.main] = await Promise.all([feed().series(rangeS ? Date.now() / 1000 - rangeS : 0), feed().loadEvents()]);
      for (const news of this.early) if (news.resolution === this.main.resolution) this.main = merge(this.main, news);
      this.problem = "";
    } catch (e) {
      if (!(e instanceof Error)) throw e;
      this.problem = e.message;
    } finally {
      this.loading = false;
      this.early = [];
    }
    this.dispatchEvent(new Event("change"));
    if (this.rangeS !== rangeS) void this.load();
  }

  /** Look at a part of the time (null: at all of it again), in the finest points that show it. */
  async look(zoom: [number, number] | null): Promise<void> {
    this.zoom = zoom;
    this.detail = null;
    this.dispatchEvent(new Event("change"));
    if (!zoom) return;
    const detail = await feed().series(zoom[0], zoom[1]).catch(() => null); // the coarser points are there already
    if (this.zoom !== zoom || !detail?.at.length) return;
    this.detail = detail;
    this.dispatchEvent(new Event("change"));
  }

  private take(): void {
    const all = feed().tick?.series ?? [];
    if (this.loading) this.early = [...this.early, ...all].slice(-EARLY_MAX);
    const news = all.find((s) => s.resolution === this.main?.resolution);
    if (!this.main) return;
    if (!news) return this.settle();
    this.main = merge(this.main, news);
    if (this.main.at.length > POINTS_MAX) void this.load();
    if (!this.zoom) this.dispatchEvent(new Event("change"));
  }

  /** Nothing new came: the last point may be over all the same. */
  private settle(): void {
    const { main } = this;
    const last = main?.at.at(-1);
    const until = (feed().tick?.at ?? 0) - SETTLED_S;
    if (!main || last === undefined || main.complete_until >= last + main.resolution || until < last + main.resolution) return;
    this.main = { ...main, complete_until: until };
    if (!this.zoom) this.dispatchEvent(new Event("change"));
  }
}

let shared: Store | null = null;
export const store = () => (shared ??= new Store());
