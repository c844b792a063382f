// build.mjs — compiles the addon with the compiler of this machine; `npm run build` comes here.
//
// Nothing prebuilt is shipped and nothing is downloaded: the sidecar runs on Linux beside the engine,
// where a compiler is at hand. make decides what is out of date. What is missing is said before make
// says it worse.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const native = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? 'addon';

function fail(missing, packages) {
  console.error(`kvlane: cannot build native/: ${missing}. On Debian or Ubuntu: apt-get install ${packages}`);
  process.exit(1);
}

function runs(command, args) {
  return spawnSync(command, args, { stdio: 'ignore', timeout: 60_000 }).status === 0;
}

// What the source asks of compiler and system headers, in one try.
const PROBE = '#include <xxhash.h>\n#include <linux/close_range.h>\nint main() { auto f = [](auto&&... x) { return sizeof...(x); }; return f(1) == 0; }\n';

const compiler = process.env['CXX'] ?? 'g++';
if (!runs('make', ['--version'])) fail('make is not installed', 'make');
if (!runs(compiler, ['--version'])) fail(`the compiler ${compiler} is not installed`, 'g++');
const probe = spawnSync(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], { input: PROBE, encoding: 'utf8', timeout: 60_000 });
if (probe.status !== 0) {
  if (probe.stderr.includes('xxhash.h')) fail('the header xxhash.h is missing', 'libxxhash-dev');
  if (probe.stderr.includes('close_range.h')) fail('the header linux/close_range.h is missing', 'linux-libc-dev');
  fail(`${compiler} does not compile C++20:\n${probe.stderr}`, 'g++');
}
if (target === 'addon') {
  const beside = join(dirname(process.execPath), '..', 'include', 'node', 'node_api.h');
  const installed = join(native, '..', 'node_modules', 'node-api-headers', 'include', 'node_api.h');
  if (!existsSync(beside) && !existsSync(installed)) fail(`node_api.h is neither at ${beside} nor in node_modules; run npm ci first, or install node's headers`, 'libnode-dev');
  if (!existsSync(join(native, '..', 'node_modules', 'node-addon-api', 'napi.h'))) {
    console.error('kvlane: cannot build native/: node-addon-api is not in node_modules; run npm ci first');
    process.exit(1);
  }
}

const make = ['--no-print-directory', '-C', native, `NODE=${process.execPath}`, '-j2', target];
if (spawnSync('make', ['-q', ...make], { stdio: 'ignore' }).status !== 0) {
  console.error(`kvlane: compiling native/ (${target}) with ${compiler}: the part that makes the file calls in threads of its own; about a minute the first time`);
}
const built = spawnSync('make', make, { stdio: ['ignore', 'ignore', 'inherit'] });
if (built.status !== 0) {
  console.error(`kvlane: native/ did not compile; to see every command: make ${make.join(' ')}`);
  process.exit(1);
}
