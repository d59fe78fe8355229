// An OpenID provider on a loopback port of its own: `node provider.mjs` in a directory with
// node_modules. One JSON line of options comes over standard input and one with the issuer goes
// out; then one command a line, each answered by a line. It ends with its standard input.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.cwd()}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

console.info = console.warn = (...words) => console.error(...words);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

function newKeys() {
  const made = [
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
    generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    generateKeyPairSync('ed25519'),
  ];
  return made.map(({ privateKey }) => ({
    ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig',
  }));
}

function newProvider(issuer, options, keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: options.clients,
    cookies: { keys: [randomUUID()] },
    scopes: ['openid', 'offline_access', 'compile'],
    claims: { openid: ['sub'] },
    ttl: { ...options.ttl, Grant: 3600, Interaction: 600, Session: 600 },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    // A public client's refresh tokens are used once; the second use ends the whole login.
    rotateRefreshToken: true,
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'openid offline_access compile',
          audience: resource,
          accessTokenTTL: options.ttl.AccessToken,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
        useGrantedResource: () => true,
      },
    },
  });
  // RFC 8628: without an interval the client asks every five seconds.
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === 'device_authorization') ctx.body = { ...ctx.body, interval: 1 };
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  return provider;
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const options = JSON.parse((await lines.next()).value);
let handler;
const asked = {};
const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://x').pathname;
  asked[path] = (asked[path] ?? 0) + 1;
  handler(request, response);
});
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const issuer = `http://127.0.0.1:${server.address().port}`;

function serve() {
  const keys = newKeys();
  handler = newProvider(issuer, options, keys).callback();
  return keys.map((k) => k.kid);
}

serve();
say({ issuer });
for await (const line of lines) {
  const command = JSON.parse(line);
  if (command.do === 'rotate') say({ kids: serve() });
  else if (command.do === 'asked') say(asked);
  else say({ error: `no ${command.do}` });
}
server.closeAllConnections();
server.close();
