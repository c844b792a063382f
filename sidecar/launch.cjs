#!/usr/bin/env node
// launch.cjs — the command `kvlane`, as it is built: starts the sidecar from one file that is compiled already.
//
// Every other command is in a script of its own, which the sidecar never sees: what it loads at its start stays small.
//
// Node would look for some sixty modules, read and compile each, and need longer for it than for its own start. So
// build.mjs puts them into one script, and beside it V8's code for that. Code for another script, or made by another
// node, is left alone and the script compiled, which takes some milliseconds and changes nothing else. That is judged
// here: V8 takes code for any script of the same length, and what it then runs is not what it reads.
'use strict';
const { fstatSync, readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Script } = require('node:vm');

const LABEL_BYTES = 64; // before the code: what it is of

if (process.argv[2] === 'serve' && !byHand()) serve();
else require('./kvlane-tools.cjs');

/** At a terminal `serve` is the console, which starts another one on pipes; not with an arena that only this process has inherited. */
function byHand() {
  // As in terminal.ts, which is not loaded yet, and like that without node:tty where the answer is no.
  const isatty = (fd) => fstatSync(fd).isCharacterDevice() && require('node:tty').isatty(fd);
  return isatty(0) && isatty(1) && isatty(2) && !process.argv.some((word) => word.startsWith('--arena-fd'));
}

function serve() {
  const filename = join(__dirname, 'kvlane.bundle.cjs');
  const source = readFileSync(filename, 'latin1');
  let cachedData;
  try {
    const kept = readFileSync(join(__dirname, 'kvlane.code'));
    // The script says on its first line which one it is.
    const label = `${source.slice(0, source.indexOf('\n'))} ${process.version} ${process.arch}`;
    if (kept.latin1Slice(0, LABEL_BYTES).trimEnd() === label) cachedData = kept.subarray(LABEL_BYTES);
  } catch {
    // compiled here then
  }
  new Script(source, { filename, cachedData }).runInThisContext()(require, __dirname);
}
