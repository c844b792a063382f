// What a user of Node would write: fs.promises, Promise.all, temporary name and rename, in libuv's four threads.
//
// Its best case: O_DIRECT like everybody else here. Node has no aligned buffers; a WebAssembly.Memory begins on a page, and is one of 4 KiB.
import { constants as c, promises as fs } from 'node:fs';
import { createInterface } from 'node:readline';

const config = JSON.parse(process.argv[2]);
const { op, dir, count, block_bytes: bytes, task_blocks: taskBlocks, tasks } = config;
const slots = bytes ? Math.floor(config.arena_bytes / bytes) : 1;
const memory = new Uint8Array(new WebAssembly.Memory({ initial: Math.max(1, config.arena_bytes / 65536), maximum: Math.max(1, config.arena_bytes / 65536), shared: false }).buffer);
for (let i = 0; i < memory.length; i += 4) memory[i] = (i * 2654435761) >>> 24; // every page is there before the clock runs
let slot = 0;
let at = 0;

const path = (block) => `${dir}/f.${block}`;
const buffer = () => memory.subarray((slot % slots) * bytes, (slot++ % slots) * bytes + bytes);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function load(block) {
  const file = await fs.open(path(block), c.O_RDONLY | c.O_DIRECT);
  try {
    const { bytesRead } = await file.read(buffer(), 0, bytes, 0);
    if (bytesRead !== bytes) throw new Error(`${path(block)}: ${bytesRead} of ${bytes} bytes`);
  } finally {
    await file.close();
  }
}

async function store(block) {
  const file = await fs.open(`${path(block)}.tmp`, c.O_WRONLY | c.O_CREAT | c.O_EXCL | c.O_DIRECT, 0o600);
  try {
    const { bytesWritten } = await file.write(buffer(), 0, bytes, 0);
    if (bytesWritten !== bytes) throw new Error(`${path(block)}: ${bytesWritten} of ${bytes} bytes`);
  } finally {
    await file.close();
  }
  await fs.rename(`${path(block)}.tmp`, path(block));
}

async function look(i) { // every other name is absent
  const there = await fs.access(path((i >> 1) + (i % 2 ? count : 0))).then(() => true, () => false);
  if (there !== (i % 2 === 0)) throw new Error(`the look-up of ${i} is wrong`);
}

const work = { load, new: store, replace: store, lookup: look }[op];

function next(n, first, issued) {
  const all = [];
  for (let i = 0; i < n; i += 1) {
    if (op === 'load') all.push(Math.floor(Math.random() * count));
    else if (op === 'new') all.push(first + issued + i);
    else if (op === 'lookup') all.push((issued + i) % (2 * count));
    else all.push(at++ % count);
  }
  return all;
}

async function slice(seconds, most, first) {
  const taskUs = [];
  let issued = 0;
  let done = 0;
  const cpu = process.cpuUsage();
  const began = performance.now();
  const stream = async () => {
    for (;;) {
      const n = most ? Math.min(taskBlocks, most - issued) : taskBlocks;
      if (n <= 0 || performance.now() - began >= seconds * 1000) return;
      const blocks = next(n, first, issued);
      issued += n;
      const from = performance.now();
      await Promise.all(blocks.map(work));
      taskUs.push(Math.round((performance.now() - from) * 1000));
      done += n;
    }
  };
  await Promise.all(Array.from({ length: tasks }, stream));
  const spent = process.cpuUsage(cpu);
  return { units: done, bytes: done * bytes, seconds: (performance.now() - began) / 1000, cpu_s: (spent.user + spent.system) / 1e6, task_us: taskUs };
}

async function each(first, n, what) {
  for (let block = first; block < first + n; block += 1) await what(block);
  return { done: true };
}

async function answer([verb, ...words]) {
  const [a, b, d] = words.map(Number);
  if (verb === 'slice') return slice(a, b, d);
  if (verb === 'fill') return each(a, b, op === 'lookup' ? (block) => fs.writeFile(path(block), '') : store);
  return each(a, b, (block) => fs.unlink(path(block)));
}

say({ ready: true, version: process.version, pages: '4 KiB' });
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'quit') break;
  try {
    say(await answer(line.split(' ')));
  } catch (error) {
    say({ error: String(error) });
    break;
  }
}
process.exit(0);
