// Drives the console in Chromium against a running stack; tests/e2e/test_console.py starts it, fills it, and runs this.
import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

const installed = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => existsSync(path));

export default defineConfig({
  testDir: "tests/browser",
  outputDir: "test-results",
  // The machine also runs two stacks: a test waits for what it expects, however long, and never for time to pass.
  timeout: 180_000,
  expect: { timeout: 60_000 },
  workers: 2, // a file each
  retries: 0,
  reporter: [["list"]],
  use: {
    viewport: { width: 1280, height: 800 },
    permissions: ["clipboard-read", "clipboard-write"],
    launchOptions: {
      ...(installed && { executablePath: installed }),
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"],
    },
  },
});
