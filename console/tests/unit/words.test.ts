// Numbers, times, addresses and excerpts.
import { describe, expect, test } from "vitest";
import { age, brief, bytes, dollars, duration, percent } from "../../src/format";
import { excerpt, guessEndpoint, without } from "../../src/input/selection";
import { nextPause } from "../../src/poll";
import { batchesLink, placeOf } from "../../src/router";

test.each([
  [duration(0.9), "0 s"], [duration(61), "1 min 1 s"], [duration(3_660), "1 h 1 min"], [duration(90_000), "1 d 1 h"],
  [brief(0.0312), "31 ms"], [brief(0), "1 ms"], [brief(2.34), "2.3 s"], [brief(75.4), "1 min 15 s"],
  [age(3), "now"], [age(59), "59 s"], [age(3_599), "59 min"], [age(86_399), "23 h"], [age(86_400), "1 d"],
  [bytes(999), "999 B"], [bytes(1_500), "1.5 kB"], [bytes(209_715_200), "209.7 MB"],
  [dollars(0), "$0.00"], [dollars(0.00123), "$0.0012"], [dollars(12), "$12.00"],
  [percent(0), "0 %"], [percent(0.001), "<1 %"], [percent(0.999), "99 %"], [percent(1), "100 %"],
])("%s", (shown, expected) => {
  expect(shown).toBe(expected);
});

describe("the address", () => {
  test.each([
    ["", { view: "batches", status: "", words: "" }],
    ["#/", { view: "batches", status: "", words: "" }],
    ["#/new", { view: "new" }],
    ["#/batches/batch_a", { view: "batch", id: "batch_a" }],
    ["#/batches/batch_a/results", { view: "results", id: "batch_a" }],
    ["#/nothing/like/this", { view: "batches", status: "", words: "" }],
  ])("%s leads to a view", (hash, place) => {
    expect(placeOf(hash)).toEqual(place);
  });

  test.each([["", ""], ["failed", ""], ["", "team=a&b #ü"], ["completed", "x y"]])("keeps the filter %j %j", (status, words) => {
    expect(placeOf(batchesLink(status, words))).toEqual({ view: "batches", status, words });
  });
});

test("polls come slower while nothing changes, up to half a minute, and at once quicker when something does", () => {
  let pause = nextPause(0, true);
  const pauses = Array.from({ length: 20 }, () => (pause = nextPause(pause, false)));
  expect(pauses.every((each, number) => number === 0 || each >= pauses[number - 1]!)).toBe(true);
  expect(pauses.at(-1)).toBe(30_000);
  expect(nextPause(30_000, true)).toBe(1_500);
});

describe("parts of a file", () => {
  test("without its wrong lines", async () => {
    const file = new File(["a\nb\nc\nd"], "in.jsonl");
    const wrong = [{ line: 1, start: 0, end: 2, faults: [] }, { line: 3, start: 4, end: 6, faults: [] }];
    const rest = without(file, wrong);
    expect([rest.name, await rest.text()]).toEqual(["in.jsonl", "b\nd"]);
  });

  test("the beginning of a line", async () => {
    expect(await excerpt(new Blob(["ab\n"]), { start: 0, end: 3 })).toBe("ab");
    expect(await excerpt(new Blob(["x".repeat(900)]), { start: 0, end: 900 })).toBe(`${"x".repeat(400)}…`);
  });

  test.each([
    ['{"url": "/v1/embeddings"}\n{"url": "/v1/completions"}', "/v1/embeddings"],
    ['{"url":"/v1/unknown"}', "/v1/chat/completions"], ["{", "/v1/chat/completions"], ["", "/v1/chat/completions"],
  ])("the endpoint of %j is %s", async (content, endpoint) => {
    expect(await guessEndpoint(new Blob([content]))).toBe(endpoint);
  });
});
