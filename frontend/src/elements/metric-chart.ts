/** `<metric-chart metric="loss|rate">`: a uPlot chart of the experiment's series, live, with markers and a table. */

import uPlot from "uplot";
import { feed } from "../feed";
import * as format from "../format";
import { spread } from "../series";
import { store } from "./chart-store";
import { METRICS, type Metric, type View } from "./chart-metrics";
import { drawMarkers, drawOutages, readColours } from "./chart-marks";
import { make, setText, whenSeen } from "./dom";

const TABLE_ROWS = 40;
const TAIL_S = 20;
/** Room after the newest point for who left last. */
const SYNC = "hive";
const SELECT_MIN = 8;
/** CSS pixels; a narrower drag is a slip of the hand. */
class MetricChart extends HTMLElement {
  private metric: Metric = METRICS.loss as Metric;
  private view: View = { smoothing: 0.8, markers: true };
  private plot: uPlot | null = null;
  private data: uPlot.AlignedData = [[]];

  connectedCallback(): void {
    this.metric = METRICS[this.getAttribute("metric") ?? "loss"] as Metric;
    this.bindControls();
    store().addEventListener("change", whenSeen(this, () => this.render()));
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
    this.querySelector("[data-unzoom]")?.addEventListener("click", () => void store().look(null));
    for (const radio of scope.querySelectorAll<HTMLInputElement>("[data-range]")) {
      radio.addEventListener("change", () => {
        if (!radio.checked) return;
        void store().look(null);
        void store().load(Number(radio.value));
      });
    }
    scope.querySelector("[data-retry]")?.addEventListener("click", () => void store().load());
  }

  private render(): void {
    const { series, problem } = store();
    this.dataset.state = problem && !series ? "error" : !series ? "loading" : series.at.length ? "ready" : "empty";
    const unzoom = this.querySelector<HTMLButtonElement>("[data-unzoom]");
    if (unzoom) {
      unzoom.disabled = store().zoom === null;
      setText(unzoom, store().zoom ? "Show all of it again" : "Drag across a chart to look closer");
    }
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
        cursor: { sync: { key: SYNC }, points: { size: 7 }, drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => () => (void store().look(null), null) } },
        scales: { x: { time: true, range: (_, min, max) => this.range(min, max) }, ...this.metric.scales },
        axes: [{ ...axis, size: 30, grid: { show: false }, values: (_, ats, __, ___, step) => format.ticks(ats, step), space: 70 }, ...this.metric.axes(axis)],
        series: [{}, ...this.metric.series(colours)],
        hooks: {
          drawClear: [(u) => drawOutages(u, store().series?.outages ?? [], colours)],
          draw: [(u) => this.view.markers && drawMarkers(u, feed().eventList, colours)],
          setCursor: [(u) => this.readout(u)],
          setSelect: [(u) => this.closer(u)],
        },
      },
      this.data,
      this.stage,
    );
  }

  private closer(u: uPlot): void {
    if (u.select.width < SELECT_MIN) return;
    void store().look([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]);
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  /** A chosen range ends now, whatever has been reported; everything ends a little after the newest point. */
  private range(min: number, max: number): [number, number] {
    const { rangeS, zoom } = store();
    if (zoom) return zoom;
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
    const i = u.cursor.idx ?? Array.from(this.data[1] ?? []).findLastIndex((known) => known !== null);
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
