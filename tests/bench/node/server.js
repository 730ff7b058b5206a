// SPDX-License-Identifier: ISC
// Event streams as a Node.js application serves them: an ioredis subscriber connection for each
// stream, and each event written as it arrives. A peer of tpi-streamd in the benchmark.
//
//   node server.js LISTEN-PATH VALKEY-PATH TENANT
//
// The header X-User names the user; an application would know the user from the session.
"use strict";

const http = require("node:http");
const Redis = require("ioredis");

const HEARTBEAT_MS = 25000;
const [listenPath, valkeyPath, tenant] = process.argv.slice(2);

async function serve(request, response) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname !== "/api/notifications/stream") {
    response.writeHead(404).end();
    return;
  }
  const user = request.headers["x-user"];
  const subscriber = new Redis(valkeyPath);
  subscriber.on("error", (error) => console.error(error.message));
  request.on("close", () => subscriber.disconnect());
  await subscriber.subscribe(
    `notifications:tenant:${tenant}:user:${user}`,
    `notifications:tenant:${tenant}:broadcast`,
  );
  response.writeHead(200, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
  });
  response.write('data: {"event":"sync"}\n\n');
  subscriber.on("message", (_channel, payload) => response.write(`data: ${payload}\n\n`));
  const heartbeat = setInterval(() => response.write(": ping\n"), HEARTBEAT_MS);
  request.on("close", () => clearInterval(heartbeat));
}

const server = http.createServer((request, response) => {
  // A browser that closes the connection while its stream is being opened is not an error.
  serve(request, response).catch(() => response.destroy());
});
server.listen({ path: listenPath, backlog: 4096 });
process.on("SIGTERM", () => process.exit(0));
