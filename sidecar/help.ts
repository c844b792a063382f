// help.ts — what `help` answers: every op with one line that can be typed as it stands.
import { CODE_TABLE, LIMITS, PROTOCOL, VERSION } from '../protocol/messages.ts';

export function help(mounts: string[], timeoutMs: number): Record<string, unknown> {
  return {
    kvlane: `${VERSION}, protocol ${PROTOCOL}: one JSON object a line; every request is answered once, with its id, by its deadline`,
    mounts,
    times: `timeout_ms (from now; ${timeoutMs} without it) or deadline_us (CLOCK_MONOTONIC), not both`,
    ops: {
      store: { does: 'puts blocks on the mount, from slots of the arena or typed as text or base64', type: '{"id":1,"op":"store","blocks":[{"key":"demo/00ff","text":"hello"}]}' },
      load: { does: 'reads and verifies blocks, into slots or (inline) into the answer', type: '{"id":2,"op":"load","inline":true,"blocks":[{"key":"demo/00ff"}]}' },
      lookup: { does: 'says which blocks are there: true, false, or null for not known in time', type: '{"id":3,"op":"lookup","namespace":"demo","keys":["00ff","00aa"]}' },
      remove: { does: 'removes blocks; one that is not there counts as removed', type: '{"id":4,"op":"remove","keys":["demo/00ff"]}' },
      namespace: { does: 'names what an engine stores; says whether that matches what is there, and which generation to write into keys', type: '{"id":5,"op":"namespace","name":"demo","fingerprint":{"model":"tiny","dtype":"f16"}}' },
      list: { does: 'names what lies in one directory of the store, some at a time', type: '{"id":12,"op":"list","path":"blocks/demo/00"}' },
      verify: { does: 'reads blocks and says whether they are sound; changes nothing', type: '{"id":13,"op":"verify","keys":["demo/00ff"]}' },
      sweep: { does: 'removes one file that kvlane left behind, if it is still as list told it', type: '{"id":14,"op":"sweep","path":"aside/demo.00ff.77.0123456789abcdef-1","inode":"77","changed_ns":"1760000000000000000"}' },
      cancel: { does: 'settles another request now; its answer comes first', type: '{"id":6,"op":"cancel","task":2}' },
      stuck: { does: 'lists the calls that are stuck in the kernel: what, where, for how long; with over_ms all that have been with a lane for so long', type: '{"id":7,"op":"stuck"}' },
      stats: { does: 'counts, states, latencies', type: '{"id":8,"op":"stats"}' },
      ping: { does: 'answers', type: '{"id":9,"op":"ping"}' },
      help: { does: 'this', type: '{"id":10,"op":"help"}' },
      shutdown: { does: 'waits for what is in flight, at most timeout_ms, and leaves', type: '{"id":11,"op":"shutdown","timeout_ms":500}' },
    },
    key: 'namespace/hex: letters, digits, . _ - (and @generation), a slash, 2 to 128 of 0-9 a-f',
    codes: Object.fromEntries(Object.entries(CODE_TABLE).map(([code, { next }]) => [code, next])),
    limits: { blocks_max: LIMITS.blocks_max, line_bytes_max: LIMITS.line_bytes_max, inline_bytes_max: LIMITS.inline_bytes_max, inline_blocks_max: LIMITS.inline_blocks_max },
  };
}
