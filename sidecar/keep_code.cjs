// keep_code.cjs — for build.mjs: keeps the code that V8 made for the script, into $KVLANE_KEEP_CODE, when stdin ends.
//
// Loaded before launch.cjs, so that nothing of this is in what runs later. At the end of stdin and not at the exit: the sidecar
// leaves by _exit, and no JavaScript runs then. The first listener of an event is called first.
'use strict';
const { writeFileSync } = require('node:fs');
const vm = require('node:vm');

let script = null;
vm.Script = class extends vm.Script {
  constructor(...given) {
    super(...given);
    script = this;
  }
};
process.stdin.once('end', () => writeFileSync(process.env.KVLANE_KEEP_CODE, script.createCachedData()));
