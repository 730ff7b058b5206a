// SPDX-License-Identifier: ISC
/* Publishes messages with one of the Valkey clients of npm:
 *
 *	node publish.mjs PACKAGE PORT <messages
 *
 * Each line of the input is a JSON array of a channel and a payload.
 */
import { readFileSync } from "node:fs";

const [, , name, port] = process.argv;
const messages = readFileSync(0, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));
const url = `redis://127.0.0.1:${port}`;

const publishAll = async (client) => {
	for (const [channel, payload] of messages)
		await client.publish(channel, payload);
};

const likeIoredis = async (Client) => {
	const client = new Client(url);
	await publishAll(client);
	await client.quit();
};

const likeNodeRedis = async ({ createClient }, options = {}) => {
	const client = await createClient({ url, ...options }).connect();
	await publishAll(client);
	await client.quit();
};

const clients = {
	"ioredis-5": async () => likeIoredis((await import("ioredis-5")).default),
	"ioredis": async () => likeIoredis((await import("ioredis")).default),
	"iovalkey": async () => likeIoredis((await import("iovalkey")).default),
	"redis-4": async () => likeNodeRedis(await import("redis-4")),
	"redis-5": async () => likeNodeRedis(await import("redis-5")),
	"redis-5, RESP3": async () => likeNodeRedis(await import("redis-5"), { RESP: 3 }),
	"redis-6": async () => likeNodeRedis(await import("redis-6"), { RESP: 2 }),
	"redis-6, RESP3": async () => likeNodeRedis(await import("redis-6"), { RESP: 3 }),
	"@valkey/valkey-glide": async () => {
		const { GlideClient } = await import("@valkey/valkey-glide");
		const client = await GlideClient.createClient({ addresses: [{ host: "127.0.0.1", port: Number(port) }] });
		for (const [channel, payload] of messages)
			await client.publish(payload, channel);	// the message comes first here
		client.close();
	},
	/* As TestPlanIt's workers do it: a job publishes through the connection of the queues. */
	"bullmq": async () => {
		const { Queue, Worker } = await import("bullmq");
		const { default: Redis } = await import("ioredis");
		const connection = new Redis(url, { maxRetriesPerRequest: null });
		const queue = new Queue("wake-ups", { connection });
		const worker = new Worker("wake-ups", async ({ data: [channel, payload] }) => {
			await connection.publish(channel, payload);
		}, { connection });
		const left = new Set();
		const done = new Promise((resolve, reject) => {
			worker.on("completed", (job) => {
				left.delete(job.data[1] + job.data[0]);
				if (!left.size)
					resolve();
			});
			worker.on("failed", (job, error) => reject(error));
		});
		messages.forEach(([channel, payload]) => left.add(payload + channel));
		await queue.addBulk(messages.map((data) => ({ name: "wake-up", data })));
		await done;
		await worker.close();
		await queue.close();
		await connection.quit();
	},
};

await clients[name]();
