/** What this experiment counts, as its page says: bytes and tokens of text, or images. */

const words = (): DOMStringMap => document.querySelector<HTMLElement>("main[data-unit]")?.dataset ?? {};

export const nats = (): string => `nats per ${words().unit ?? "byte"}`;

export const units = (): string => words().units ?? "tokens";

export const unitsFirst = (): string => units().replace(/^./, (letter) => letter.toUpperCase());
