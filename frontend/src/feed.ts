/** The page's source of truth: the live stream of one experiment, and what elements need from the API. */

import { Palette } from "./palette";
import type { Connection, Health, HiveEvent, Series, Tick } from "./types";

export type Link = "connecting" | "live" | "lost";

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 10_000;
const SILENT_MS = 8_000;
/** The server ticks at least every few seconds; after this the link counts as lost. */
const EVENTS_MAX = 400;
const SAMPLES_MAX = 30;

export class Feed extends EventTarget {
  link: Link = "connecting";
  tick: Tick | null = null;
  tickReceivedMs = 0;
  readonly palette = new Palette();
  readonly events = new Map<number, HiveEvent>();
  private retryMs = RETRY_FIRST_MS;
  private socket: WebSocket | null = null;
  private watchdog = 0;

  constructor(readonly experiment: string) {
    super();
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (e) => e.persisted && this.start());
  }

  start(): void {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/live/${this.experiment}/`);
    this.socket = socket;
    socket.onmessage = (message) => this.take(JSON.parse(message.data as string) as Tick);
    socket.onclose = () => {
      if (this.socket !== socket) return;
      this.setLink("lost");
      const wait = this.retryMs * (0.5 + Math.random());
      this.retryMs = Math.min(RETRY_MAX_MS, this.retryMs * 2);
      setTimeout(() => this.socket === socket && this.start(), wait);
    };
  }

  stop(): void {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  async series(since: number, until?: number): Promise<Series> {
    const end = until === undefined ? "" : `&until=${Math.ceil(until)}`;
    return (await this.get(`series?since=${Math.max(0, Math.floor(since))}${end}`)) as Series;
  }

  async connections(among: number): Promise<Connection[]> {
    return (await this.get(`connections?among=${among}`)) as Connection[];
  }

  async health(): Promise<Health> {
    return (await this.get("health")) as Health;
  }

  async loadEvents(): Promise<void> {
    const wanted = ["events?limit=100", "events?limit=200&only=joined&only=left", "events?limit=20&only=sample"];
    this.takeEvents(((await Promise.all(wanted.map((path) => this.get(path)))) as HiveEvent[][]).flat());
    this.dispatchEvent(new Event("events"));
  }

  /** Newest first. */
  get eventList(): HiveEvent[] {
    return [...this.events.values()].sort((a, b) => b.at - a.at || b.id - a.id);
  }

  private async get(path: string): Promise<unknown> {
    const response = await fetch(`/api/v1/experiments/${this.experiment}/${path}`);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return response.json();
  }

  private take(tick: Tick): void {
    this.retryMs = RETRY_FIRST_MS;
    this.tick = tick;
    this.tickReceivedMs = Date.now();
    this.palette.keep(tick.peers.map((p) => p.peer));
    this.takeEvents(tick.events);
    clearTimeout(this.watchdog);
    this.watchdog = window.setTimeout(() => this.setLink("lost"), SILENT_MS);
    this.setLink("live");
    this.dispatchEvent(new Event("tick"));
  }

  private takeEvents(events: HiveEvent[]): void {
    for (const event of events) this.events.set(event.id, event);
    this.forget((e) => e.name !== "sample", EVENTS_MAX);
    this.forget((e) => e.name === "sample", SAMPLES_MAX);
  }

  /** Of the events of a kind only the newest are kept; samples are rare, and do not go because much else happens. */
  private forget(of: (event: HiveEvent) => boolean, most: number): void {
    const kept = [...this.events.values()].filter(of);
    if (kept.length <= most) return;
    kept.sort((a, b) => b.at - a.at || b.id - a.id);
    for (const old of kept.slice(most)) this.events.delete(old.id);
  }

  private setLink(link: Link): void {
    if (link === this.link) return;
    const before = this.link;
    this.link = link;
    this.dispatchEvent(new CustomEvent("link", { detail: { before } }));
  }
}

let page: Feed | null = null;

/** The feed of the page's experiment; made by the first element that asks. */
export function feed(): Feed {
  if (page === null) {
    const name = document.querySelector<HTMLElement>("[data-experiment]")?.dataset.experiment;
    if (!name) throw new Error("this page has no experiment");
    page = new Feed(name);
    page.start();
  }
  return page;
}
