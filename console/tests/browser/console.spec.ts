// What needs no upstream of a certain kind.
import { Door, expect, jsonl, line, linesOf, look, open, stack, test } from "./stack";

test.describe("signing in", () => {
  test.use({ expected: /401/ });

  for (const key of ["sk-ns-wrong", stack.keys?.revoked]) {
    test(`a ${key === "sk-ns-wrong" ? "wrong" : "revoked"} key is refused`, async ({ page }) => {
      await page.goto(`${stack.base_url}/console`);
      await page.getByLabel("API key").fill(key);
      await page.keyboard.press("Enter");
      await expect(page.getByRole("alert")).toContainText("not valid");
      await look(page, "sign-in");
      expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
    });
  }

  test("a good key opens the batches, and stays in this tab", async ({ page, context }) => {
    await page.goto(`${stack.base_url}/console`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByRole("alert")).toContainText("Enter your API key");
    await page.getByLabel("API key").fill(stack.keys.empty);
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByText("No batches yet")).toBeVisible();
    expect(await page.evaluate(() => [localStorage.length, document.cookie, location.hash])).toEqual([0, "", ""]);
    const other = await context.newPage();
    await other.goto(`${stack.base_url}/console`);
    await expect(other.getByLabel("API key")).toBeVisible();
    await page.getByRole("button", { name: "Sign out" }).click();
    await expect(page.getByLabel("API key")).toBeVisible();
  });

  test("a key that is revoked meanwhile leads back", async ({ page }) => {
    await open(page, "revocable");
    await expect(page.getByText("No batches yet")).toBeVisible();
    await page.evaluate((key) => sessionStorage.setItem("nightshift.key", key), stack.keys.revoked);
    await page.reload();
    await expect(page.getByRole("alert")).toContainText("not valid any more");
  });
});

test("an account without batches is told what to do", async ({ page }) => {
  await open(page, "empty");
  await expect(page.getByRole("link", { name: "Make the first one" })).toBeVisible();
  await look(page, "empty");
});

test("3,000 batches are listed as far as one looks, and filtered", async ({ page }) => {
  await open(page, "full");
  const rows = page.locator("tbody tr");
  await expect(rows.first()).toBeVisible();
  await look(page, "batches");
  const shown = await rows.count();
  expect(shown).toBeLessThan(400);
  await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
  await expect(async () => expect(await rows.count()).toBeGreaterThan(shown)).toPass();
  await page.getByLabel("Id, model or metadata").fill("number=2990");
  await expect(rows).toHaveCount(1);
  await page.getByLabel("Id, model or metadata").fill("number=3");
  await expect(rows).toHaveCount(111);
  await page.getByLabel("Id, model or metadata").fill("nothing has this");
  await expect(page.getByText("No batch is like this")).toBeVisible();
  await page.getByLabel("Id, model or metadata").fill("");
  await page.getByLabel("Status").selectOption("failed");
  await expect(page.locator("tbody .status").first()).toHaveText("failed");
});

test("50,000 lines are read as far as one looks", async ({ page }) => {
  await open(page, "work", "/new");
  await page.getByLabel("JSONL file").setInputFiles(jsonl("large.jsonl", linesOf(50_000)));
  await expect(page.getByText("All 50,000 lines are right")).toBeVisible();
  let sent = 0;
  await page.route(/\/uploads\/.*\/part_/, async (route) => {
    // The first part is slow, so that it can be paused.
    if (sent++ === 0) await new Promise((resolve) => setTimeout(resolve, 2000));
    await route.continue().catch(() => {});
  });
  await page.getByRole("button", { name: "Send 50,000 lines" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Go on" }).click();
  await expect(page.locator("h1")).toContainText("batch_");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Cancel the batch" }).click();
  await expect(page.locator(".head .status")).toHaveText("cancelled");
  await page.getByRole("link", { name: "Results" }).click();
  await expect(page.locator(".results > li")).toHaveCount(50);
  await page.getByRole("button", { name: "More lines" }).click();
  await expect(page.locator(".results > li")).toHaveCount(100);
});

test.describe("while the API is away", () => {
  test.use({ expected: /ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_|ERR_EMPTY_RESPONSE/ });

  test("it goes down and comes back", async ({ page }) => {
    const door = new Door();
    await door.open();
    try {
      await open(page, "full", "/", door.base);
      const rows = page.locator("tbody tr");
      await expect(rows.first()).toBeVisible();
      await door.shut();
      await expect(page.getByText("The API does not answer")).toBeVisible();
      await expect(rows.first()).toBeVisible();
      await door.open();
      await expect(page.getByText("The API does not answer")).toBeHidden();
      await page.getByLabel("Status").selectOption("failed");
      await expect(page.locator("tbody .status").first()).toHaveText("failed");
    } finally {
      await door.shut();
    }
  });

  test("what was shown stays, and it goes on by itself", async ({ page, context }) => {
    await open(page, "full");
    const rows = page.locator("tbody tr");
    await expect(rows.first()).toBeVisible();
    await context.setOffline(true);
    await expect(page.getByText("The API does not answer")).toBeVisible();
    await expect(rows.first()).toBeVisible();
    await look(page, "offline");
    await context.setOffline(false);
    await expect(page.getByText("The API does not answer")).toBeHidden();
  });
});

test("the keyboard alone makes a batch", async ({ page }) => {
  const press = async (key: string, times = 1) => {
    for (let number = 0; number < times; number++) await page.keyboard.press(key);
  };
  await open(page, "work");
  await press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await press("Enter");
  await expect(page.locator("main")).toBeFocused();
  await press("Tab");
  await press("Enter");
  await expect(page.getByRole("heading", { name: "New batch" })).toBeVisible();
  await expect(page.locator("main")).toBeFocused();
  const choosing = page.waitForEvent("filechooser");
  await press("Tab");
  await press("Enter");
  await (await choosing).setFiles(jsonl("by-keyboard.jsonl", [line("a")]));
  const send = page.getByRole("button", { name: "Send 1 line" });
  await expect(send).toBeVisible();
  for (let tabs = 0; tabs < 10 && !(await send.evaluate((button) => button === document.activeElement)); tabs++) {
    await press("Tab");
  }
  await press("Enter");
  await expect(page.locator("h1")).toContainText("batch_");
});

test("the reference of the API is there, and asks no other host", async ({ page }) => {
  const hosts = new Set<string>();
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  await open(page, "work");
  await page.goto(`${stack.base_url}/docs`);
  await expect(page.getByRole("heading", { name: /Nightshift/ })).toBeVisible();
  await expect(page.locator(".opblock").first()).toBeVisible();
  await page.locator("#operations-default-listModels").getByRole("button").first().click();
  await page.getByRole("button", { name: "Execute" }).click();
  await expect(page.locator("#operations-default-listModels .responses-table.live-responses-table")).toContainText("demo-model");
  await look(page, "reference");
  expect(hosts).toEqual(new Set([new URL(stack.base_url).host]));
});
