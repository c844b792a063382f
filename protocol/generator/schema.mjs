// schema.mjs — protocol.json with its shorthands written out: plain JSON Schema under one flat set of names.
// Objects are closed unless they say otherwise, so that a misspelt field is an error in every language.

const capital = (name) => name.split('_').map((part) => part[0].toUpperCase() + part.slice(1)).join('');

export const BANNER = 'Made by protocol/generate.mjs from protocol/protocol.json. Do not edit; run: npm run protocol:generate';

export function readProtocol(source, version) {
  const { types, requests, answers, events } = source.messages;
  const limits = source.limits;

  const expand = (node) => {
    if (Array.isArray(node)) return node.map(expand);
    if (node === null || typeof node !== 'object') return node;
    if ('$limit' in node) {
      if (!(node.$limit in limits)) throw new Error(`protocol.json: no limit is called ${node.$limit}`);
      return limits[node.$limit].value;
    }
    if ('$keys' in node) return { enum: Object.keys(node.$keys === 'codes' ? source.codes : requests) };
    if ('$extends' in node) {
      const { $extends, ...own } = node;
      const base = types[$extends];
      return expand({ ...own, required: [...own.required, ...base.required], properties: { ...own.properties, ...base.properties } });
    }
    const out = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, expand(value)]));
    if (out.properties && typeof out.properties === 'object' && !('type' in out)) {
      return { type: 'object', additionalProperties: false, ...out };
    }
    return out;
  };

  const named = (set, suffix) => Object.entries(set).map(([key, node]) => ({ key, name: capital(key) + suffix, schema: expand(node) }));
  return {
    version,
    number: source.protocol,
    limits,
    codes: source.codes,
    types: named(types, ''),
    requests: named(requests, 'Message'),
    answers: named(answers, 'Answer'),
    events: named(events, 'Event'),
  };
}

/** The types a value of this schema may have, as a list. */
export function typesOf(schema) {
  if (schema.enum) return ['enum'];
  if ('const' in schema) return ['const'];
  if (schema.$ref) return ['$ref'];
  return Array.isArray(schema.type) ? schema.type : [schema.type];
}
