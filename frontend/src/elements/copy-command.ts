/** `<copy-command><code>…</code><button>Copy</button></copy-command>` */

const SAID_MS = 2000;

class CopyCommand extends HTMLElement {
  connectedCallback(): void {
    const button = this.querySelector("button");
    const code = this.querySelector("code");
    if (!button || !code) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = code.textContent?.trim() ?? "";
      const done = (await this.copy(text, code)) ? "Copied" : "Press Ctrl-C";
      const label = button.querySelector("span") ?? button;
      label.textContent = done;
      setTimeout(() => (label.textContent = "Copy"), SAID_MS);
    });
  }

  /** The clipboard needs a secure context; elsewhere the text is selected, for the reader to copy. */
  private async copy(text: string, code: Element): Promise<boolean> {
    if (window.isSecureContext && navigator.clipboard) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch (e) {
        if (!(e instanceof DOMException)) throw e;
      }
    }
    getSelection()?.selectAllChildren(code);
    return false;
  }
}

customElements.define("copy-command", CopyCommand);
