import { describe, expect, test } from "vitest";
import { OfflineError, type call } from "../../src/api";
import { PART_BYTES, Uploading, type Put } from "../../src/upload";

const FILE = { id: "file_a" };
const offline = () => new OfflineError("away");

// An API and an S3 that take an upload of two and a half parts. `faults` are thrown by the PUTs in turn.
function uploading(faults: (Error | null)[] = [], put?: Put) {
  const asked: [string, unknown][] = [];
  const sizes: number[] = [];
  const pauses: number[] = [];
  const told: number[] = [];
  const ask = (async (_method: string, path: string, body: unknown) => {
    asked.push([path, body]);
    if (path === "uploads") return { id: "upload_a", file: null };
    if (path.endsWith("/complete")) return { id: "upload_a", file: FILE };
    return { id: `part_${asked.length}`, upload_url: "https://s3.test/", upload_headers: {} };
  }) as typeof call;
  const send: Put = async (url, headers, part, onSent, signal) => {
    const fault = faults.shift();
    if (fault) throw fault;
    sizes.push(part.size);
    return put ? put(url, headers, part, onSent, signal) : 200;
  };
  const pause = async (milliseconds: number) => void pauses.push(milliseconds);
  const file = new Blob([new Uint8Array(2.5 * PART_BYTES)]);
  const upload = new Uploading(file, "requests.jsonl", (sent) => told.push(sent), send, pause, ask);
  return { upload, asked, sizes, pauses, told };
}

describe("an upload", () => {
  test("goes in parts, straight to S3, and ends as a file", async () => {
    const { upload, asked, sizes, told } = uploading();
    expect(await upload.run()).toBe(FILE);
    expect(sizes).toEqual([PART_BYTES, PART_BYTES, PART_BYTES / 2]);
    expect(told.at(-1)).toBe(2.5 * PART_BYTES);
    expect(asked.map(([path]) => path)).toEqual([
      "uploads", ...Array<string>(3).fill("uploads/upload_a/parts"), "uploads/upload_a/complete",
    ]);
    expect(asked[0]![1]).toEqual({
      purpose: "batch", filename: "requests.jsonl", bytes: 2.5 * PART_BYTES, mime_type: "application/jsonl",
    });
    expect(asked.at(-1)![1]).toEqual({ part_ids: ["part_2", "part_3", "part_4"] });
  });

  test("that is paused goes on with the part it was at, in the same upload", async () => {
    let number = 0;
    const { upload, asked, sizes } = uploading([], async () => {
      if (++number === 2) {
        upload.stop();
        throw new DOMException("paused", "AbortError");
      }
      return 200;
    });
    await expect(upload.run()).rejects.toThrow("paused");
    expect(await upload.run()).toBe(FILE);
    expect(sizes).toEqual([PART_BYTES, PART_BYTES, PART_BYTES, PART_BYTES / 2]);
    expect(asked.filter(([path]) => path === "uploads")).toHaveLength(1);
  });

  test("waits longer and longer for a connection", async () => {
    const { upload, pauses } = uploading([offline(), offline(), null, offline()]);
    expect(await upload.run()).toBe(FILE);
    expect(pauses).toEqual([1000, 2000, 1000]);
  });

  test("gives up after some tries, and goes on when it is asked to", async () => {
    const { upload, sizes } = uploading(Array.from({ length: 5 }, offline));
    await expect(upload.run()).rejects.toThrow("away");
    expect(await upload.run()).toBe(FILE);
    expect(sizes).toHaveLength(3);
  });

  test("that S3 refuses says so", async () => {
    const { upload } = uploading([], async () => 403);
    await expect(upload.run()).rejects.toThrow("S3 refused a part of the file (403).");
  });
});
