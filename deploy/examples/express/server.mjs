// npm ci && node server.mjs
import express from 'express';

// Percent-encoded UTF-8, null without the claim.
const text = (header) => (header === undefined ? null : decodeURIComponent(header));
const claims = (header) => JSON.parse(Buffer.from(header, 'base64url').toString('utf8'));

const app = express();

// Only a request that came through the sidecar with a valid token has this status.
app.use((request, response, next) => {
  if (request.get('X-JWT-Status') === 'verified') next();
  else response.status(403).json({ error: 'Not verified' });
});

app.get('/protected', (request, response) => {
  const user = claims(request.get('X-JWT-Claims'));
  response.json({ message: 'Access granted', sub: text(request.get('X-JWT-Sub')), user });
});

// Loopback: only this pod or host can reach it. The sidecar keeps idle connections for 75 s; Node keeps them
// longer, so that it does not close them first.
const server = app.listen(process.env.PORT ?? 9292, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
server.keepAliveTimeout = 90_000; // ms
