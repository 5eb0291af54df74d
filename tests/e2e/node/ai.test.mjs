// Vercel's AI SDK, whose batches speak only /v1/responses. tests/e2e/test_node.py sets the environment.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createOpenAI } from '@ai-sdk/openai';
import {
  experimental_getBatchResults as getBatchResults,
  experimental_getBatchStatus as getBatchStatus,
  experimental_startBatch as startBatch,
} from 'ai';

const provider = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });

test('the AI SDK gets each answer of its batch once', async () => {
  const ids = [0, 1, 2, 3, 4].map((number) => `request-${number}`);
  const requests = ids.map((id) => ({ id, type: 'text', model: 'demo-model', prompt: `Sentence ${id}. And more.` }));
  const batch = await startBatch({ provider, requests });
  let status;
  for (const giveUp = Date.now() + 60_000; Date.now() < giveUp; await sleep(200)) {
    status = await getBatchStatus({ provider, batch });
    if (!['pending', 'validating', 'queued', 'running', 'in-progress', 'processing'].includes(status.status)) break;
  }
  const results = [];
  for await (const result of getBatchResults({ provider, batch })) results.push(result);
  assert.deepEqual(
    results.map((each) => [each.id, each.status, each.text]),
    ids.map((id) => [id, 'succeeded', `Sentence ${id}.`]),
    JSON.stringify(status),
  );
  assert.deepEqual([results[0].usage.inputTokens, results[0].usage.outputTokens], [4, 2]);
});
