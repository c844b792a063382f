#!/usr/bin/env node
// launch.cjs — the command `kvlane`, as it is built: starts the sidecar from one file that is compiled already.
//
// Node would look for some sixty modules, read and compile each, and need longer for it than for its own start. So
// build.mjs puts them into one script, and beside it V8's code for that. The code fits one version of node; another
// one refuses it and compiles the script, which takes a few milliseconds and changes nothing else.
'use strict';
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Script } = require('node:vm');

const filename = join(__dirname, 'kvlane.bundle.cjs');
let cachedData;
try {
  cachedData = readFileSync(join(__dirname, 'kvlane.code'));
} catch {
  // compiled here then
}
new Script(readFileSync(filename, 'latin1'), { filename, cachedData }).runInThisContext()(require, filename);
