// `serve`: a backend on HTTP/2 without TLS, on a free port of loopback; prints its address when it accepts. It answers with what
// it saw; a call of gRPC gets its message back, and its status in trailers.
// `call URL HEADERS BODY`: one request, its body in hex, over HTTP/2; prints status, headers, body and trailers.
import http2 from 'node:http2';

const [, , what, ...rest] = process.argv;

if (what === 'serve') {
  const server = http2.createServer();
  server.on('stream', (stream, headers, _flags, raw) => {
    const seen = [];
    for (let at = 0; at < raw.length; at += 2) seen.push([raw[at], raw[at + 1]]);
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
