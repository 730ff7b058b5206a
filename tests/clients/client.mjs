// SPDX-License-Identifier: ISC
/* Runs one of npm's EventSource clients in Node.js, and prints what it reports as lines of JSON:
 *
 *	node client.mjs PACKAGE URL
 *
 * Each is used as its documentation shows, without options.
 */
const [, , name, url] = process.argv;

const emit = (type, data) => console.log(JSON.stringify({ type, data }));

const standard = (EventSource) => {
	const source = new EventSource(url);
	for (const type of ["message", "evicted", "shutdown", "open"])
		source.addEventListener(type, ({ data }) => emit(type, data));
	source.onerror = () => emit(source.readyState === 2 ? "closed" : "error");
	source.addEventListener("closed", () => emit("closed"));
};

const clients = {
	"eventsource-2": async () => standard((await import("eventsource-2")).default),
	"eventsource-3": async () => standard((await import("eventsource-3")).EventSource),
	"eventsource-4": async () => standard((await import("eventsource-4")).EventSource),
	"undici": async () => standard((await import("undici")).EventSource),
	"launchdarkly-eventsource": async () => standard((await import("launchdarkly-eventsource")).EventSource),
	"eventsource-client": async () => {
		const { createEventSource } = await import("eventsource-client");
		createEventSource({
			url,
			onMessage: ({ event, data }) => emit(event ?? "message", data),
			onConnect: () => emit("open"),
			onDisconnect: () => emit("error"),
		});
	},
	"event-source-plus": async () => {
		const { EventSourcePlus } = await import("event-source-plus");
		new EventSourcePlus(url).listen({
			onMessage: ({ event, data }) => emit(event || "message", data),
			onResponse: () => emit("open"),
			onResponseError: () => emit("error"),
			onRequestError: () => emit("error"),
		});
	},
};

await clients[name]();
setInterval(() => {}, 1000);
