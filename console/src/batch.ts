// What the views derive from a batch: pure functions.
import type { Batch, Model, Status } from "./api";

const ENDS: readonly Status[] = ["completed", "failed", "expired", "cancelled"];

export const STATUSES: readonly Status[] = [
  "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled",
];

export function hasEnded(batch: Batch): boolean {
  return ENDS.includes(batch.status);
}

export function endedAt(batch: Batch): number | null {
  return batch.completed_at ?? batch.failed_at ?? batch.expired_at ?? batch.cancelled_at;
}

export function done(batch: Batch): number {
  return batch.request_counts ? batch.request_counts.completed + batch.request_counts.failed : 0;
}

// The share of lines with a result, from 0 to 1.
export function progress(batch: Batch): number {
  if (batch.status === "completed") return 1;
  return batch.request_counts?.total ? done(batch) / batch.request_counts.total : 0;
}

export interface Step {
  status: Status;
  at: number;
  seconds: number | null; // until the next one; null for the last of a batch that has ended
}

// The statuses that the batch has had, in order, each with how long it lasted.
export function timeline(batch: Batch, now: number): Step[] {
  const times: [Status, number | null][] = [
    ["validating", batch.created_at],
    ["in_progress", batch.in_progress_at],
    ["finalizing", batch.finalizing_at],
    ["cancelling", batch.cancelling_at],
    ["completed", batch.completed_at],
    ["failed", batch.failed_at],
    ["expired", batch.expired_at],
    ["cancelled", batch.cancelled_at],
  ];
  const had = times.filter((each): each is [Status, number] => each[1] !== null).sort((a, b) => a[1] - b[1]);
  return had.map(([status, at], number) => {
    const next = had[number + 1]?.[1] ?? (ENDS.includes(status) ? null : now);
    return { status, at, seconds: next === null ? null : Math.max(0, next - at) };
  });
}

// Dollars of the tokens used so far, where the model's prices are known.
export function cost(batch: Batch, models: readonly Model[]): number | null {
  const prices = models.find((model) => model.id === batch.model)?.prices;
  if (!prices || !batch.usage || prices.input_per_million === null || prices.output_per_million === null) return null;
  const { input_tokens, output_tokens } = batch.usage;
  return (input_tokens * prices.input_per_million + output_tokens * prices.output_per_million) / 1e6;
}

// Whether the batch's id, model or metadata has the words, each of them somewhere; `key=value` is a pair of metadata.
export function matches(batch: Batch, words: string): boolean {
  const pairs = Object.entries(batch.metadata ?? {}).map(([key, value]) => `${key}=${value}`);
  const text = [batch.id, batch.model ?? "", ...pairs].join(" ").toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

export interface Sample {
  at: number; // seconds
  done: number; // lines with a result
}

// Lines a minute between two samples each.
export function rates(samples: readonly Sample[]): { at: number; perMinute: number }[] {
  const found = [];
  for (let number = 1; number < samples.length; number++) {
    const [before, after] = [samples[number - 1]!, samples[number]!];
    const seconds = after.at - before.at;
    if (seconds > 0) found.push({ at: after.at, perMinute: (60 * (after.done - before.done)) / seconds });
  }
  return found;
}
