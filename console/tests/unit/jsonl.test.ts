import { describe, expect, test } from "vitest";
import { answerText, joined, lines, type Read } from "../../src/jsonl";

async function all<T>(found: AsyncIterable<T>): Promise<T[]> {
  const list = [];
  for await (const each of found) list.push(each);
  return list;
}

function stored(text: string): Read {
  const content = new TextEncoder().encode(text);
  return async (start, end) => content.subarray(start, end);
}

describe("lines", () => {
  const text = "one\nzwei: ü – 🌙\n\nthree\n";
  test.each([1, 2, 3, 5, 7, 1000])("are whole when a file is read by %i bytes", async (block) => {
    expect(await all(lines(stored(text), undefined, block))).toEqual(["one", "zwei: ü – 🌙", "three"]);
  });

  test("need no newline at the end", async () => {
    expect(await all(lines(stored("a\nb"), undefined, 2))).toEqual(["a", "b"]);
    expect(await all(lines(stored("")))).toEqual([]);
  });

  test("are read no further than they are looked at", async () => {
    let read = 0;
    const source = lines(async (start, end) => (read++, (await stored("x\n".repeat(100))(start, end))), undefined, 10);
    await source.next();
    expect(read).toBe(1);
  });
});

describe("results", () => {
  const request = (id: string) => JSON.stringify({ custom_id: id });
  const answer = (id: string) => JSON.stringify({ custom_id: id, response: { status_code: 200, body: {} }, error: null });
  const source = async function* (values: string[]) {
    yield* values;
  };

  test("are beside their requests, those without one too", async () => {
    const found = await all(joined(
      source(["a", "b", "c", "d"].map(request)), source(["a", "d"].map(answer)), source(["b"].map(answer)),
    ));
    expect(found.map(({ number, customId, failed, result }) => [number, customId, failed, result?.custom_id])).toEqual([
      [1, "a", false, "a"], [2, "b", true, "b"], [3, "c", false, undefined], [4, "d", false, "d"],
    ]);
  });

  test("of a batch without files are requests alone", async () => {
    expect((await all(joined(source([request("a")]), null, null))).map((each) => each.result)).toEqual([null]);
  });
});

test.each([
  [{ choices: [{ message: { content: "Hi" } }] }, "Hi"],
  [{ choices: [{ text: "there" }] }, "there"],
  [{ output: [{ type: "reasoning" }, { content: [{ text: "You" }] }] }, "You"],
  [{ data: [{ embedding: [1] }] }, null],
  [{ choices: [{ message: { content: null } }] }, null],
  [null, null],
])("the text of %j is %j", (body, text) => {
  expect(answerText(body)).toBe(text);
});
