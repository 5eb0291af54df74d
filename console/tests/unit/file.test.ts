// The check of files against what the server finds in them (tools/console_rules.py).
import { describe, expect, test } from "vitest";
import { FileCheck } from "../../src/input/file";
import type { Fault } from "../../src/input/line";
import { knows } from "../../src/input/remedies";
import { endpointOf, RULES } from "../../src/input/rules";
import files from "../files.json";

const bytes = (base64: string) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
// The words of a JSON parser are its own.
const comparable = (fault: Fault) => ({ ...fault, message: fault.message.replace(/(not valid JSON:).*/s, "$1") });

function check(endpoint: string, content: Uint8Array, block: number): FileCheck {
  const checked = new FileCheck(endpointOf(endpoint));
  for (let at = 0; at < content.length; at += block) checked.feed(content.subarray(at, at + block));
  checked.finish();
  return checked;
}

describe("a file has the faults that the server finds", () => {
  test.each(files.map((file, number) => ({ number, ...file })))("$endpoint, file $number", (file) => {
    const content = bytes(file.content);
    for (const block of [1, 7, 1_000_000]) {
      const checked = check(file.endpoint, content, block);
      expect(checked.faults.map(comparable)).toEqual((file.faults as Fault[]).map(comparable));
      expect(checked.model).toBe(file.model);
      if (checked.faults.length < RULES.max_faults) expect(checked.lines).toBe(file.lines);
    }
  });
});

test.each(files)("without its wrong lines a file is right: $endpoint, file %#", (file) => {
  const content = bytes(file.content);
  const { wrong, lines } = check(file.endpoint, content, 100);
  const kept: number[] = [];
  let at = 0;
  for (const { start, end } of wrong) {
    kept.push(...content.subarray(at, start));
    at = end;
  }
  kept.push(...content.subarray(at));
  const again = check(file.endpoint, Uint8Array.from(kept), 100);
  expect(again.wrong).toEqual([]);
  expect(again.lines).toBe(lines - wrong.length);
});

test("for each fault there is something to do", () => {
  const codes = new Set(files.flatMap((file) => file.faults.map((fault) => fault.code)));
  expect([...codes].filter((code) => !knows(code))).toEqual([]);
  expect(codes.size).toBeGreaterThan(8);
});

test("a line may be too long", () => {
  const long = new Uint8Array(RULES.max_line_bytes + 5).fill(32, 1);
  long[0] = 123;
  const checked = check(RULES.default_endpoint, long, 1 << 20);
  expect(checked.faults.map((fault) => [fault.code, fault.line])).toEqual([["line_too_long", 1]]);
});

test("a file has at most so many lines", () => {
  const line = (number: number) =>
    `{"custom_id":"${number}","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{}]}}\n`;
  const content = Array.from({ length: RULES.max_lines + 3 }, (_, number) => line(number)).join("");
  const checked = check(RULES.default_endpoint, new TextEncoder().encode(content), 1 << 20);
  expect(checked.faults).toMatchObject([{ code: "invalid_request", line: RULES.max_lines + 1, param: null }]);
  expect(checked.wrong).toHaveLength(3);
});
