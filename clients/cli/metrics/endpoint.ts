// endpoint.ts — /metrics over HTTP for a Prometheus on this machine. On loopback only: what it tells has paths and sizes in it, and asks
// nobody who he is.
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Wrong } from '../spec.ts';

/** At a time; a scrape is answered in milliseconds, or in two seconds when a sidecar hangs. */
const CONNECTIONS_MAX = 32;
const HEADERS_MS_MAX = 5_000;
const IDLE_MS = 30_000;

export interface Address {
  host: string;
  port: number;
}

/** `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`, `9464`. */
export function addressOf(word: string): Address {
  const [, host = '127.0.0.1', digits = ''] = /^(?:(.+):)?([0-9]{1,5})$/.exec(word) ?? [];
  const port = digits === '' ? NaN : Number(digits);
  if (!(port <= 65_535)) throw new Wrong(`An address as 127.0.0.1:9464 is wanted.`);
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (!/^(127(\.[0-9]{1,3}){3}|::1|localhost)$/.test(bare)) throw new Wrong(`Only this machine may ask: 127.0.0.1, [::1] or localhost. For others put a proxy before it that knows them.`);
  return { host: bare, port };
}

/** Resolves when it listens; `scrape` makes the text. Two that ask at once share one. */
export function serveMetrics(address: Address, contentType: string, scrape: () => Promise<string>): Promise<Server> {
  let underWay: Promise<string> | null = null;
  const server = createServer({ headersTimeout: HEADERS_MS_MAX, requestTimeout: HEADERS_MS_MAX, keepAliveTimeout: IDLE_MS }, (request, response) => {
    const end = (status: number, text: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text), 'cache-control': 'no-store' });
      response.end(request.method === 'HEAD' ? undefined : text);
    };
    request.resume();
    // A page in somebody's browser that had its name resolved to 127.0.0.1 asks under that name.
    if (!/^(127(\.[0-9]{1,3}){3}|\[::1\]|localhost)(:[0-9]+)?$/.test(request.headers.host ?? 'localhost')) return end(403, 'ask for localhost\n');
    if (request.method !== 'GET' && request.method !== 'HEAD') return end(405, 'GET /metrics\n');
    if (request.url?.split('?')[0] !== '/metrics') return end(404, 'GET /metrics\n');
    underWay ??= scrape().finally(() => (underWay = null));
    underWay.then(
      (text) => end(200, text, contentType),
      (error: unknown) => end(500, `${(error as Error).message}\n`),
    );
  });
  server.maxConnections = CONNECTIONS_MAX;
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new Wrong(`cannot listen on ${address.host}:${address.port}: ${error.message}`)));
    server.listen(address.port, address.host, () => resolve(server));
  });
}

export function urlOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/metrics`;
}
