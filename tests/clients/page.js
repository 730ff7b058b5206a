// SPDX-License-Identifier: ISC
/* Runs one of the clients in a page, client.html?client=PACKAGE&url=URL. `lines` has what it reports. WebKitGTK
 * gets it as messages, too. */
const parameters = new URLSearchParams(location.search);
const name = parameters.get("client");
const url = parameters.get("url");

window.lines = [];
const emit = (type, data) => {
	lines.push({ type, data });
	window.webkit?.messageHandlers?.lines?.postMessage(JSON.stringify({ type, data }));
};

const standard = (EventSource) => {
	const source = new EventSource(url);
	for (const type of ["message", "evicted", "shutdown", "open"])
		source.addEventListener(type, ({ data }) => emit(type, data));
	source.onerror = () => emit(source.readyState === 2 ? "closed" : "error");
};

const clients = {
	"native": async () => standard(EventSource),
	"event-source-polyfill": async () => {
		await import("./packages/event-source-polyfill/src/eventsource.js");
		standard(EventSourcePolyfill);
	},
	"reconnecting-eventsource": async () =>
		standard((await import("./packages/reconnecting-eventsource/build/esm/reconnecting-eventsource.js")).default),
	"sse.js": async () => standard((await import("./packages/sse.js/lib/sse.js")).SSE),
	"sse.js, autoReconnect": async () => {
		const { SSE } = await import("./packages/sse.js/lib/sse.js");
		standard(class extends SSE {
			constructor(url) {
				super(url, { autoReconnect: true });
			}
		});
	},
	"fetch-event-source": async () => {
		const { fetchEventSource } = await import("./packages/@microsoft/fetch-event-source/lib/esm/index.js");
		fetchEventSource(url, {
			openWhenHidden: true,
			onmessage: ({ event, data }) => emit(event || "message", JSON.stringify(JSON.parse(data))),
			onerror: () => emit("error"),
		}).then(() => emit("closed"));
	},
	"fetch-event-source, two lines": async () => {
		const { fetchEventSource } = await import("./packages/@microsoft/fetch-event-source/lib/esm/index.js");
		fetchEventSource(url, {
			openWhenHidden: true,
			onmessage: ({ event, data }) => {
				if (!data) return;
				emit(event || "message", JSON.stringify(JSON.parse(data)));
			},
			onclose: () => { throw new Error("closed: reconnect"); },
			onerror: () => emit("error"),
		}).then(() => emit("closed"));
	},
};

await clients[name]();
