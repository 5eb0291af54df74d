// The unmodified official Node SDK against a stack. tests/e2e/test_node.py sets the environment:
// OPENAI_BASE_URL, OPENAI_API_KEY, FULL_API_KEY (of an account whose quota of batches is 0), SLASHED_MODEL.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI, { toFile } from 'openai';

const client = new OpenAI({ maxRetries: 0 });
const ENDED = ['completed', 'failed', 'expired', 'cancelled'];

const line = (id, model = 'demo-model') =>
  JSON.stringify({
    custom_id: id,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { model, messages: [{ role: 'user', content: `Sentence ${id}. And more.` }] },
  });

const input = (count) => Array.from({ length: count }, (_, number) => line(`request-${number}`)).join('\n');

const upload = async (content, name = 'input.jsonl') =>
  client.files.create({ file: await toFile(Buffer.from(content), name), purpose: 'batch' });

const create = async (content, extra = {}) => {
  const file = await upload(content);
  return client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
    ...extra,
  });
};

const ended = async (id) => {
  for (const giveUp = Date.now() + 60_000; Date.now() < giveUp; await sleep(100)) {
    const batch = await client.batches.retrieve(id);
    if (ENDED.includes(batch.status)) return batch;
  }
  throw new Error(`the batch ${id} did not end`);
};

const refusal = async (call) => {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error('it was not refused');
};

const assertRefused = (error, kind, status, code, param) => {
  assert.ok(error instanceof kind, `${error}`);
  assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
  assert.match(error.requestID, /^req_\w+$/);
  assert.ok(error.message.length > 10);
};

test('batch from upload to download', async () => {
  const file = await upload(input(5));
  assert.deepEqual([file.object, file.status, file.purpose, file.filename], ['file', 'processed', 'batch', 'input.jsonl']);

  const created = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
    metadata: { team: 'search' },
    output_expires_after: { anchor: 'created_at', seconds: 3600 },
  });
  assert.equal(created.status, 'validating');
  const batch = await ended(created.id);

  assert.equal(batch.status, 'completed');
  assert.deepEqual(batch.request_counts, { total: 5, completed: 5, failed: 0 });
  assert.deepEqual(batch.metadata, { team: 'search' });
  assert.equal(batch.error_file_id, null);
  const content = await client.files.content(batch.output_file_id);
  assert.match(content.headers.get('content-disposition'), new RegExp(`filename="${batch.id}_output.jsonl"`));
  const lines = (await content.text()).trimEnd().split('\n').map((each) => JSON.parse(each));
  assert.deepEqual(lines.map((each) => each.custom_id), [0, 1, 2, 3, 4].map((number) => `request-${number}`));
  assert.equal(lines[3].response.body.choices[0].message.content, 'Sentence request-3.');
  const output = await client.files.retrieve(batch.output_file_id);
  assert.equal(output.purpose, 'batch_output');
  assert.ok(output.expires_at - output.created_at <= 3600);
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: 'file', deleted: true });
});

test('a batch of every endpoint', async () => {
  const prompts = {
    '/v1/chat/completions': { messages: [{ role: 'user', content: 'Good night. And more.' }] },
    '/v1/responses': { input: 'Good night. And more.' },
    '/v1/embeddings': { input: ['Good night.', 'Sleep well.'], dimensions: 4 },
    '/v1/completions': { prompt: 'Good night. And more.' },
    '/v1/moderations': { input: 'Good night. And more.' },
  };
  const bodies = await Promise.all(
    Object.entries(prompts).map(async ([endpoint, prompt]) => {
      const body = { model: 'demo-model', ...prompt };
      const created = await create(JSON.stringify({ custom_id: 'a', method: 'POST', url: endpoint, body }), { endpoint });
      const batch = await ended(created.id);
      assert.deepEqual([batch.endpoint, batch.status, batch.request_counts.completed], [endpoint, 'completed', 1]);
      return JSON.parse(await (await client.files.content(batch.output_file_id)).text()).response.body;
    }),
  );
  const [chat, response, embeddings, completion, moderation] = bodies;
  assert.equal(chat.choices[0].message.content, 'Good night.');
  assert.equal(response.output[0].content[0].text, 'Good night.');
  assert.deepEqual(embeddings.data.map((each) => each.embedding.length), [4, 4]);
  assert.equal(completion.choices[0].text, 'Good night.');
  assert.equal(moderation.results[0].flagged, false);
  assert.ok(bodies.every((each) => each.model === 'demo-model'));
});

test('bytes without a name, read back without a redirect', async () => {
  const content = input(3);
  const file = await client.files.create({ file: await toFile(Buffer.from(content)), purpose: 'batch' });
  assert.deepEqual([file.status, file.filename, file.bytes], ['processed', 'unknown_file', Buffer.byteLength(content)]);
  const download = await client.files.content(file.id, { fetchOptions: { redirect: 'error' } });
  assert.equal(download.status, 200);
  assert.equal(await download.text(), content);

  const created = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  const batch = await ended(created.id);
  const output = await client.files.content(batch.output_file_id, { fetchOptions: { redirect: 'error' } });
  const lines = (await output.text()).trimEnd().split('\n').map((each) => JSON.parse(each));
  assert.deepEqual(
    lines.map((each) => [each.custom_id, each.response.body.choices[0].message.content]),
    [0, 1, 2].map((number) => [`request-${number}`, `Sentence request-${number}.`]),
  );
});

test('upload parts are joined in the order of part_ids', async () => {
  const content = Buffer.alloc(9 * 1024 * 1024, 'nightshift ');
  const size = 4 * 1024 * 1024;
  const pieces = [0, 1, 2].map((number) => content.subarray(number * size, (number + 1) * size));
  const made = await client.uploads.create({
    bytes: content.length,
    filename: 'big.jsonl',
    mime_type: 'application/jsonl',
    purpose: 'batch',
  });
  assert.deepEqual([made.object, made.status, made.file], ['upload', 'pending', null]);
  const ids = [];
  for (const number of [2, 0, 1]) {
    const part = await client.uploads.parts.create(made.id, { data: await toFile(pieces[number], 'part') });
    assert.equal(part.upload_id, made.id);
    ids[number] = part.id;
  }
  const md5 = createHash('md5').update(content).digest('hex');
  const done = await client.uploads.complete(made.id, { part_ids: ids, md5 });

  assert.equal(done.status, 'completed');
  assert.equal(done.file.bytes, content.length);
  assert.ok(Buffer.from(await (await client.files.content(done.file.id)).arrayBuffer()).equals(content));
  await client.files.delete(done.file.id);
});

test('cancelled upload refuses parts', async () => {
  const made = await client.uploads.create({
    bytes: 3,
    filename: 'a.jsonl',
    mime_type: 'application/jsonl',
    purpose: 'batch',
  });
  assert.equal((await client.uploads.cancel(made.id)).status, 'cancelled');
  const data = await toFile(Buffer.from('abc'), 'part');
  const error = await refusal(() => client.uploads.parts.create(made.id, { data }));
  assertRefused(error, OpenAI.BadRequestError, 400, 'upload_not_pending', 'upload_id');
});

test('automatic paging over files and batches', async () => {
  const files = [];
  for (let number = 0; number < 5; number += 1) files.push((await upload(line('a'), `paged-${number}.jsonl`)).id);
  const batches = [];
  for (const file of files) {
    const batch = await client.batches.create({
      input_file_id: file,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    });
    batches.push(batch.id);
  }

  const seenFiles = [];
  for await (const file of client.files.list({ limit: 2, order: 'asc', purpose: 'batch' })) seenFiles.push(file.id);
  assert.deepEqual(seenFiles.filter((id) => files.includes(id)), files);
  assert.equal(new Set(seenFiles).size, seenFiles.length);

  const seen = [];
  for await (const batch of client.batches.list({ limit: 2 })) seen.push(batch.id);
  assert.deepEqual(seen.filter((id) => batches.includes(id)), batches.toReversed());
  assert.equal(new Set(seen).size, seen.length);
  await Promise.all(batches.map(ended));
});

test('cancel of a running and of an ended batch', async () => {
  const batch = await create(input(3));
  assert.ok(['cancelling', ...ENDED].includes((await client.batches.cancel(batch.id)).status));
  const last = await ended(batch.id);
  assert.deepEqual(await client.batches.cancel(batch.id), last);
});

test('model with slashes in its name', async () => {
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  assert.ok(models.includes('demo-model'));
  assert.equal((await client.models.retrieve('demo-model')).id, 'demo-model');
  assert.equal((await client.models.retrieve(process.env.SLASHED_MODEL)).id, process.env.SLASHED_MODEL);
});

test('errors have class, code, param and request id', async () => {
  const stranger = new OpenAI({ apiKey: 'sk-nobody', maxRetries: 0 });
  assertRefused(await refusal(() => stranger.models.list()), OpenAI.AuthenticationError, 401, 'invalid_api_key', null);
  assertRefused(
    await refusal(() => client.batches.retrieve('batch_nope')),
    OpenAI.NotFoundError, 404, 'batch_not_found', 'batch_id',
  );
  assertRefused(
    await refusal(() => client.files.content('file_nope')),
    OpenAI.NotFoundError, 404, 'file_not_found', 'file_id',
  );
  assertRefused(
    await refusal(() => client.batches.list({ limit: 101 })),
    OpenAI.BadRequestError, 400, 'invalid_value', 'limit',
  );
  assertRefused(
    await refusal(() => upload('{}', 'input.txt')),
    OpenAI.BadRequestError, 400, 'invalid_filename', 'file',
  );
  const full = new OpenAI({ apiKey: process.env.FULL_API_KEY, maxRetries: 0 });
  const file = await full.files.create({ file: await toFile(Buffer.from(line('a')), 'a.jsonl'), purpose: 'batch' });
  const limited = await refusal(() =>
    full.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' }),
  );
  assertRefused(limited, OpenAI.RateLimitError, 429, 'quota_exceeded', null);
  assert.ok(Number(limited.headers.get('retry-after')) > 0);
});

test('every invalid line of a file is listed', async () => {
  const error = await refusal(() => create([line('a'), '{', line('a')].join('\n')));
  assertRefused(error, OpenAI.BadRequestError, 400, 'batch_invalid_jsonl', 'input_file_id');
  assert.deepEqual(
    error.error.details.map((each) => [each.line, each.code]),
    [[2, 'invalid_json_line'], [3, 'duplicate_custom_id']],
  );
});

let receiver;
let received;

before(async () => {
  let take;
  received = new Promise((resolve) => { take = resolve; });
  receiver = createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      response.end();
      take({ headers: request.headers, body: Buffer.concat(chunks).toString() });
    });
  });
  await new Promise((resolve) => { receiver.listen(0, '127.0.0.1', resolve); });
});

after(() => {
  receiver.closeAllConnections();
  receiver.close();
});

test('webhook is unwrapped', { timeout: 60_000 }, async () => {
  const { secret } = await client.post('/webhook/rotate');
  const batch = await create(input(1), { callback_url: `http://127.0.0.1:${receiver.address().port}/hook` });
  const { headers, body } = await received;

  const hooks = new OpenAI({ apiKey: 'unused', webhookSecret: secret }).webhooks;
  const event = await hooks.unwrap(body, headers);
  assert.deepEqual([event.object, event.type, event.data.id], ['event', 'batch.completed', batch.id]);
  await assert.rejects(hooks.unwrap(body.replace('completed', 'expired'), headers), OpenAI.InvalidWebhookSignatureError);
});
