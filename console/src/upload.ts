// An upload straight to S3, in parts, so that it can pause, and go on after a lost connection where it was.
import { call, OfflineError, type ApiFile, type PresignedPart, type Upload } from "./api";

// S3 joins parts of 5 MiB and more without their bytes passing through the API.
export const PART_BYTES = 8 * 1024 * 1024;
const TRIES = 5;

export type Put = (
  url: string, headers: Record<string, string>, part: Blob, onSent: (bytes: number) => void, signal: AbortSignal,
) => Promise<number>;

export class Uploading {
  private parts: string[] = [];
  private id: string | null = null;
  private abort: AbortController | null = null;

  constructor(
    private readonly file: Blob,
    private readonly name: string,
    private readonly onProgress: (sent: number) => void,
    private readonly put: Put = putWithProgress,
    private readonly pause: (milliseconds: number) => Promise<void> = wait,
    private readonly ask: typeof call = call,
  ) {}

  // Upload what is left. Rejects with an AbortError when it is stopped; called again, it goes on with the next part.
  async run(): Promise<ApiFile> {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const wanted = { purpose: "batch", filename: this.name, bytes: this.file.size, mime_type: "application/jsonl" };
    this.id ??= (await this.ask<Upload>("POST", "uploads", wanted, signal)).id;
    while (this.parts.length * PART_BYTES < this.file.size) {
      this.parts.push(await this.patiently(() => this.sendPart(this.parts.length * PART_BYTES, signal), signal));
    }
    const ended = await this.patiently(
      () => this.ask<Upload>("POST", `uploads/${this.id}/complete`, { part_ids: this.parts }, signal), signal,
    );
    if (!ended.file) throw new Error("The upload ended without a file.");
    return ended.file;
  }

  stop(): void {
    this.abort?.abort();
  }

  private async sendPart(start: number, signal: AbortSignal): Promise<string> {
    const part = this.file.slice(start, start + PART_BYTES);
    const made = await this.ask<PresignedPart>("POST", `uploads/${this.id}/parts`, { bytes: part.size }, signal);
    const sent = (bytes: number) => this.onProgress(start + bytes);
    const status = await this.put(made.upload_url, made.upload_headers, part, sent, signal);
    if (status >= 300) throw new Error(`S3 refused a part of the file (${status}).`);
    this.onProgress(start + part.size);
    return made.id;
  }

  private async patiently<T>(step: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let tried = 1; ; tried++) {
      try {
        return await step();
      } catch (error) {
        if (signal.aborted || !(error instanceof OfflineError) || tried === TRIES) throw error;
        await this.pause(500 * 2 ** tried);
      }
    }
  }
}

// `fetch` cannot tell how much it has sent.
const putWithProgress: Put = (url, headers, part, onSent, signal) =>
  new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("PUT", url);
    // The browser sets Content-Length itself.
    for (const [name, value] of Object.entries(headers)) {
      if (name.toLowerCase() !== "content-length") sending.setRequestHeader(name, value);
    }
    sending.upload.onprogress = (event) => onSent(event.loaded);
    sending.onload = () => resolve(sending.status);
    sending.onerror = () => reject(new OfflineError("The connection to S3 broke."));
    sending.onabort = () => reject(new DOMException("The upload is paused.", "AbortError"));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(part);
  });

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
