// keep_code.cjs — for build.mjs: keeps the code that V8 made for the script, into $KVLANE_KEEP_CODE, at SIGUSR2, and leaves.
//
// Loaded before launch.cjs, so that nothing of this is in what runs later. Not at the exit: the sidecar leaves by _exit, and no
// JavaScript runs then.
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
process.once('SIGUSR2', () => {
  writeFileSync(process.env.KVLANE_KEEP_CODE, script.createCachedData());
  process.kill(process.pid, 'SIGTERM');
});
