/** What the coordinator sends: coordinator/telemetry/shapes.py. Times are Unix seconds; null means unknown. */

export interface Summary {
  status: string;
  peers: number;
  trainers: number;
  tokens: number;
  tokens_per_s: number;
  loss: number | null;
  loss_validation: number | null;
  experts_total: number;
  experts_hosted: number;
  bytes_p2p: number;
  bytes_coordinator: number;
  reported_at: number | null;
}

export interface Peer {
  peer: string;
  version: string;
  stage: string;
  why: string;
  step: number;
  tokens: number;
  tokens_per_s: number;
  loss: number | null;
  experts: number;
  direct: number;
  relayed: number;
  joined_at: number | null;
  seen_at: number;
}

export interface Expert {
  uid: string;
  peer: string | null;
  copies: number;
  epoch: number | null;
  version: number | null;
  rows: number | null;
  rows_per_s: number | null;
  seen_at: number | null;
}

export interface HiveEvent {
  id: number;
  at: number;
  name: string;
  peer: string | null;
  detail: Record<string, string | number | boolean | null>;
}

export interface Series {
  resolution: number;
  at: number[];
  loss: (number | null)[];
  loss_validation: (number | null)[];
  tokens: number[];
  peers: number[];
  /** A point that ends later is still growing. */
  complete_until: number;
  outages: [number, number][];
}

export interface Tick {
  type: "tick";
  at: number;
  summary: Summary;
  peers: Peer[];
  experts: Expert[];
  events: HiveEvent[];
  series: Series[];
}

export interface Connection {
  a: string;
  b: string;
  kind: "direct" | "relayed";
  rtt_ms: number | null;
}

export interface Problem {
  severity: "bad" | "warning";
  where: string;
  what: string;
  fix: string;
}

export interface Health {
  at: number | null;
  problems: Problem[];
}
