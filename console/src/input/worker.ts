// The check of a file beside the page, so that the page stays quick: it answers with progress, then with what it found.
import { FileCheck, type WrongLine } from "./file";
import type { Fault } from "./line";
import { endpointOf, RULES } from "./rules";

export interface Asked {
  file: Blob;
  endpoint: string;
}

export type Told =
  | { kind: "progress"; bytes: number }
  | { kind: "checked"; faults: Fault[]; wrong: WrongLine[]; lines: number; model: string | null }
  | { kind: "failed"; message: string };

const BLOCK = 1024 * 1024;

self.onmessage = async ({ data }: MessageEvent<Asked>) => {
  const tell = (told: Told) => self.postMessage(told);
  try {
    const check = new FileCheck(endpointOf(data.endpoint));
    for (let start = 0; start < data.file.size; start += BLOCK) {
      check.feed(new Uint8Array(await data.file.slice(start, start + BLOCK).arrayBuffer()));
      tell({ kind: "progress", bytes: Math.min(start + BLOCK, data.file.size) });
    }
    check.finish();
    const faults = [...check.faults];
    if (data.file.size > RULES.max_file_bytes) {
      const message = `The file has more than ${RULES.max_file_bytes} bytes; split it into several batches.`;
      faults.unshift({ code: "invalid_request", message, param: null, line: null });
    }
    tell({ kind: "checked", faults, wrong: check.wrong, lines: check.lines, model: check.model });
  } catch (error) {
    tell({ kind: "failed", message: (error as Error).message });
  }
};
