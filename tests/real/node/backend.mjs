// A backend on Node's own http server, on a free port of loopback; prints its address when it accepts.
import http from 'node:http';
import { createHash } from 'node:crypto';

const waiting = [];

const answers = {
  // Who asks, and the digest of what was sent.
  '/who': (request, response) => {
    const hash = createHash('sha256');
    request.on('data', (chunk) => hash.update(chunk));
    request.on('end', () => {
      const body = JSON.stringify({
        sub: request.headers['x-jwt-sub'] ?? null,
        status: request.headers['x-jwt-status'],
        nonce: request.headers['x-nonce'] ?? null,
        sha256: hash.digest('hex'),
        names: request.rawHeaders.filter((_, at) => at % 2 === 0),
      });
      response.setHeader('Content-Type', 'application/json');
      response.end(body);
    });
  },
  '/trailers': (_request, response) => {
    response.writeHead(200, { Trailer: 'X-Checksum' });
    response.write('hello ');
    response.addTrailers({ 'X-Checksum': 'secret' });
    setTimeout(() => response.end('world'), 20);
  },
  '/hints': (_request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    response.end('hinted');
  },
  // Server-sent events: the next one leaves when somebody asks for it at /next.
  '/events': (request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    let number = 0;
    const next = () => response.write(`id: ${number}\ndata: event ${number++}\n\n`);
    next();
    waiting.push(next);
    request.on('close', () => waiting.splice(waiting.indexOf(next), 1));
  },
  '/next': (_request, response) => {
    waiting.forEach((next) => next());
    response.end(String(waiting.length));
  },
  // Answers each piece of the body as it comes: both bodies flow at once.
  '/converse': (request, response) => {
    response.writeHead(200);
    request.on('data', (chunk) => response.write(`got ${chunk}`));
    request.on('end', () => response.end('end'));
  },
  // Answers before the body has come, and never reads it.
  '/early': (_request, response) => {
    response.writeHead(403, { Connection: 'close' });
    response.end('no');
  },
  '/crash': (request) => request.socket.destroy(),
  '/cookies': (_request, response) => {
    response.setHeader('Set-Cookie', ['a=1; HttpOnly', 'b=2, with a comma']);
    response.end();
  },
};

const server = http.createServer((request, response) => {
  const answer = answers[request.url.split('?')[0]];
  if (answer) answer(request, response);
  else response.writeHead(404).end();
});
server.keepAliveTimeout = 300; // ms; shorter than the sidecar keeps its connections, so that Node hangs up first
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
console.log(`http://127.0.0.1:${server.address().port}`);
process.on('SIGTERM', () => process.exit(0));
