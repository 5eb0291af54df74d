import { expect, test } from "vitest";
import { group } from "../../src/failures";
import type { ResultLine } from "../../src/jsonl";

const refused = (id: string, status: number, body: unknown): ResultLine => ({
  custom_id: id, response: { status_code: status, request_id: null, body }, error: null,
});
const unanswered = (id: string, code: string): ResultLine => ({
  custom_id: id, response: null, error: { code, message: `It is ${code}.` },
});

test("failed lines are grouped by what went wrong, the largest group first, with a few samples", () => {
  const failed = [
    unanswered("a", "batch_expired"),
    ...Array.from({ length: 5 }, (_, number) => refused(`b${number}`, 400, { error: { code: "too_long", message: "No." } })),
  ];
  const groups = group(failed);
  expect(groups.map(({ name, count, samples }) => [name, count, samples.length])).toEqual([
    ["400 too_long", 5, 3], ["batch_expired", 1, 1],
  ]);
  expect(groups[0]!.samples[0]).toEqual({ customId: "b0", message: "No." });
});

test.each([
  [400, "Change these lines"], [401, "refused the key"], [403, "refused the key"], [404, "no such model"],
  [429, "refused more at the time"], [500, "provider failed"], [503, "provider failed"],
])("for %i there is something to do", (status, remedy) => {
  expect(group([refused("a", status, { error: {} })])[0]!.remedy).toContain(remedy);
});

test.each(["batch_expired", "batch_cancelled", "request_timeout", "a_new_code"])("for %s too", (code) => {
  expect(group([unanswered("a", code)])[0]!.remedy).toMatch(/[Rr]etry/);
});

test.each([null, "text", [], { error: "text" }, { error: { message: 7, code: 7 } }])("a strange answer is shown: %j", (body) => {
  expect(group([refused("a", 418, body)])[0]).toMatchObject({ name: "418", count: 1 });
});
