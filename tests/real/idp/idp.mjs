// An OpenID-certified authorization server (npm oidc-provider) on a free port of loopback. Its one key set holds a key of
// each kind; the client chooses the algorithm by the `resource` that it asks a token for: urn:api:RS256, urn:api:EdDSA, ...
// Prints the issuer on one line when it accepts. POST /rotate replaces every key.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import http from 'node:http';
import Provider from 'oidc-provider';

const KEY_TYPES = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};
const algorithmOf = (resource) => resource.split(':').at(-1);

function newKeys() {
  return Object.entries(KEY_TYPES).map(([alg, [type, options]]) => {
    const { privateKey } = generateKeyPairSync(type, options);
    return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: randomUUID() };
  });
}

function provider(issuer) {
  return new Provider(issuer, {
    jwks: { keys: newKeys() },
    clients: [{
      client_id: 'orders-client',
      client_secret: 'test-only',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }],
    extraTokenClaims: () => ({ name: 'Jörg', tenant: { id: 7 } }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          audience: 'orders-api',
          scope: 'orders.read orders.write',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: algorithmOf(resource) } },
        }),
      },
    },
  }).callback();
}

let answer;
const server = http.createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/rotate') {
    answer = provider(issuer);
    response.writeHead(204).end();
  } else {
    answer(request, response);
  }
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
answer = provider(issuer);
console.log(issuer);
