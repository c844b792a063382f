// style.ts — the page's style sheet: one for light and dark, readable on paper.
export const STYLE = `
:root{color-scheme:light dark;--ink:#1c1c1c;--soft:#767676;--line:#e2e2e2;--page:#fff;--ok:#3a9d5d;--miss:#8fb9d8;--refused:#e0a030;--overdue:#d23b3b;--failed:#8e44ad;--open:#999}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#9a9a9a;--line:#383838;--page:#161616}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:1.5em auto;max-width:1220px;padding:0 1em}
h1{font-size:1.5em}h1 span,summary span{color:var(--soft);font-weight:normal}h2{border-top:2px solid var(--line);padding-top:.6em}h3{margin:1.4em 0 .3em}
code{font-size:.95em}.bad{color:var(--overdue)}li{margin:.2em 0}
svg[role=img]{display:block;max-width:100%;height:auto}.grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:11px;text-anchor:middle}.label{fill:var(--ink);font-size:11px;text-anchor:end}
.ok{fill:var(--ok)}.miss{fill:var(--miss)}.refused{fill:var(--refused)}.overdue{fill:var(--overdue)}.failed{fill:var(--failed)}.unanswered{fill:var(--open)}
.state.suspended{fill:var(--overdue)}.state.probing{fill:var(--refused)}.state.unknown{fill:var(--line)}
.load{fill:#2f6fb5;stroke:#2f6fb5}.store{fill:#b5682f;stroke:#b5682f}.lookup{fill:#2fa39a;stroke:#2fa39a}.remove{fill:#8a8a2f;stroke:#8a8a2f}.metadata{fill:#2fa39a;stroke:#2fa39a}.other{fill:#888;stroke:#888}
g line{stroke-width:1;opacity:.5}.slowest{fill:none}.call{stroke:none}.call.open{opacity:.6}
.line{fill:none;stroke-width:1.8}.line.stuck{stroke:var(--overdue)}.line.quarantined{stroke:var(--refused);stroke-dasharray:5 2}rect.line.stuck{fill:var(--overdue)}rect.line.quarantined{fill:var(--refused)}
.legend{color:var(--soft);font-size:12px}.legend span{margin-right:1.2em;white-space:nowrap}.legend svg{vertical-align:-1px}
details{margin:1em 0}summary{font-weight:bold;cursor:pointer}table{border-collapse:collapse;font-size:13px;margin-top:.4em}
th,td{text-align:left;padding:.15em .8em .15em 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}th{color:var(--soft);font-weight:normal}
@media print{details{break-inside:avoid}body{max-width:none}}
`.trim();
