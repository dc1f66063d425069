/** `<size-estimate data-url>` inside a form: what the server works out of the form's fields, fetched again as they change. */

const QUIET_MS = 250;

class SizeEstimate extends HTMLElement {
  private timer = 0;
  private asked = 0;

  connectedCallback(): void {
    this.closest("form")?.addEventListener("input", this.soon);
  }

  disconnectedCallback(): void {
    this.closest("form")?.removeEventListener("input", this.soon);
    clearTimeout(this.timer);
  }

  private readonly soon = (): void => {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.ask(), QUIET_MS);
  };

  /** Of several answers under way only the last question's counts. An error leaves the old figures, marked as old. */
  private async ask(): Promise<void> {
    const form = this.closest("form");
    if (!form || !this.dataset.url) return;
    const number = ++this.asked;
    this.setAttribute("aria-busy", "true");
    const response = await fetch(this.dataset.url, { method: "POST", body: new FormData(form) }).catch(() => null);
    if (number !== this.asked) return;
    this.removeAttribute("aria-busy");
    this.classList.toggle("old", !response?.ok);
    if (!response?.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector(".estimate-body");
    const head = fresh?.querySelector(".estimate-head");
    const shown = this.querySelector(".estimate-head");
    if (!fresh || !head || number !== this.asked) return;
    if (shown) {
      if (shown.textContent !== head.textContent) shown.replaceChildren(...head.childNodes); // stays the same live region
      head.replaceWith(shown);
    }
    this.replaceChildren(document.adoptNode(fresh));
  }
}

customElements.define("size-estimate", SizeEstimate);
