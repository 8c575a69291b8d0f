// node verify.mjs JOSE JWKS_URI ISSUER AUDIENCE ALGORITHM < token: its claims, verified by jose (the package in the folder JOSE).
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [jose, jwksUri, issuer, audience, algorithm] = process.argv.slice(2)
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(`${jose}/dist/webapi/index.js`))
const keys = createRemoteJWKSet(new URL(jwksUri))
const token = readFileSync(0, 'utf8')
const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms: [algorithm] })
console.log(JSON.stringify(payload))
