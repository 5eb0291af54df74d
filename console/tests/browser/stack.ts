// What the tests share: the stack, its accounts, and pages that must not complain.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import AxeBuilder from "@axe-core/playwright";
import { test as base, expect, type Page } from "@playwright/test";

interface Stack {
  base_url: string;
  control_url: string;
  keys: { work: string; empty: string; full: string; revoked: string; revocable: string };
  receiver_url: string;
  screenshots: string;
}

export const stack = JSON.parse(process.env.CONSOLE_STACK ?? "{}") as Stack;
export const WIDTHS = [360, 768, 1440];

interface Fixtures {
  // What the browser may complain of in this test, besides nothing.
  expected: RegExp | null;
}

export const test = base.extend<Fixtures>({
  expected: [null, { option: true }],
  page: async ({ page, expected }, use) => {
    const complaints: string[] = [];
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    await use(page);
    expect(complaints.filter((each) => !expected?.test(each))).toEqual([]);
  },
});

export async function open(page: Page, key: keyof Stack["keys"], hash = "/", base = stack.base_url): Promise<void> {
  await page.goto(`${base}/console#key=${stack.keys[key]}`);
  await expect(page.getByRole("navigation", { name: "Console" })).toBeVisible();
  if (hash !== "/") await page.goto(`${base}/console#${hash}`);
}

// A way to the API that can be shut, as if it were down: a listener that passes bytes on.
export class Door {
  private readonly inside = new Set<Socket>();
  private readonly server = createServer((caller) => {
    const { hostname, port } = new URL(stack.base_url);
    const api = connect(Number(port), hostname);
    for (const [from, to] of [[caller, api], [api, caller]] as const) {
      this.inside.add(from);
      from.pipe(to).on("error", () => from.destroy());
      from.on("close", () => this.inside.delete(from)).on("error", () => to.destroy());
    }
  });
  private port = 0;

  async open(): Promise<void> {
    this.server.listen(this.port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = (this.server.address() as AddressInfo).port;
  }

  async shut(): Promise<void> {
    const closed = once(this.server, "close");
    this.server.close();
    for (const each of this.inside) each.destroy();
    await closed;
  }

  get base(): string {
    const url = new URL(stack.base_url);
    url.host = `127.0.0.1:${this.port}`;
    return url.href;
  }
}

// A batch that is made without the console.
export async function create(lines: string[], wanted: Record<string, unknown> = {}): Promise<string> {
  const headers = { Authorization: `Bearer ${stack.keys.work}` };
  const form = new FormData();
  form.set("purpose", "batch");
  form.set("file", new Blob([lines.join("\n")]), "requests.jsonl");
  const file = await answer(await fetch(`${stack.base_url}/files`, { method: "POST", headers, body: form }));
  const body = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", ...wanted };
  const made = await fetch(`${stack.base_url}/batches`, {
    method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  return (await answer(made)).id;
}

async function answer(response: Response): Promise<{ id: string }> {
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as { id: string };
}

export function line(customId: string, text = "A word. And more.", model = "demo-model"): string {
  const body = { model, messages: [{ role: "user", content: text }] };
  return JSON.stringify({ custom_id: customId, method: "POST", url: "/v1/chat/completions", body });
}

export const linesOf = (count: number) => Array.from({ length: count }, (_, number) => line(`line-${number}`));

export const jsonl = (name: string, lines: string[]) => ({
  name, mimeType: "application/jsonl", buffer: Buffer.from(lines.join("\n")),
});

export async function simulate(settings: Record<string, unknown>): Promise<void> {
  await fetch(stack.control_url, { method: "DELETE" });
  await fetch(stack.control_url, { method: "PUT", body: JSON.stringify(settings) });
}

// The view has no fault that axe finds, light and dark, and its pictures at three widths are kept.
export async function look(page: Page, name: string): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]).analyze();
    expect(violations.map((each) => `${colorScheme}, ${each.id}: ${each.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(overflow, `nothing is wider than ${width} px`).toBeLessThanOrEqual(0);
      await page.screenshot({ path: `${stack.screenshots}/${name}-${colorScheme}-${width}.png` });
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
}

export { expect };
