// Many requests at once over a few kept connections, each with the token of another user. Standard input: {url, tokens: {user: token}}.
// Prints {answers, connections, wrong: [...]}: `wrong` lists every answer that was not meant for its request.
import http from 'node:http';
import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';

const { url, tokens } = JSON.parse(await text(process.stdin));
const agent = new http.Agent({ keepAlive: true, maxSockets: 16 });
const connections = new Set();
const wrong = [];
let answers = 0;

function ask(user, number) {
  return new Promise((resolve, reject) => {
    const body = number % 3 ? Buffer.alloc(number * 100, user) : null;
    const chunked = number % 3 === 2;
    const headers = { 'X-Nonce': String(number) };
    if (number % 10 !== 9) headers.Authorization = `Bearer ${tokens[user]}`;
    if (body && !chunked) headers['Content-Length'] = body.length;
    const request = http.request(`${url}/who`, { agent, method: body ? 'POST' : 'GET', headers }, async (response) => {
      connections.add(response.socket.localPort);
      const answer = JSON.parse(await text(response));
      answers += 1;
      const sha256 = createHash('sha256').update(body ?? '').digest('hex');
      const right = headers.Authorization
        ? response.statusCode === 200 && answer.sub === user && answer.nonce === String(number) && answer.sha256 === sha256
        : response.statusCode === 401 && answer.code === 'token_missing';
      if (!right) wrong.push({ user, number, status: response.statusCode, answer });
      resolve();
    });
    request.on('error', reject);
    request.end(body);
  });
}

const users = Object.keys(tokens);
await Promise.all(Array.from({ length: 600 }, (_, number) => ask(users[number % users.length], number)));
console.log(JSON.stringify({ answers, connections: connections.size, wrong: wrong.slice(0, 5) }));
agent.destroy();
