// readme.mjs — the tables of protocol/README.md, between their markers; the rest of the page is written by hand.

export function withTables(page, protocol) {
  const tables = {
    codes: [
      '| code | what it means | what to do next |',
      '|---|---|---|',
      ...Object.entries(protocol.codes).map(([code, { meaning, next }]) => `| \`${code}\` | ${meaning} | ${next} |`),
    ],
    limits: [
      '| limit | value | why |',
      '|---|---|---|',
      ...Object.entries(protocol.limits).map(([name, { value, unit, reason }]) => `| \`${name}\` | ${value.toLocaleString('en')} ${unit} | ${reason} |`.replace('  |', ' |')),
    ],
  };
  let out = page;
  for (const [name, lines] of Object.entries(tables)) {
    const [open, close] = [`<!-- ${name}: made by generate.mjs -->`, `<!-- end of ${name} -->`];
    const [from, to] = [out.indexOf(open), out.indexOf(close)];
    if (from < 0 || to < from) continue;
    out = `${out.slice(0, from + open.length)}\n${lines.join('\n')}\n${out.slice(to)}`;
  }
  return out;
}
