/**
 * `<kept-fields hidden>…</kept-fields>` inside a form: what was typed is there again when the form was sent after the sign-in had
 * run out. The server then asks for the sign-in and comes back to an empty form; until then this tab keeps the fields.
 */

const KEY = "kept-fields";
const CHARS_MAX = 500_000;
const SIGNING_IN = "/accounts/";
const TOKEN = "csrfmiddlewaretoken"; // changes with each sign-in

interface Kept {
  path: string;
  fields: [string, string][];
  asked: boolean; // for a sign-in, since
}

/** What this page is to show again. Any page but those of signing in ends the keeping. */
function take(): Kept | null {
  let kept: Kept | null = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Kept | null;
  } catch {
    sessionStorage.removeItem(KEY);
  }
  if (!kept) return null;
  if (location.pathname.startsWith(SIGNING_IN)) {
    store({ ...kept, asked: true });
    return null;
  }
  sessionStorage.removeItem(KEY);
  return kept.asked && kept.path === location.pathname ? kept : null;
}

function store(kept: Kept): void {
  const text = JSON.stringify(kept);
  if (text.length > CHARS_MAX) return;
  try {
    sessionStorage.setItem(KEY, text);
  } catch (e) {
    if (!(e instanceof DOMException)) throw e; // no room, or storage is switched off
  }
}

const kept = take();

class KeptFields extends HTMLElement {
  connectedCallback(): void {
    const form = this.closest("form");
    if (!form) return;
    form.addEventListener("submit", () => {
      const typed = [...new FormData(form)].filter((pair): pair is [string, string] => typeof pair[1] === "string" && pair[0] !== TOKEN);
      store({ path: location.pathname, fields: typed, asked: false });
    });
    if (!kept) return;
    fill(form, kept.fields);
    this.hidden = false;
    form.dispatchEvent(new Event("input"));
  }
}

function fill(form: HTMLFormElement, fields: [string, string][]): void {
  const typed = new Map<string, string[]>();
  for (const [name, value] of fields) typed.set(name, [...(typed.get(name) ?? []), value]);
  for (const field of form.elements) {
    if (field instanceof HTMLInputElement && (field.type === "radio" || field.type === "checkbox")) field.checked = typed.get(field.name)?.includes(field.value) ?? false;
    else if (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement || field instanceof HTMLSelectElement) field.value = typed.get(field.name)?.[0] ?? field.value;
  }
}

customElements.define("kept-fields", KeptFields);
