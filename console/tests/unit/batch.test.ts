import { describe, expect, test } from "vitest";
import type { Model } from "../../src/api";
import { cost, done, endedAt, hasEnded, matches, progress, rates, timeline } from "../../src/batch";
import { merged } from "../../src/listing";
import { made } from "./made";

const counts = (total: number, completed: number, failed: number) => ({ total, completed, failed });

describe("progress", () => {
  test("counts answered and failed lines", () => {
    const batch = made({ request_counts: counts(10, 3, 2) });
    expect(done(batch)).toBe(5);
    expect(progress(batch)).toBe(0.5);
  });

  test("is nothing before the lines are counted, and all of a completed batch", () => {
    expect(progress(made())).toBe(0);
    expect(progress(made({ request_counts: counts(0, 0, 0) }))).toBe(0);
    expect(progress(made({ status: "completed", completed_at: 5 }))).toBe(1);
  });
});

describe("the timeline", () => {
  test("has each status with how long it lasted, the last one until now", () => {
    const steps = timeline(made({ in_progress_at: 103 }), 110);
    expect(steps).toEqual([
      { status: "validating", at: 100, seconds: 3 },
      { status: "in_progress", at: 103, seconds: 7 },
    ]);
  });

  test("ends with the batch", () => {
    const batch = made({ status: "cancelled", in_progress_at: 101, cancelling_at: 104, cancelled_at: 109 });
    expect(timeline(batch, 500).map(({ status, seconds }) => [status, seconds])).toEqual([
      ["validating", 1], ["in_progress", 3], ["cancelling", 5], ["cancelled", null],
    ]);
    expect(endedAt(batch)).toBe(109);
    expect(hasEnded(batch)).toBe(true);
  });

  test("never counts backwards when this clock is behind", () => {
    expect(timeline(made(), 90)[0]!.seconds).toBe(0);
  });
});

describe("the cost", () => {
  const model = (input: number | null, output: number | null): Model => ({
    id: "m", endpoints: [], prices: { mode: "realtime", input_per_million: input, output_per_million: output },
  });
  const usage = {
    input_tokens: 2_000_000, output_tokens: 500_000, total_tokens: 2_500_000,
    input_tokens_details: { cached_tokens: 0 }, output_tokens_details: { reasoning_tokens: 0 },
  };

  test("is the tokens at the model's prices", () => {
    expect(cost(made({ usage }), [model(1.5, 6)])).toBe(6);
    expect(cost(made({ usage }), [model(0, 0)])).toBe(0);
  });

  test("is unknown without usage, without the model, or without a price", () => {
    expect(cost(made(), [model(1, 1)])).toBeNull();
    expect(cost(made({ usage, model: "other" }), [model(1, 1)])).toBeNull();
    expect(cost(made({ usage }), [model(1, null)])).toBeNull();
    expect(cost(made({ usage }), [{ id: "m", endpoints: [], prices: null }])).toBeNull();
  });
});

test.each([
  ["", true], ["BATCH_A", true], ["team=search", true], ["search m", true], ["team=other", false], ["a nothing", false],
])("a batch has the words %j: %j", (words, found) => {
  expect(matches(made({ metadata: { team: "search" } }), words)).toBe(found);
});

test("rates are between two samples each", () => {
  const samples = [{ at: 0, done: 0 }, { at: 2, done: 10 }, { at: 2, done: 11 }, { at: 5, done: 11 }];
  expect(rates(samples)).toEqual([{ at: 2, perMinute: 300 }, { at: 5, perMinute: 0 }]);
  expect(rates(samples.slice(0, 1))).toEqual([]);
});

test("pages of a list are merged, newest first, each batch once as it was told last", () => {
  const [newest, before] = [[made({ id: "batch_c" }), made({ id: "batch_b", status: "completed" })],
    [made({ id: "batch_b" }), made({ id: "batch_a" })]];
  expect(merged(newest, before).map(({ id, status }) => [id, status])).toEqual([
    ["batch_c", "in_progress"], ["batch_b", "completed"], ["batch_a", "in_progress"],
  ]);
});
