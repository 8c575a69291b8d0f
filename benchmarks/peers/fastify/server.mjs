// The proxy that a Node team would write: verify with fast-jwt (cache on), forward with @fastify/http-proxy.
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import httpProxy from '@fastify/http-proxy'
import { createVerifier } from 'fast-jwt'
import fastify from 'fastify'

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'))

const { keys } = await (await fetch(config.jwksUri)).json()
const verify = createVerifier({
  key: createPublicKey({ key: keys[0], format: 'jwk' }).export({ type: 'spki', format: 'pem' }),
  algorithms: [config.algorithm],
  allowedIss: config.issuer,
  allowedAud: config.audience,
  requiredClaims: ['iss', 'aud', 'exp'],
  clockTolerance: config.clockSkewMs,
  cache: 10000
})

const server = fastify({ logger: config.accessLog, bodyLimit: 2 ** 31 - 1 })
server.decorateRequest('claims', null)
await server.register(httpProxy, {
  upstream: config.upstream,
  preHandler (request, reply, done) {
    const value = request.headers.authorization
    try {
      if (!value?.startsWith('Bearer ')) throw new Error('no token')
      request.claims = verify(value.slice(7))
      done()
    } catch {
      reply.code(401).send({ error: 'Invalid token' })
    }
  },
  replyOptions: {
    rewriteRequestHeaders (request, { authorization, ...headers }) {
      for (const [header, claim] of Object.entries(config.claimHeaders)) headers[header] = request.claims[claim]
      return headers
    }
  }
})
await server.listen({ host: '127.0.0.1', port: config.port })
