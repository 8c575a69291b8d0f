// `serve`: a backend on HTTP/2 and HTTP/1.1 without TLS, on a free port of loopback; prints its address when it accepts. It answers
// with what it saw; a call of gRPC gets its message back, and its status in trailers, a WebSocket its bytes.
// `call URL HEADERS BODY`: one request, its body in hex, over HTTP/2; prints status, headers, body and trailers.
import { createHash } from 'node:crypto';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';

const [, , what, ...rest] = process.argv;

if (what === 'serve') {
  const pairs = (raw) => raw.flatMap((name, at) => (at % 2 ? [] : [[name, raw[at + 1]]]));
  const modern = http2.createServer();
  modern.on('stream', (stream, headers, _flags, raw) => {
    const seen = pairs(raw);
    if (headers['content-type'] === 'application/grpc') {
      const chunks = [];
      stream.on('data', (chunk) => chunks.push(chunk));
      stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'x-seen': JSON.stringify(seen) }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.on('end', () => stream.end(Buffer.concat(chunks)));
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/json' });
    stream.end(JSON.stringify(seen));
  });
  const plain = http.createServer((request, response) => {
    request.resume();
    const seen = [[':method', request.method], [':path', request.url], ...pairs(request.rawHeaders)];
    request.on('end', () => response.end(request.method === 'HEAD' ? '' : JSON.stringify(seen)));
  });
  plain.on('upgrade', (request, socket) => {
    const accepted = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`);
    socket.write(`Sec-WebSocket-Accept: ${accepted}\r\nX-Seen: ${JSON.stringify(pairs(request.rawHeaders))}\r\n\r\n`);
    socket.pipe(socket);
  });
  for (const each of [modern, plain]) each.listen(0, '127.0.0.1');
  const server = net.createServer((socket) => {
    socket.once('data', (first) => {
      const inner = net.connect((first.toString('latin1').startsWith('PRI') ? modern : plain).address().port, '127.0.0.1');
      inner.write(first);
      socket.pipe(inner).pipe(socket);
      inner.on('error', () => socket.destroy());
      socket.on('error', () => inner.destroy());
    });
  });
  server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
  process.on('SIGTERM', () => process.exit());
} else {
  const [url, headers, body] = rest;
  const { origin, pathname } = new URL(url);
  const session = http2.connect(origin);
  const stream = session.request({ ':path': pathname, ...JSON.parse(headers) }, { endStream: false });
  const told = { body: '' };
  stream.on('response', (answer) => Object.assign(told, { status: answer[':status'], headers: answer }));
  stream.on('trailers', (trailers) => Object.assign(told, { trailers }));
  stream.setEncoding('latin1');
  stream.on('data', (chunk) => (told.body += chunk));
  stream.on('end', () => { console.log(JSON.stringify(told)); session.close(); });
  stream.end(Buffer.from(body, 'hex'));
}
