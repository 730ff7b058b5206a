// SPDX-License-Identifier: ISC
/*
 * A fake browser with several tabs of one origin, for the tests: each tab has its own copy of the
 * module, page and EventSource; locks, channels and the clock are shared, and under the control of the
 * test.
 */
import { readFileSync } from "node:fs";
import { mock } from "node:test";
import { FakeEventSource, FakeTarget, fakeDocument, recorder } from "./fakes.js";

const source = readFileSync(new URL("../tpi-stream.js", import.meta.url), "utf8");
const NAMES = [...source.matchAll(/^export (?:function|const) (\w+)/gm)].map(([, name]) => name);

/* Not the module loader, which would give every tab the same globals. */
function load({ version = 1, ...globals }) {
	const text = source.replace('"tpi-stream/1"', `"tpi-stream/${version}"`);
	const body = `${text.replace(/^export /gm, "")}\nreturn { ${NAMES.join(", ")} };`;
	return new Function("globalThis", ...Object.keys(globals), body)(globals, ...Object.values(globals));
}

/* The Web Locks API: https://w3c.github.io/web-locks/ */
class FakeLocks {
	queue = [];	/* requests; the first one for each name holds the lock once it is granted */

	request(tab, name, { signal }, callback) {
		return new Promise((resolve, reject) => {
			const entry = { tab, name, callback, resolve, reject };
			this.queue.push(entry);
			signal.addEventListener("abort", () => {
				if (entry.held)
					return;
				this.remove(entry);
				reject(signal.reason);
			});
			queueMicrotask(() => this.grant());
		});
	}

	grant() {
		const seen = new Set();
		for (const entry of [...this.queue]) {
			if (!seen.has(entry.name) && !entry.held) {
				entry.held = true;
				/* A task of its own: the request may be aborted in between, and keeps the lock. */
				Promise.resolve().then(() => entry.callback({ name: entry.name })).then(
				    entry.resolve, entry.reject).finally(() => this.remove(entry));
			}
			seen.add(entry.name);
		}
	}

	remove(entry) {
		this.queue = this.queue.filter((other) => other !== entry);
		queueMicrotask(() => this.grant());
	}

	/* A tab is gone: its requests are, too. */
	forget(tab) {
		this.queue.filter((entry) => entry.tab === tab).forEach((entry) => this.remove(entry));
	}

	leader() {
		return this.queue.find(({ held }) => held)?.tab;
	}
}

class Tab {
	channels = new Set();
	waiting = [];		/* messages and timers that came while the tab was frozen */
	running = true;

	constructor(browser, globals) {
		const tab = this;
		this.browser = browser;
		this.window = new FakeTarget();
		this.document = fakeDocument(this.window);
		this.partition = globals.partition ?? "";
		this.globals = {
			window: this.window,
			document: this.document,
			navigator: { locks: { request: (...values) => browser.locks(this).request(this, ...values) } },
			EventSource: class extends FakeEventSource {
				tab = tab;
			},
			BroadcastChannel: class {
				constructor(name) {
					this.name = name;
					tab.channels.add(this);
				}
				postMessage(message) {
					browser.post(tab, this, structuredClone(message));
				}
				close() {
					tab.channels.delete(this);
				}
			},
			setTimeout: (action, ms) => setTimeout(() => this.run(action), ms),
			...globals,
		};
		Object.assign(this, load(this.globals));
	}

	run(action) {
		if (this.running)
			action();
		else
			this.waiting?.push(action);
	}

	/* Watches, and records what the watcher gets. */
	watch(kind, ids, options) {
		const seen = recorder();
		const name = `watch${kind}`;
		const all = { combined: true, ...seen.options, ...options };
		seen.stop = ids ? this[name](ids, seen.onWakeup, all) : this[name](seen.onWakeup, all);
		return seen;
	}

	/* The page stops without notice, and its connections stay. */
	halt() {
		this.running = false;
	}

	thaw() {
		this.running = true;
		this.waiting.splice(0).forEach((action) => action());
	}

	/* The process of the page is gone. */
	crash() {
		this.running = false;
		this.waiting = null;
		this.browser.sources.filter(({ tab }) => tab === this).forEach((each) => each.close());
		this.channels.clear();
		this.browser.locks(this).forget(this);
	}

	hide() {
		this.window.event("pagehide", { persisted: true });
	}

	show() {
		this.window.event("pageshow", { persisted: true });
	}
}

export class FakeBrowser {
	tabs = [];
	posted = [];		/* every message that a tab has sent */
	lockManagers = new Map();

	constructor(t) {
		FakeEventSource.all = [];
		this.sources = FakeEventSource.all;
		mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
		/* Half of any delay, and other ids for other tabs. */
		let count = 0;
		mock.method(Math, "random", () => 0.5 + count++ / 1e9);
		t.after(() => {
			mock.timers.reset();
			mock.restoreAll();
		});
	}

	tab(globals = {}) {
		const tab = new Tab(this, globals);
		this.tabs.push(tab);
		return tab;
	}

	/* Each storage partition has its own locks and channels. */
	locks({ partition }) {
		if (!this.lockManagers.has(partition))
			this.lockManagers.set(partition, new FakeLocks());
		return this.lockManagers.get(partition);
	}

	post(from, channel, message) {
		this.posted.push(message);
		for (const tab of this.tabs)
			for (const other of tab.channels)
				if (other !== channel && other.name === channel.name && tab.partition === from.partition)
					queueMicrotask(() => tab.run(() =>
					    tab.channels.has(other) && other.onmessage?.({ data: structuredClone(message) })));
	}

	/* Runs everything that does not wait for a timer. */
	settle() {
		return new Promise((resolve) => setImmediate(resolve));
	}

	/* In steps, because a message may start a timer. */
	async pass(ms, step = 50) {
		await this.settle();
		for (let left = ms; left > 0; left -= step) {
			mock.timers.tick(Math.min(step, left));
			await this.settle();
		}
	}

	leader(tab = { partition: "" }) {
		return this.locks(tab).leader();
	}

	open() {
		return this.sources.filter(({ readyState }) => readyState !== 2);
	}

	last() {
		return this.sources.at(-1);
	}

	urls() {
		return this.sources.map(({ url }) => url);
	}

	/* What a daemon does: each stream that is not live yet gets its sync. */
	async sync() {
		for (const each of this.open())
			if (each.readyState === 0)
				each.sync();
		await this.settle();
	}

	/* A wake-up, on each live stream that carries its topic. */
	async wakeup(topic, data) {
		for (const each of this.open())
			if (each.readyState === 1 && carries(each.url, topic))
				each.event(topic, JSON.stringify(data));
		await this.settle();
	}
}

function carries(url, topic) {
	const [kind, id = "1"] = topic.split(":");
	const ids = new URL(url, "http://localhost").searchParams.get(kind);
	return !!ids && ids.split(",").includes(id);
}
