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

/* As one writes it without the library. */
window.plain = (name, url) => {
	const source = new EventSource(url);
	const log = seen[name] = { messages: [], events: [], source };
	source.onmessage = ({ data }) => log.messages.push(JSON.parse(data));
	for (const type of ["open", "error", "evicted", "shutdown"])
		source.addEventListener(type, () => log.events.push(type));
};
