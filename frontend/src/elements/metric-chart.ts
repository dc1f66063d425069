/** `<metric-chart metric="loss|rate">`: a uPlot chart of the experiment's series, live, with markers and a table. */

import uPlot from "uplot";
import { feed } from "../feed";
import * as format from "../format";
import { POINTS_MAX, merge, spread } from "../series";
import type { Series } from "../types";
import { METRICS, type Metric, type View } from "./chart-metrics";
import { drawMarkers, drawOutages, readColours } from "./chart-marks";
import { make, setText } from "./dom";

const TABLE_ROWS = 40;
const TAIL_S = 20;
/** Room after the newest point for who left last. */
const SYNC = "hive";
const EARLY_MAX = 60;
/** Points of ticks that came while the series was loading; the answer may be older than they are. */

/** The series that all charts of the page draw; loaded once. */
class Store extends EventTarget {
  series: Series | null = null;
  problem = "";
  rangeS = 0;
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

  /** Fetch what the range asks for; 0 is everything. */
  async load(rangeS = this.rangeS): Promise<void> {
    this.rangeS = rangeS;
    if (this.loading) return;
    this.loading = true;
    try {
      [this.series] = await Promise.all([feed().series(rangeS ? Date.now() / 1000 - rangeS : 0), feed().loadEvents()]);
      for (const news of this.early) if (news.resolution === this.series.resolution) this.series = merge(this.series, news);
      this.problem = "";
    } catch (e) {
      if (!(e instanceof Error)) throw e;
      this.problem = e.message;
    } finally {
      this.loading = false;
      this.early = [];
    }
    this.dispatchEvent(new Event("change"));
  }

  private take(): void {
    const all = feed().tick?.series ?? [];
    if (this.loading) this.early = [...this.early, ...all].slice(-EARLY_MAX);
    const news = all.find((s) => s.resolution === this.series?.resolution);
    if (!this.series || !news) return;
    this.series = merge(this.series, news);
    if (this.series.at.length > POINTS_MAX) void this.load();
    this.dispatchEvent(new Event("change"));
  }
}

let shared: Store | null = null;
const store = () => (shared ??= new Store());

class MetricChart extends HTMLElement {
  private metric: Metric = METRICS.loss as Metric;
  private view: View = { smoothing: 0.8, markers: true };
  private plot: uPlot | null = null;
  private data: uPlot.AlignedData = [[]];

  connectedCallback(): void {
    this.metric = METRICS[this.getAttribute("metric") ?? "loss"] as Metric;
    this.bindControls();
    store().addEventListener("change", () => this.render());
    feed().addEventListener("events", () => this.plot?.redraw(false));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.querySelector("details")?.addEventListener("toggle", () => this.table());
    this.render();
  }

  private get stage(): HTMLElement {
    return this.querySelector("[data-stage]") as HTMLElement;
  }

  private bindControls(): void {
    const scope = this.closest("section") ?? this;
    const smoothing = scope.querySelector<HTMLInputElement>("[data-smoothing]");
    smoothing?.addEventListener("input", () => {
      this.view.smoothing = Number(smoothing.value);
      this.render();
    });
    const markers = scope.querySelector<HTMLInputElement>("[data-markers]");
    markers?.addEventListener("change", () => {
      this.view.markers = markers.checked;
      this.plot?.redraw(false);
    });
    for (const radio of scope.querySelectorAll<HTMLInputElement>("[data-range]")) {
      radio.addEventListener("change", () => radio.checked && void store().load(Number(radio.value)));
    }
    scope.querySelector("[data-retry]")?.addEventListener("click", () => void store().load());
  }

  private render(): void {
    const { series, problem } = store();
    this.dataset.state = problem && !series ? "error" : !series ? "loading" : series.at.length ? "ready" : "empty";
    const excuse = this.querySelector("[data-problem]");
    if (excuse) setText(excuse, problem);
    if (!series || series.at.length === 0) return;
    this.data = this.metric.columns(series, this.view);
    if (!this.plot) this.build();
    else this.plot.setData(this.data);
    if (this.plot) this.readout(this.plot);
    this.stage.setAttribute("aria-label", this.metric.label(series));
    this.table();
  }

  private build(): void {
    const colours = readColours(this);
    const axis = { stroke: colours.soft, grid: { stroke: colours.rule, width: 1 }, ticks: { show: false }, font: colours.font };
    this.plot = new uPlot(
      {
        width: this.stage.clientWidth,
        height: this.stage.clientHeight,
        padding: [14, this.metric.right, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: SYNC }, points: { size: 7 }, drag: { x: true, y: false } },
        scales: { x: { time: true, range: (_, min, max) => this.range(min, max) }, ...this.metric.scales },
        axes: [{ ...axis, size: 30, grid: { show: false }, values: (_, ats, __, ___, step) => format.ticks(ats, step), space: 70 }, ...this.metric.axes(axis)],
        series: [{}, ...this.metric.series(colours)],
        hooks: {
          drawClear: [(u) => drawOutages(u, store().series?.outages ?? [], colours)],
          draw: [(u) => this.view.markers && drawMarkers(u, feed().eventList, colours)],
          setCursor: [(u) => this.readout(u)],
        },
      },
      this.data,
      this.stage,
    );
  }

  /** A chosen range ends now, whatever has been reported; everything ends a little after the newest point. */
  private range(min: number, max: number): [number, number] {
    const { rangeS } = store();
    const now = Math.max(max, feed().tick?.at ?? max);
    if (rangeS === 0) return [min - 1, Math.max(min + 10, Math.min(now, max + TAIL_S))];
    return [Math.max(min, now - rangeS), now];
  }

  private rebuild(): void {
    this.plot?.destroy();
    this.plot = null;
    this.render();
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (this.plot && width > 0 && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  private readout(u: uPlot): void {
    const place = this.querySelector("[data-readout]");
    if (!place) return;
    const i = u.cursor.idx ?? (this.data[0]?.length ?? 0) - 1;
    const at = this.data[0]?.[i];
    setText(place, at === undefined ? "" : `${format.clock(at)} · ${this.metric.read(this.data, i)}`);
  }

  private table(): void {
    const details = this.querySelector("details");
    const { series } = store();
    const body = details?.querySelector("tbody");
    if (!details?.open || !body || !series) return;
    const rows = spread(series.at.length, TABLE_ROWS).reverse();
    body.replaceChildren(
      ...rows.map((i) => {
        const row = make("tr");
        const head = make("th", "", format.clock(series.at[i] as number));
        head.scope = "row";
        row.append(head, ...this.metric.cells(series, i).map((text) => make("td", "", text)));
        return row;
      }),
    );
  }
}

customElements.define("metric-chart", MetricChart);
