// serve_words.ts — what there is to say about `kvlane serve` beside its options: for its help, and for its manual page.

export const SERVE_SUMMARY = 'serve requests from stdin';
export const SERVE_DESCRIPTION = 'Serve requests from stdin until it ends.';
export const SERVE_USAGE = '--mount NAME=DIR [options]';

export const SERVE_SPEAKS = 'It speaks newline-delimited JSON on stdin and stdout and logs to stderr; the first line is the "ready" event.';

export const SERVE_BY_HAND = `$ kvlane serve --mount kv0=/mnt/cache --create
{"id":1,"op":"store","blocks":[{"key":"demo/00ff","text":"hello"}]}
{"id":2,"op":"load","blocks":[{"key":"demo/00ff"}],"inline":true}
{"id":3,"op":"lookup","keys":["demo/00ff","demo/0100"]}
{"id":4,"op":"stuck"}        what sits in the kernel, where and for how long
{"id":5,"op":"help"}         every request with its fields
{"id":6,"op":"shutdown"}     or ctrl-D`;

export const SERVE_EXAMPLES = [
  { shows: 'Two devices, answers after at most 250 ms unless a request says otherwise:', type: 'kvlane serve --mount fast=/mnt/nvme --mount far=/mnt/nfs --timeout-ms 250' },
];

export const SERVE_SIZES = 'Sizes take plain bytes or a unit: 1048576, 1024KiB, 1MiB.';

export const SERVE_EXIT_CODES: readonly (readonly [code: number, when: string])[] = [
  [0, 'asked to leave (shutdown request, end of stdin, signal, parent gone) and left'],
  [2, 'a bad option, or an arena that cannot be used; nothing was started'],
  [70, 'an error inside kvlane; the log on stderr says which'],
  [74, 'nobody reads stdout any more'],
];

/** What stands under the options in its help. */
export function serveHelpAfter(): string {
  const examples = SERVE_EXAMPLES.map(({ shows, type }) => `${shows}\n  $ ${type}`).join('\n\n');
  const codes = SERVE_EXIT_CODES.map(([code, when]) => `  ${String(code).padStart(2)}   ${when}`).join('\n');
  return `\n${SERVE_SPEAKS}\n\nBy hand:\n${SERVE_BY_HAND.replace(/^/gm, '  ')}\n\n${examples}\n\n${SERVE_SIZES}\n\nExit status:\n${codes}`;
}
