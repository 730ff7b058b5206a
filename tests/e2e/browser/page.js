// SPDX-License-Identifier: ISC
/* What the tests call in a page. `seen` has what each watcher got, by the name of the watcher. */
import * as library from "./tpi-stream.js";

window.seen = {};
window.shown = [];
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));

window.reset = library.reset;

window.watch = (name, ids, options, kind = ids ? "Issues" : "Notifications") => {
	const log = seen[name] = { messages: [], times: [], states: [], closed: 0 };
	const listener = (message) => {
		log.messages.push(message);
		log.times.push(Date.now() / 1000);
	};
	const all = {
		combined: false,
		...options,
		onstate: (state) => log.states.push(state),
		onclosed: () => log.closed++,
	};
	const watchKind = library[`watch${kind}`];
	log.stop = ids ? watchKind(ids, listener, all) : watchKind(listener, all);
};

/* The classes that a page may use without the library, by the name of their package. */
const classes = {
	"native": async () => EventSource,
	"event-source-polyfill": async () => {
		await import("./eventsource.js");
		return EventSourcePolyfill;
	},
	"reconnecting-eventsource": async () => (await import("./reconnecting-eventsource.js")).default,
};

/* As one writes it without the library. */
window.plain = async (name, url, client = "native", options = {}) => {
	const source = new (await classes[client]())(url, options);
	const log = seen[name] = { messages: [], events: [], source };
	source.onmessage = ({ data }) => log.messages.push(JSON.parse(data));
	for (const type of ["open", "error", "evicted", "shutdown"])
		source.addEventListener(type, () => log.events.push(type));
};
