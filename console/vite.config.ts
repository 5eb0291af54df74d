import { defineConfig } from "vitest/config";

// The API serves the pages at /v1/console and /v1/docs, and all that they load under /v1/console/assets/: whatever the
// address of the API is, so every path is relative.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../functions/api/site",
    emptyOutDir: true,
    assetsDir: "console/assets",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 2000,
    target: "es2022",
    rollupOptions: { input: { console: "console.html", docs: "docs.html" } },
  },
  worker: { format: "es" },
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  test: { include: ["tests/unit/**/*.test.ts"] },
});
