// SPDX-License-Identifier: ISC
/*
 * A fake page for the tests: EventSource, window, document and timers under the control of the test.
 * Each call of fakePage() reloads the module, because the module holds the streams of its page.
 */
import { mock } from "node:test";

export class FakeEventSource extends EventTarget {
	static CONNECTING = 0;
	static OPEN = 1;
	static CLOSED = 2;
	static all = [];

	readyState = 0;

	constructor(url, { withCredentials = false } = {}) {
		super();
		if (url.includes(" "))
			throw new SyntaxError("no URL");
		Object.assign(this, { url, withCredentials });
		FakeEventSource.all.push(this);
	}

	close() {
		this.readyState = 2;
	}

	event(type, data) {
		this.dispatchEvent(Object.assign(new Event(type), { data }));
	}

	/* An event from the server. */
	data(value) {
		this.readyState = 1;
		this.event("message", typeof value === "string" ? value : JSON.stringify(value));
	}

	sync() {
		this.data({ event: "sync" });
	}

	evict() {
		this.event("evicted", "{}");
		this.end();
	}

	/* The stream ends, with an event or (retry later) without: the browser reconnects by itself. */
	end() {
		if (this.readyState === 2)
			return;
		this.readyState = 0;
		this.event("error");
	}

	/* A response other than 200, to the browser's reconnect if the stream was open. */
	refuse() {
		if (this.readyState === 1)
			this.end();
		this.lose();
	}

	/* The browser does not reconnect. Some do this to an open stream, too. */
	lose() {
		this.readyState = 2;
		this.event("error");
	}
}

/* Counts its listeners, to show that none are left. */
export class FakeTarget extends EventTarget {
	listeners = 0;

	addEventListener(...values) {
		this.listeners++;
		super.addEventListener(...values);
	}

	removeEventListener(...values) {
		this.listeners--;
		super.removeEventListener(...values);
	}

	event(type, fields) {
		this.dispatchEvent(Object.assign(new Event(type), fields));
	}
}

/* Its events reach the window first, where the module listens. */
export function fakeDocument(window) {
	return {
		visibilityState: "visible",
		event: (type) => window.event(type),
	};
}

/* Set until the end of the test. Node.js defines some of them as getters. */
function setGlobal(t, name, value) {
	const before = Object.getOwnPropertyDescriptor(globalThis, name);
	Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
	t.after(() => {
		delete globalThis[name];
		if (before)
			Object.defineProperty(globalThis, name, before);
	});
}

/* The functions by name, with {combined: false} unless their options, the last argument, say more. */
export function separate(functions) {
	return Object.fromEntries(Object.entries(functions).map(([name, original]) => [name, (...values) => {
		const last = original.length - 1;
		values[last] = { combined: false, ...values[last] };
		return original(...values);
	}]));
}

export function pick(object, pattern) {
	return Object.fromEntries(Object.entries(object).filter(([name]) => pattern.test(name)));
}

let loaded = 0;

export async function fakePage(t, globals = {}) {
	const window = new FakeTarget();
	const document = fakeDocument(window);
	const names = { EventSource: FakeEventSource, BroadcastChannel: undefined, window, document, ...globals };

	FakeEventSource.all = [];
	for (const [name, value] of Object.entries(names))
		setGlobal(t, name, value);
	mock.timers.enable({ apis: ["setTimeout"] });
	mock.method(Math, "random", () => 0.5);
	t.after(() => {
		mock.timers.reset();
		mock.restoreAll();
	});

	const library = await import(`../tpi-stream.js?${loaded++}`);
	const page = {
		...separate(pick(library, /^watch/)),
		window,
		document,
		sources: FakeEventSource.all,
		/* Runs everything that does not wait for a timer. */
		settle: () => new Promise((resolve) => setImmediate(resolve)),
		async pass(ms) {
			await page.settle();
			mock.timers.tick(ms);
			await page.settle();
		},
		show(visibilityState) {
			document.visibilityState = visibilityState;
			document.event("visibilitychange");
		},
		open: () => page.sources.filter(({ readyState }) => readyState !== 2),
		last: () => page.sources.at(-1),
		urls: () => page.sources.map(({ url }) => url),
	};
	return page;
}

/* Callbacks for a watcher that record their arguments. */
export function recorder() {
	const seen = { messages: [], states: [], refusals: 0, warnings: [], errors: [] };
	return Object.assign(seen, {
		onWakeup: (message) => void seen.messages.push(message),
		options: {
			onstate: (state) => void seen.states.push(state),
			onclosed: () => void seen.refusals++,
			logger: {
				warn: (...values) => void seen.warnings.push(values),
				error: (...values) => void seen.errors.push(values),
			},
		},
	});
}

export const FIRST = { type: "sync", first: true };
export const LATER = { type: "sync", first: false };
