/** `<live-stamp>`: is the page live, and when was it last updated. `<live-notice>`: a banner when what is shown is old. */

import { feed } from "../feed";
import * as format from "../format";
import { setText } from "./dom";

const EVERY_MS = 1000;
const SILENT_S = 15;

class LiveStamp extends HTMLElement {
  connectedCallback(): void {
    const render = () => this.render();
    feed().addEventListener("tick", render);
    feed().addEventListener("link", render);
    setInterval(render, EVERY_MS);
    render();
  }

  private render(): void {
    const { link, tick, tickReceivedMs } = feed();
    this.dataset.link = link;
    const status = document.querySelector("[data-status]");
    if (status && tick && status.textContent !== tick.summary.status) {
      setText(status, tick.summary.status);
      status.className = `status status-${tick.summary.status}`;
    }
    const word = { connecting: "connecting", live: "live", lost: "reconnecting" }[link];
    const since = (Date.now() - tickReceivedMs) / 1000;
    const stamp = tick ? `updated ${format.clock(tick.at)}${since > 3 ? `, ${format.ago(since)}` : ""}` : "waiting for the first data";
    setText(this, `${word} · ${stamp}`, tick ? format.moment(tick.at) : "");
  }
}

class LiveNotice extends HTMLElement {
  private hadReports = false;

  connectedCallback(): void {
    this.setAttribute("role", "status");
    const render = () => this.render();
    feed().addEventListener("tick", render);
    feed().addEventListener("link", render);
    setInterval(render, EVERY_MS);
  }

  private render(): void {
    const text = this.message();
    this.hidden = text === "";
    document.querySelector("[data-experiment]")?.classList.toggle("stale", text !== "" && this.hadReports);
    if (text) setText(this, text);
  }

  private message(): string {
    const { link, tick, tickReceivedMs } = feed();
    if (link === "lost" && tick) {
      return `The coordinator has not answered since ${format.clock(tickReceivedMs / 1000)}. What you see is from then. Agents train on without it.`;
    }
    if (link === "lost") return "The live stream cannot be reached. The page tries again by itself.";
    const reported = tick?.summary.reported_at;
    this.hadReports = reported !== null && reported !== undefined;
    if (tick && this.hadReports && tick.at - (reported as number) > SILENT_S) {
      return `No agent has reported for ${format.age(tick.at - (reported as number))}. What you see is what they last said.`;
    }
    return "";
  }
}

customElements.define("live-stamp", LiveStamp);
customElements.define("live-notice", LiveNotice);
