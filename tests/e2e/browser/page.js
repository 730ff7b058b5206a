// SPDX-License-Identifier: ISC
/* What tests/e2e/test_browser.py calls in a page, and looks at: what each watcher was told, by its name. */
import { watchIssues, watchNotifications } from "./tpi-stream.js";

window.seen = {};
window.shown = [];
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));

window.watch = (name, projectIds, options) => {
	const log = seen[name] = { messages: [], states: [], closed: 0 };
	const told = (message) => log.messages.push(message);
	const all = {
		...options,
		onstate: (state) => log.states.push(state),
		onclosed: () => log.closed++,
	};
	log.stop = projectIds ? watchIssues(projectIds, told, all) : watchNotifications(told, all);
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
