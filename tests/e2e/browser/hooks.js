// SPDX-License-Identifier: ISC
/*
 * A page that opens plain EventSources as the hooks of TestPlanIt do, and knows nothing of tpi-stream: one for each
 * topic, two for notifications, with onmessage, onerror and close().
 */
"use strict";

const NativeEventSource = window.EventSource;	/* whatever it is when the first script of the page runs */
window.seen = {};
window.shown = [];
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));

window.hook = (name, url) => {
	const source = new EventSource(url);
	const log = seen[name] = { messages: [], errors: 0, times: [], source };
	source.onmessage = ({ data }) => {
		log.messages.push(data);
		log.times.push(Date.now() / 1000);
	};
	source.onerror = () => log.errors++;
	log.stop = () => source.close();
};

window.hooks = (id) => {
	hook("bell", "/api/notifications/stream");
	hook("alerts", "/api/notifications/stream");
	hook("issues", `/api/issues/stream?projectIds=7,${id}`);
	hook("run", "/api/test-runs/7/stream");
	hook("runs", "/api/projects/7/test-runs/stream");
	hook("milestone", "/api/milestones/7/stream");
	hook("milestones", "/api/projects/7/milestones/stream");
};

/* How long a request of this page takes, up to a second. */
window.ping = () => {
	const start = performance.now();
	return Promise.race([
		fetch("/ping.txt", { cache: "no-store" }).then(() => performance.now() - start),
		new Promise((resolve) => setTimeout(resolve, 1000, "hangs")),
	]);
};

/* Everything that a page can observe of an interface: the members of an object and of its prototypes. */
window.describe = (object) => {
	const members = {};
	for (let from = object; from && from !== Object.prototype; from = Object.getPrototypeOf(from))
		for (const key of Reflect.ownKeys(from)) {
			const { value, get, set, ...flags } = Object.getOwnPropertyDescriptor(from, key);
			members[String(key)] ??= { ...flags,
				...(get || set ? { get: signature(get), set: signature(set) } :
				    { value: typeof value === "function" ? signature(value) :
				    typeof value === "object" ? String(value) : value }) };
		}
	return members;
};

function signature(value) {
	return value && `${value.name}/${value.length}`;
}

function attempt(action) {
	try {
		return String(action());
	} catch (error) {
		return `${error.constructor.name} ${error.name}`;
	}
}

/* What a class does with arguments, good and bad. `good` is a URL. */
window.construct = (good) => Object.fromEntries(Object.entries({
	call: () => EventSource(good),
	none: () => new EventSource(),
	invalid: () => new EventSource("http://[x"),
	symbol: () => new EventSource(Symbol("x")),
	number: () => new EventSource(good, 5),
	text: () => new EventSource(good, "x"),
	nothing: () => new EventSource(good, null).withCredentials,
	truthy: () => new EventSource(good, { withCredentials: 1 }).withCredentials,
	object: () => new EventSource(new URL(good, location.href)).url,
	text2: () => new EventSource(good),
	constant: () => EventSource.OPEN = 5,
	tag: () => new EventSource(good)[Symbol.toStringTag],
	"class": () => new EventSource(good).constructor === EventSource,
	"instance": () => new EventSource(good) instanceof EventSource && new EventSource(good) instanceof EventTarget,
	"url": () => { new EventSource(good).url = "x"; },
	foreign: () => Object.getOwnPropertyDescriptor(proto(good, "url"), "url").get.call({}),
	foreign2: () => proto(good, "close").close.call({}),
}).map(([name, action]) => [name, attempt(action)]));

/* The prototype that has a member. */
function proto(good, name) {
	let from = new EventSource(good);
	while (!Object.hasOwn(from, name))
		from = Object.getPrototypeOf(from);
	return from;
}

/* What an event looks like to a listener. */
window.fields = (event) => {
	const all = {};
	for (const name in event) {
		const value = event[name];
		if (!["timeStamp", "isTrusted"].includes(name))
			all[name] = typeof value === "function" ? "function" : Array.isArray(value) ? value.length :
			    value === event.target && value !== null && typeof value === "object" ? "target" : String(value);
	}
	return { class: event.constructor.name, ...all };
};

/* Opens a stream and describes what comes up to the first message: the events, and the state in each of them. */
window.first = (url) => new Promise((resolve) => {
	const source = new EventSource(url);
	const steps = [["new", source.readyState, source.url, source.withCredentials]];
	source.onopen = (event) => steps.push([source.readyState, fields(event)]);
	source.onmessage = (event) => {
		steps.push([source.readyState, fields(event)]);
		source.close();
		steps.push(["closed", source.readyState]);
		resolve(steps);
	};
});
