// What Node's own parsers and Express take the path of a request for: the answer is a JSON list.
import { createRequire } from 'node:module';
import http from 'node:http';
import url from 'node:url';

const express = createRequire(new URL('../../../deploy/examples/express/server.mjs', import.meta.url))('express');

const readings = [
  (request) => new URL(request.url, 'http://host').pathname,
  (request) => decodeURIComponent(new URL(request.url, 'http://host').pathname),
  (request) => url.parse(request.url).pathname,
  (request) => decodeURIComponent(url.parse(request.url).pathname),
  (request) => decodeURIComponent(request.url.split('?')[0]),
];

const app = express();
app.use((request, response, next) => {
  response.locals.found = readings.flatMap((read) => {
    try {
      return [read(request)];
    } catch {
      return []; // refused by this parser
    }
  });
  response.locals.found.push(request.path);
  next();
});
app.get(/^(.*)$/, (request, response) => response.json([...response.locals.found, request.params[0]]));
app.use((_error, _request, response, _next) => response.json(response.locals.found ?? []));

const server = http.createServer(app).listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
