// What needs an upstream that is slow or refuses, one test after the other.
import { create, expect, jsonl, line, linesOf, look, open, simulate, stack, test } from "./stack";

test.beforeEach(() => simulate({}));

test("a good file becomes a batch, which is watched to its end", async ({ page }) => {
  await simulate({ latency_ms: 5000 });
  await open(page, "work", "/new");
  await page.getByLabel("JSONL file").setInputFiles(jsonl("good.jsonl", linesOf(2_000)));
  await expect(page.getByText("All 2,000 lines are right")).toBeVisible();
  await page.getByLabel("Metadata").fill("team=search\nrun = nightly");
  await page.getByLabel("Webhook").fill(stack.receiver_url);
  await look(page, "new");
  await page.getByRole("button", { name: "Send 2,000 lines" }).click();
  await expect(page.locator("h1")).toContainText("batch_");
  await expect(page.locator(".head .status")).toHaveText("in progress");
  await expect(page.getByText("Lines a minute, since you opened this page")).toBeVisible();
  await expect(page.getByText("Half the answers take")).toBeVisible();
  await look(page, "running");
  await simulate({}); // it has been seen to run: the rest may be quick
  await expect(page.locator(".head .status")).toHaveText("completed");
  await expect(page.getByText("run", { exact: true })).toBeVisible();
  await expect(page.locator(".deliveries .status")).toHaveText("succeeded");
  await page.getByRole("button", { name: "Send again" }).click();
  await expect(page.locator(".deliveries > li ol li")).toHaveCount(2);
  await look(page, "batch");

  await page.getByRole("link", { name: "Results" }).click();
  await expect(page.locator(".results > li")).toHaveCount(50);
  await page.getByLabel("Search in requests and answers").fill("line-69");
  await expect(page.locator(".results > li")).toHaveCount(11);
  await page.locator(".results summary").first().click();
  await expect(page.getByRole("heading", { name: "Answer" })).toBeVisible();
  await look(page, "results");
});

test("wrong lines are shown with what to do, and removed", async ({ page }) => {
  const lines = [line("a"), "{", line("a"), line("b", "Hi", "other"), '{"custom_id": "c"}', line("d")];
  await open(page, "work", "/new");
  await page.getByLabel("JSONL file").setInputFiles(jsonl("bad.jsonl", lines));
  await expect(page.getByRole("alert")).toContainText("4 of 6 lines are wrong");
  await expect(page.getByText("Duplicate custom_id: 'a' is used by an earlier line.")).toBeVisible();
  await expect(page.getByText("Give each line a custom_id of its own")).toBeVisible();
  await expect(page.getByLabel("Line 5", { exact: true })).toHaveText('{"custom_id": "c"}');
  await look(page, "wrong-lines");
  await page.getByRole("button", { name: "Remove 4 wrong lines" }).click();
  await expect(page.getByText("All 2 lines are right")).toBeVisible();
  await page.getByRole("button", { name: "Send 2 lines" }).click();
  await expect(page.locator(".head .status")).toHaveText("completed");
});

test("a batch is cancelled, and what is left is retried", async ({ page }) => {
  await simulate({ latency_ms: 3000 });
  const id = await create(linesOf(4_000));
  await open(page, "work", `/batches/${id}`);
  await expect(page.locator(".head .status")).toHaveText("in progress");
  await page.getByRole("button", { name: "Cancel" }).click();
  const dialog = page.getByRole("dialog", { name: "Cancel this batch?" });
  await expect(dialog).toBeVisible();
  await look(page, "cancel");
  await page.keyboard.press("Escape");
  await expect(dialog).toBeHidden();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Cancel the batch" }).click();
  await expect(page.locator(".head .status")).toHaveText("cancelled");
  await expect(page.getByRole("heading", { name: "batch_cancelled" })).toBeVisible();
  await simulate({});
  await page.getByRole("button", { name: "Retry failed lines" }).click();
  await page.getByRole("button", { name: "Retry them" }).click();
  await expect(page.locator("h1")).not.toContainText(id);
  await expect(page.locator(".head .status")).toHaveText("completed");
});

test("failed lines are grouped, and files are downloaded", async ({ page }) => {
  await simulate({ error_rate: { "400": 1 } });
  const id = await create(linesOf(3));
  await open(page, "work", `/batches/${id}`);
  await expect(page.locator(".failure")).toContainText("3 lines");
  await expect(page.locator(".failure")).toContainText("Change these lines");
  await look(page, "failed-lines");
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download errors" }).click();
  expect((await download).suggestedFilename()).toContain(".jsonl");
});
