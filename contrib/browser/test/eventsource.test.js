// SPDX-License-Identifier: ISC
/*
 * The replacement for EventSource, in a fake browser. Requires only Node.js.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FakeEventSource } from "../testing/fakes.js";
import { FakeBrowser } from "../testing/tabs.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const script = readFileSync(`${root}/eventsource.js`, "utf8");
const ORIGIN = "https://site.example";
const SYNC = '{"event":"sync"}';
const WAKEUP = '{ "event":"issue-updated",  "issueId":1,"projectId":7, "more":[1.0] }';
const ISSUES = "/api/issues/stream?projectIds=7";
const stream = (query) => `/api/stream?${query}`;

/* Several tasks, in each of which all microtasks run. */
async function idle() {
	for (let i = 0; i < 20; i++)
		await new Promise((resolve) => setImmediate(resolve));
}

/* A tab whose page has loaded the script. `user` is who the application says is signed in. */
function page(browser, { user = "ann", ...globals } = {}) {
	const tab = browser.tab(globals);
	const all = {
		...tab.globals,
		origin: ORIGIN,
		location: new URL(`${ORIGIN}/projects/7`),
		document: { ...tab.document, baseURI: `${ORIGIN}/projects/7` },
		fetch: async (...values) => {
			tab.fetched.push(values);
			return { json: async () => (tab.user ? { user: { id: tab.user } } : {}) };
		},
		MessageChannel: class {
			port1 = {};
			port2 = { postMessage: () => setImmediate(() => tab.run(() => this.port1.onmessage({}))) };
		},
		...globals,
	};
	const native = all.EventSource;
	Object.assign(tab, { user, fetched: [], native });
	new Function("globalThis", ...Object.keys(all), script)(all, ...Object.values(all));
	tab.EventSource = all.EventSource;
	tab.open = (url = ISSUES, options) => record(new tab.EventSource(url, options));
	return tab;
}

/* An EventSource, and what it dispatches: [type, data, readyState]. */
function record(source) {
	const seen = { source, events: [] };
	for (const type of ["open", "message", "error", "shutdown", "evicted"])
		source.addEventListener(type, (event) => seen.events.push([type, event.data, source.readyState]));
	seen.close = () => source.close();
	seen.types = () => seen.events.map(([type]) => type).join();
	seen.clear = () => seen.events.splice(0);
	return seen;
}

/* Every stream that is open gets its sync. */
async function settle(browser) {
	await idle();
	await browser.pass(250);
	await browser.sync();
	await idle();
}

/* Tabs that have opened one stream of issues each, of project 7. */
async function sharing(t, count = 2) {
	const browser = new FakeBrowser(t);
	const tabs = Array.from({ length: count }, () => page(browser));
	const seen = tabs.map((tab) => tab.open());
	await settle(browser);
	assert.deepEqual(browser.urls(), [stream("issues=7")]);
	for (const each of seen) {
		assert.equal(each.types(), "open,message");
		each.clear();
	}
	return { browser, tabs, seen };
}

async function publish(browser, topic, text) {
	browser.last().event(topic, text);
	await idle();
}

test("eventsource.js is what build.sh makes of its parts", () => {
	assert.equal(script, execFileSync("sh", [`${root}/build.sh`], { encoding: "utf8" }),
	    "run ./build.sh > eventsource.js");
});

/* ---- What is replaced */

const SHARED = {
	"/api/notifications/stream": "notifications=1",
	"/api/issues/stream?projectId=7": "issues=7",
	"/api/issues/stream?projectIds=7,8,7": "issues=7,8",
	"/api/issues/stream?projectIds=7%2C8": "issues=7,8",
	"/api/issues/stream?projectIds=7&other=1#hash": "issues=7",
	[`${ORIGIN}/api/issues/stream?projectId=7`]: "issues=7",
	"../api/issues/stream?projectId=7": "issues=7",
	"/api/test-runs/42/stream": "testRuns=42",
	"/api/projects/7/test-runs/stream": "projectTestRuns=7",
	"/api/milestones/9/stream": "milestones=9",
	"/api/projects/7/milestones/stream": "projectMilestones=7",
};
for (const [url, query] of Object.entries(SHARED))
	test(`${url} is shared`, async (t) => {
		const browser = new FakeBrowser(t);
		const { source } = page(browser).open(url);
		await settle(browser);
		assert.deepEqual(browser.urls(), [stream(query)]);
		assert.equal(source.url, new URL(url, `${ORIGIN}/projects/7`).href);
		assert.equal(source.readyState, 1);
		assert.equal(source.constructor, browser.tabs[0].EventSource);
	});

for (const url of [
	"/api/stream?issues=7", "/api/issues/stream", "/api/issues/stream?projectIds=", "/api/issues/stream?projectIds=07",
	"/api/issues/stream?projectIds=7,", "/api/issues/stream?projectId=7,8", "/api/issues/stream?projectId=7&projectIds=8",
	"/api/issues/stream?projectId=7&projectId=8", "/api/issues/stream?projectId=2147483648",
	`/api/issues/stream?projectIds=${Array.from({ length: 501 }, (_, i) => i + 1)}`,
	"/api/notifications/stream/", "/api/notifications/stream?lastEventId=evicted", "/x/api/notifications/stream",
	"/api/test-runs/0/stream", "/api/test-runs/x/stream", "/api/test-runs/7/8/stream",
	"https://other.example/api/notifications/stream", "http://site.example/api/notifications/stream",
	"https://site.example:8443/api/notifications/stream", "https://u@site.example/api/notifications/stream",
	"/events", "data:text/event-stream,",
])
	test(`${url.slice(0, 80)} is left to the browser`, async (t) => {
		const browser = new FakeBrowser(t);
		const tab = page(browser);
		const source = new tab.EventSource(url, { withCredentials: true });
		assert.equal(Object.getPrototypeOf(source), tab.native.prototype);
		assert.deepEqual([source.url, source.withCredentials], [url, true]);
		await idle();
		assert.deepEqual(tab.fetched, []);
	});

const broken = () => {
	throw new Error("not here");
};
for (const [name, globals] of Object.entries({
	"Web Locks": { navigator: {} },
	"a navigator": { navigator: undefined },
	"BroadcastChannel": { BroadcastChannel: undefined },
	"URL.canParse": { URL: class {} },
	"MessageChannel, which throws": { MessageChannel: broken },
}))
	test(`without ${name} the browser's own EventSource stays`, (t) => {
		const browser = new FakeBrowser(t);
		let tab;
		try {
			tab = page(browser, { EventSource: FakeEventSource, ...globals });
		} catch (error) {
			assert.ok(error instanceof Error);
			tab = browser.tabs[0];
			tab.EventSource = tab.globals.EventSource;
		}
		assert.equal(tab.EventSource, FakeEventSource);
		assert.equal(FakeEventSource.prototype.constructor, FakeEventSource);
	});

test("without EventSource nothing is installed", (t) => {
	const tab = page(new FakeBrowser(t), { EventSource: undefined });
	assert.equal(tab.EventSource, undefined);
});

test("the tag removes itself, so that the page is as the application sent it", (t) => {
	let removed = 0;
	const browser = new FakeBrowser(t);
	const document = { currentScript: { remove: () => removed++ }, baseURI: ORIGIN };
	page(browser, { document });
	assert.equal(removed, 1);
});

test("a class that extends EventSource is left to the browser", (t) => {
	const tab = page(new FakeBrowser(t));
	class Mine extends tab.EventSource {}
	const source = new Mine(ISSUES);
	assert.ok(source instanceof Mine && source instanceof tab.native);
	assert.equal(source.url, ISSUES);
});

test("the URL and the options are converted once, and errors of a conversion are thrown", async (t) => {
	const browser = new FakeBrowser(t);
	const tab = page(browser);
	const calls = [];
	const url = { toString: () => (calls.push("url"), ISSUES) };
	const options = { get withCredentials() {
		return calls.push("options"), 1;
	} };
	const { source } = tab.open(url, options);
	assert.deepEqual(calls, ["url", "options"]);
	assert.equal(source.withCredentials, true);
	assert.throws(() => tab.open({ toString: broken }), /not here/);
	assert.throws(() => tab.open(Symbol("x")), TypeError);
	assert.equal(tab.open(ISSUES, null).source.withCredentials, false);
	assert.equal(Object.getPrototypeOf(tab.open(ISSUES, Object).source) === tab.native.prototype, false);
});

/* ---- Events */

test("open, the sync, and wake-ups byte for byte, in every tab, on one stream", async (t) => {
	const { browser, seen: [a, b] } = await sharing(t);
	await publish(browser, "issues:7", WAKEUP);
	await publish(browser, "issues:7", "not JSON");
	for (const { events } of [a, b])
		assert.deepEqual(events, [["message", WAKEUP, 1], ["message", "not JSON", 1]]);
	assert.equal(browser.open().length, 1);
});

test("events have the classes and fields of the browser's own", async (t) => {
	const browser = new FakeBrowser(t);
	const { source } = page(browser).open();
	const events = [];
	for (const type of ["open", "message", "error"])
		source[`on${type}`] = (event) => events.push(event);
	await settle(browser);
	browser.last().end();
	await idle();
	const [open, message, error] = events;
	for (const event of events)
		assert.deepEqual([event.target, event.bubbles, event.cancelable], [source, false, false]);
	assert.deepEqual([open, message, error].map((event) => event.constructor.name),
	    ["Event", "MessageEvent", "Event"]);
	assert.deepEqual([message.data, message.origin, message.lastEventId, message.source],
	    [SYNC, ORIGIN, "", null]);
});

test("each event has a task of its own: what a handler awaits runs before the next one", async (t) => {
	const browser = new FakeBrowser(t);
	const { source } = page(browser).open();
	const got = new Promise((resolve) => {
		source.onopen = async () => {
			await null;
			await null;
			source.onmessage = ({ data }) => resolve(data);
		};
	});
	await settle(browser);
	assert.equal(await Promise.race([got, idle()]), SYNC);
});

test("an object for several projects opens once all are covered, and hears of no other project", async (t) => {
	const { browser, tabs: [a], seen: [old] } = await sharing(t);
	const both = a.open("/api/issues/stream?projectIds=7,8");
	await idle();
	await publish(browser, "issues:7", WAKEUP);
	assert.equal(both.types(), "");		/* its sync will cover it */
	await settle(browser);
	assert.equal(both.types(), "open,message");
	await publish(browser, "issues:8", WAKEUP);
	assert.equal(both.types(), "open,message,message");
	assert.deepEqual(old.types(), "message");
});

test("a lost connection: error, and later open and a sync; a sync of the server alone is a message", async (t) => {
	const { browser, seen } = await sharing(t);
	browser.last().end();
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events.splice(0), [["error", undefined, 0]]);
	browser.last().sync();
	await idle();
	browser.last().sync();
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events, [["open", undefined, 1], ["message", SYNC, 1], ["message", SYNC, 1]]);
});

test("shutdown: the event and an error in every tab", async (t) => {
	const { browser, seen } = await sharing(t);
	browser.last().event("shutdown", "{}");
	browser.last().end();
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events, [["shutdown", "{}", 1], ["error", undefined, 0]]);
});

test("evicted: the event and an error in every tab, and live again as soon as there is a slot", async (t) => {
	const { browser, seen } = await sharing(t);
	const ids = [];
	seen[0].source.addEventListener("evicted", ({ lastEventId }) => ids.push(lastEventId));
	browser.last().evict();
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events.splice(0), [["evicted", "{}", 1], ["error", undefined, 0]]);
	assert.deepEqual(ids, ["evicted"]);
	browser.last().sync();
	await idle();
	for (const each of seen)
		assert.equal(each.types(), "open,message");
});

test("refused at once: each object asks with its own URL, and is CLOSED if that is refused, too", async (t) => {
	const browser = new FakeBrowser(t);
	const [a, b] = [page(browser), page(browser)].map((tab) => tab.open());
	await idle();
	await browser.pass(250);
	browser.last().lose();
	await idle();
	const [, ...own] = browser.sources;
	assert.deepEqual(own.map(({ url }) => url), [`${ORIGIN}${ISSUES}`, `${ORIGIN}${ISSUES}`]);
	assert.equal(a.types() + b.types(), "");
	own[0].lose();
	own[1].readyState = 1;
	own[1].event("open");
	own[1].sync();
	await browser.pass(400000, 1000);
	assert.deepEqual(a.events, [["error", undefined, 2]]);
	assert.deepEqual(b.events, [["open", undefined, 1], ["message", SYNC, 1]]);
	assert.deepEqual(browser.open(), [own[1]]);
});

test("the session has ended when the browser reconnects: an error, then CLOSED with an error", async (t) => {
	const { browser, seen } = await sharing(t);
	browser.last().refuse();
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events, [["error", undefined, 0], ["error", undefined, 2]]);
});

test("a further topic that is refused concerns its own object only", async (t) => {
	const { browser, tabs: [, b], seen } = await sharing(t);
	const other = b.open("/api/issues/stream?projectId=9");
	await idle();
	await browser.pass(250);
	const next = browser.last();
	next.lose();
	await idle();
	assert.equal(browser.last().url, `${ORIGIN}/api/issues/stream?projectId=9`);
	browser.last().lose();
	assert.deepEqual(other.events, [["error", undefined, 2]]);
	await browser.wakeup("issues:7", { event: "e" });
	await idle();
	for (const { events } of seen)
		assert.deepEqual(events, [["message", '{"event":"e"}', 1]]);
});

test("close(): CLOSED at once, no event, not even one that waits for its task; the stream ends with the last", async (t) => {
	const { browser, seen: [a, b] } = await sharing(t);
	browser.last().event("issues:7", WAKEUP);
	a.close();
	a.close();
	assert.equal(a.source.readyState, 2);
	await idle();
	assert.deepEqual([a.types(), b.types()], ["", "message"]);
	b.close();
	await browser.pass(2500);
	assert.equal(browser.open().length, 0);
});

test("close() after the sync has arrived: no open", async (t) => {
	const browser = new FakeBrowser(t);
	const seen = page(browser).open();
	await idle();
	await browser.pass(250);
	browser.last().sync();
	seen.close();
	await idle();
	assert.deepEqual([seen.types(), seen.source.readyState], ["", 2]);
});

test("close() in the handler of open: no message", async (t) => {
	const browser = new FakeBrowser(t);
	const seen = page(browser).open();
	seen.source.onopen = () => seen.close();
	await settle(browser);
	assert.equal(seen.types(), "open");
});

test("close() before the user is known: no stream", async (t) => {
	const browser = new FakeBrowser(t);
	page(browser).open().close();
	await settle(browser);
	assert.deepEqual(browser.urls(), []);
});

test("the leader is closed: the other tab gets an error, open and a sync", async (t) => {
	const { browser, tabs: [a], seen: [, b] } = await sharing(t);
	a.crash();
	await settle(browser);
	assert.equal(b.types(), "error,open,message");
});

/* ---- Event handlers */

test("event handlers: any object or null, called in the place of their first value", async (t) => {
	const browser = new FakeBrowser(t);
	const { source } = page(browser).open();
	const calls = [];
	assert.equal(source.onmessage, null);
	source.onmessage = () => calls.push("first");
	source.addEventListener("message", () => calls.push("listener"));
	source.onmessage = function (event) {
		calls.push(this === source && event.type);
	};
	await settle(browser);
	assert.deepEqual(calls.splice(0), ["message", "listener"]);
	const object = { handleEvent: () => calls.push("object") };
	for (const [value, now] of [[object, object], [7, null], ["x", null], [undefined, null], [null, null]]) {
		source.onmessage = value;
		assert.equal(source.onmessage, now);
		await publish(browser, "issues:7", WAKEUP);
		assert.deepEqual(calls.splice(0), ["listener"]);
	}
	source.onmessage = () => calls.push("again");
	await publish(browser, "issues:7", WAKEUP);
	assert.deepEqual(calls, ["listener", "again"]);
});

/* ---- Users */

test("two users of a browser share nothing; a page asks again once all its objects are closed", async (t) => {
	const browser = new FakeBrowser(t);
	const [a, b] = [page(browser), page(browser, { user: "ben" })];
	const [ann, ben] = [a.open(), b.open()];
	await settle(browser);
	assert.equal(browser.open().length, 2);
	const [first] = browser.sources;
	first.event("issues:7", WAKEUP);
	await idle();
	assert.deepEqual([ann.types(), ben.types()], ["open,message,message", "open,message"]);
	b.open("/api/notifications/stream").close();
	assert.equal(b.fetched.length, 1);
	ann.close();
	await idle();
	a.user = "ben";
	const again = a.open();
	await settle(browser);
	assert.equal(a.fetched.length, 2);
	assert.deepEqual(a.fetched[0], ["/api/auth/session", { cache: "no-store" }]);
	assert.equal(again.types(), "open,message");
	await browser.pass(2500);
	assert.equal(browser.open().length, 1);
});

for (const [name, globals] of Object.entries({
	"an anonymous page": { user: "" },
	"a page whose session cannot be read": { fetch: broken },
}))
	test(`${name} has the browser's own streams`, async (t) => {
		const browser = new FakeBrowser(t);
		const seen = page(browser, globals).open(ISSUES, { withCredentials: true });
		await idle();
		const own = browser.last();
		assert.deepEqual([own.url, own.withCredentials], [`${ORIGIN}${ISSUES}`, true]);
		own.readyState = 1;
		own.event("open");
		own.sync();
		own.event("evicted", "{}");
		own.end();
		assert.deepEqual(seen.events, [["open", undefined, 1], ["message", SYNC, 1], ["evicted", "{}", 1],
			["error", undefined, 0]]);
		seen.close();
		assert.equal(own.readyState, 2);
	});

test("an anonymous page is refused: CLOSED with an error, and the next object asks again who the user is", async (t) => {
	const browser = new FakeBrowser(t);
	const tab = page(browser, { user: "" });
	const seen = tab.open();
	await idle();
	browser.last().lose();
	assert.deepEqual(seen.events, [["error", undefined, 2]]);
	tab.open();
	assert.equal(tab.fetched.length, 2);
});

/* ---- Bad messages */

test("an event of another tab whose data is not text is ignored", async (t) => {
	const { browser, tabs: [a], seen } = await sharing(t);
	t.mock.method(console, "warn", () => {});
	await publish(browser, "issues:7", WAKEUP);
	const good = browser.posted.find(({ type }) => type === "event");
	browser.post(a, { name: [...a.channels][0].name }, { ...good, text: { event: "e" } });
	await idle();
	for (const each of seen)
		assert.equal(each.types(), "message");
});
