// SPDX-License-Identifier: ISC
/*
 * The rules of tpi-stream.js, one per test, on a fake page. Requires only Node.js.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { FIRST, LATER, fakePage, recorder } from "../testing/fakes.js";

const NOTIFICATIONS = "/api/notifications/stream";
const issuesUrl = (...ids) => `/api/issues/stream?projectIds=${ids.join(",")}`;
const issue = (projectId, issueId = 1) => ({ event: "issue-updated", issueId, projectId });
const wakeup = (...values) => ({ type: "wakeup", ...issue(...values) });
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/* A page with one watcher, of notifications or of issues, whose stream is live. */
async function livePage(t, ...projectIds) {
	const page = await fakePage(t);
	const a = recorder();
	const stop = projectIds.length ?
	    page.watchIssues(projectIds, a.onWakeup, a.options) :
	    page.watchNotifications(a.onWakeup, a.options);
	await page.settle();
	page.last().sync();
	return Object.assign(page, { a, stop });
}

function watchIssues(page, ...projectIds) {
	const seen = recorder();
	seen.stop = page.watchIssues(projectIds, seen.onWakeup, seen.options);
	return seen;
}

/* ---- Sharing and counting */

test("watchers of a kind share one stream, which stays open until the last one stops", async (t) => {
	const page = await livePage(t);
	const b = recorder();
	const stopB = page.watchNotifications(b.onWakeup, b.options);
	await page.settle();
	page.stop();
	await page.pass(5000);
	page.last().data({ event: "notification", id: "n1" });
	assert.deepEqual(page.urls(), [NOTIFICATIONS]);
	assert.deepEqual(b.messages, [FIRST, { type: "wakeup", event: "notification", id: "n1" }]);
	assert.deepEqual(page.a.messages, [FIRST]);
	stopB();
	await page.pass(999);
	assert.equal(page.open().length, 1);
	await page.pass(1);
	assert.equal(page.open().length, 0);
});

test("each kind, base URL and credentials mode has its own stream", async (t) => {
	const page = await fakePage(t);
	page.watchNotifications(() => {});
	page.watchIssues([7], () => {});
	page.watchNotifications(() => {}, { baseUrl: "https://example.org/app/" });
	page.watchNotifications(() => {}, { baseUrl: "https://example.org/app" });
	page.watchNotifications(() => {}, { baseUrl: "/" });
	page.watchNotifications(() => {}, { withCredentials: true });
	await page.settle();
	assert.deepEqual(page.sources.map(({ url, withCredentials }) => [url, withCredentials]), [
		[NOTIFICATIONS, false],
		[issuesUrl(7), false],
		[`https://example.org/app${NOTIFICATIONS}`, false],
		[NOTIFICATIONS, true],
	]);
});

test("a second stop() does nothing, and no callback is called after stop()", async (t) => {
	const page = await livePage(t);
	const b = recorder();
	page.watchNotifications(b.onWakeup, b.options);
	await page.settle();
	page.stop();
	page.stop();
	page.last().sync();
	page.last().refuse();
	await page.pass(2000);
	assert.deepEqual(page.a.messages, [FIRST]);
	assert.deepEqual(page.a.states, ["connecting", "live"]);
	assert.equal(page.a.refusals, 0);
	assert.deepEqual(b.messages, [FIRST, LATER]);
});

test("a watcher within the grace time joins the open stream and gets a sync", async (t) => {
	const page = await livePage(t, 7);
	page.stop();
	await page.pass(900);
	const b = watchIssues(page, 7);
	await page.pass(5000);
	assert.deepEqual(page.urls(), [issuesUrl(7)]);
	assert.equal(page.open().length, 1);
	assert.deepEqual(b.messages, [FIRST]);
	b.stop();
	await page.pass(1000);
	assert.equal(page.open().length, 0);
});

test("watching and stopping in one task, as StrictMode does, opens at most one stream", async (t) => {
	const page = await fakePage(t);
	watchIssues(page, 7).stop();
	const b = watchIssues(page, 7);
	await page.pass(5000);
	assert.deepEqual(page.urls(), [issuesUrl(7)]);
	b.stop();
	await page.pass(1000);
	watchIssues(page, 8).stop();
	await page.pass(5000);
	assert.equal(page.sources.length, 1);
	assert.equal(page.window.listeners, 0);
});

test("without streams there are no listeners on the page; a new stream starts afresh", async (t) => {
	const page = await livePage(t);
	assert.ok(page.window.listeners > 0);
	page.stop();
	await page.pass(1000);
	assert.equal(page.window.listeners, 0);
	const b = recorder();
	page.watchNotifications(b.onWakeup, b.options);
	await page.settle();
	page.last().sync();
	assert.equal(page.sources.length, 2);
	assert.deepEqual(b.messages, [FIRST]);
});

/* ---- The union of projects */

test("watchers of one task make one request, with sorted, distinct ids", async (t) => {
	const page = await fakePage(t);
	watchIssues(page, 10, 9, 9);
	watchIssues(page, 100, 10);
	await page.pass(5000);
	assert.deepEqual(page.urls(), [issuesUrl(9, 10, 100)]);
});

test("changes of the projects within 250 ms cause one reconnect", async (t) => {
	const page = await livePage(t, 7);
	watchIssues(page, 8);
	await page.pass(100);
	watchIssues(page, 5);
	await page.pass(149);
	assert.equal(page.sources.length, 1);
	await page.pass(1);
	assert.deepEqual(page.urls(), [issuesUrl(7), issuesUrl(5, 7, 8)]);
	await page.pass(5000);
	assert.equal(page.sources.length, 2);
	assert.equal(page.open().length, 1);
});

test("after a change of the projects old watchers get first:false, new ones first:true", async (t) => {
	const page = await livePage(t, 7);
	const b = watchIssues(page, 8);
	await page.settle();
	assert.deepEqual(b.states, ["live"]);
	await page.pass(250);
	page.last().sync();
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
	assert.deepEqual(b.messages, [FIRST]);
	page.last().sync();
	assert.deepEqual(b.messages, [FIRST, LATER]);
});

test("a watcher gets no sync from a stream without its project", async (t) => {
	const page = await livePage(t, 7);
	const b = watchIssues(page, 8);
	await page.settle();
	page.last().sync();
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
	assert.deepEqual(b.messages, []);
});

test("a project that is no longer watched is dropped after the grace time", async (t) => {
	const page = await livePage(t, 7);
	const b = watchIssues(page, 8);
	await page.pass(250);
	b.stop();
	await page.pass(999);
	assert.equal(page.sources.length, 2);
	await page.pass(1);
	assert.deepEqual(page.urls(), [issuesUrl(7), issuesUrl(7, 8), issuesUrl(7)]);
});

test("a component that remounts next to others does not reconnect", async (t) => {
	const page = await livePage(t, 7);
	const b = watchIssues(page, 8);
	await page.pass(250);
	page.last().sync();
	b.stop();
	await page.pass(900);
	watchIssues(page, 8);
	await page.pass(5000);
	assert.equal(page.sources.length, 2);
});

test("adding a project while another is dropped does not wait for the grace time", async (t) => {
	const page = await livePage(t, 7);
	page.stop();
	await page.pass(500);
	watchIssues(page, 8);
	await page.pass(250);
	assert.deepEqual(page.urls(), [issuesUrl(7), issuesUrl(8)]);
});

test("stopping during the wait for added projects does not shorten the grace time", async (t) => {
	const page = await livePage(t, 7);
	watchIssues(page, 8).stop();
	page.stop();
	await page.pass(999);
	assert.equal(page.open().length, 1);
	await page.pass(1);
	assert.equal(page.open().length, 0);
});

test("a watcher that joins a live stream gets its own first sync at once", async (t) => {
	const page = await livePage(t, 7, 8);
	const b = watchIssues(page, 8);
	assert.deepEqual(b.messages, []);
	await page.settle();
	assert.deepEqual(b.messages, [FIRST]);
	assert.deepEqual(b.states, ["live"]);
	assert.deepEqual(page.a.messages, [FIRST]);
	assert.equal(page.sources.length, 1);
});

test("a watcher that joins while the stream connects gets its first sync with it", async (t) => {
	const page = await livePage(t, 7);
	page.last().end();
	const b = watchIssues(page, 7);
	await page.settle();
	assert.deepEqual(b.messages, []);
	page.last().sync();
	assert.deepEqual(b.messages, [FIRST]);
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
});

test("more than 500 projects use a second stream, and nothing is lost", async (t) => {
	const page = await livePage(t, ...range(1, 499));
	const b = watchIssues(page, 500);
	const c = watchIssues(page, 600, 601);
	await page.pass(250);
	assert.deepEqual(page.open().map(({ url }) => url),
	    [issuesUrl(600, 601), issuesUrl(...range(1, 500))]);
	for (const source of page.open())
		source.sync();
	page.open()[0].data(issue(601));
	page.open()[1].data(issue(500));
	assert.deepEqual(b.messages, [FIRST, wakeup(500)]);
	assert.deepEqual(c.messages, [FIRST, wakeup(601)]);
	c.stop();
	await page.pass(1000);
	assert.equal(page.open().length, 1);
});

/* ---- What arrives */

test("a watcher gets the wake-ups of its own projects", async (t) => {
	const page = await livePage(t, 7, 8);
	const b = watchIssues(page, 8, 7);
	const c = watchIssues(page, 8);
	await page.settle();
	page.last().data(issue(7, 42));
	page.last().data({ ...issue(8, 43), extra: true });
	assert.deepEqual(page.a.messages, [FIRST, wakeup(7, 42), wakeup(8, 43)]);
	assert.deepEqual(b.messages, [FIRST, wakeup(7, 42), wakeup(8, 43)]);
	assert.deepEqual(c.messages, [FIRST, wakeup(8, 43)]);
});

test("every later sync, on the same connection or a new one, is first:false", async (t) => {
	const page = await livePage(t);
	page.last().sync();
	page.last().end();
	page.last().sync();
	assert.deepEqual(page.a.messages, [FIRST, LATER, LATER]);
	assert.equal(page.sources.length, 1);
});

for (const [kind, ids, data] of [
	["notifications", [], [
		"", "{", "null", "[]", "7", '"sync"', "{}", '{"event":7,"id":"n1"}',
		'{"event":"notification"}', '{"event":"notification","id":7}',
	]],
	["issues", [7], [
		"x", '{"event":"e","issueId":1}', '{"event":"e","issueId":"1","projectId":7}',
		'{"event":"e","issueId":1.5,"projectId":7}', '{"event":"e","issueId":1,"projectId":0}',
	]],
])
	test(`malformed ${kind} are ignored, with one warning`, async (t) => {
		const page = await livePage(t, ...ids);
		data.forEach((value) => page.last().data(value));
		assert.deepEqual(page.a.messages, [FIRST]);
		assert.deepEqual(page.a.warnings,
		    [["tpi-stream: ignoring data that is not a wake-up", data[0]]]);
		assert.deepEqual(page.a.errors, []);
		page.last().sync();
		assert.deepEqual(page.a.messages, [FIRST, LATER]);
	});

test("events with unknown names are ignored", async (t) => {
	const page = await livePage(t);
	page.last().event("news", '{"event":"sync"}');
	assert.deepEqual(page.a.messages, [FIRST]);
	assert.deepEqual(page.a.warnings, []);
});

test("callbacks that throw are logged by name and do not affect other watchers", async (t) => {
	const page = await livePage(t);
	const bad = recorder();
	const fail = () => {
		throw new Error("broken");
	};
	page.watchNotifications(fail, { ...bad.options, onstate: fail, onclosed: fail });
	const c = recorder();
	page.watchNotifications(c.onWakeup, c.options);
	await page.settle();
	page.last().sync();
	page.last().refuse();
	assert.deepEqual(bad.errors.map(([text, error]) => [text, error.message]),
	    ["onstate", "onWakeup", "onWakeup", "onstate", "onstate", "onclosed"].map((name) =>
	        [`tpi-stream: ${name} threw`, "broken"]));
	assert.deepEqual(c.messages, [FIRST, LATER]);
	assert.deepEqual(c.states, ["live", "connecting", "waiting"]);
	assert.equal(c.refusals, 1);
});

test("a callback that stops its own and another watcher: the other gets nothing more", async (t) => {
	const page = await livePage(t);
	const b = recorder();
	const c = recorder();
	let stopC;
	const stopB = page.watchNotifications((message) => {
		b.onWakeup(message);
		if (message.type === "wakeup") {
			stopB();
			stopC();
		}
	});
	stopC = page.watchNotifications(c.onWakeup);
	await page.settle();
	page.last().data({ event: "notification", id: "n1" });
	page.last().data({ event: "notification", id: "n2" });
	assert.equal(page.a.messages.length, 3);
	assert.equal(b.messages.length, 2);
	assert.deepEqual(c.messages, [FIRST]);
});

test("a watcher started by a callback gets a sync, not the current event", async (t) => {
	const page = await livePage(t);
	const b = recorder();
	const stop = page.watchNotifications(({ type }) => {
		if (type === "sync")
			return;
		stop();
		page.watchNotifications(b.onWakeup);
	});
	await page.settle();
	page.last().data({ event: "notification", id: "n1" });
	await page.settle();
	assert.deepEqual(b.messages, [FIRST]);
});

test("a watcher started when the state becomes live gets one sync", async (t) => {
	const page = await fakePage(t);
	const b = recorder();
	page.watchNotifications(() => {}, {
		onstate: (state) => state === "live" && page.watchNotifications(b.onWakeup),
	});
	await page.settle();
	page.last().sync();
	await page.settle();
	assert.deepEqual(b.messages, [FIRST]);
});

test("a callback that remounts on every sync does not loop", async (t) => {
	const page = await fakePage(t);
	let mounted = 0;
	let stop;
	const mount = () => {
		mounted++;
		stop = page.watchNotifications(({ first }) => {
			if (first)
				return;
			stop();
			mount();
		});
	};
	mount();
	await page.settle();
	page.last().sync();
	page.last().sync();
	await page.pass(5000);
	assert.equal(mounted, 2);
	assert.equal(page.sources.length, 1);
});

/* ---- Test runs and milestones */

const KINDS = [
	["watchTestRuns", (id) => `/api/test-runs/${id}/stream`,
	    (id) => ({ event: "test_run.completed", runId: id, projectId: 3 }), "runId"],
	["watchProjectTestRuns", (id) => `/api/projects/${id}/test-runs/stream`,
	    (id) => ({ event: "test_run.created", runId: 42, projectId: id }), "runId"],
	["watchMilestones", (id) => `/api/milestones/${id}/stream`,
	    (id) => ({ event: "milestone.updated", milestoneId: id, projectId: 3 }), "milestoneId"],
	["watchProjectMilestones", (id) => `/api/projects/${id}/milestones/stream`,
	    (id) => ({ event: "milestone.created", milestoneId: 9, projectId: id }), "milestoneId"],
];

function watchWith(page, name, ids, options) {
	const seen = recorder();
	seen.stop = page[name](ids, seen.onWakeup, { ...seen.options, ...options });
	return seen;
}

for (const [name, url, data, field] of KINDS) {
	test(`${name}: one stream for each id, shared by its watchers`, async (t) => {
		const page = await fakePage(t);
		const a = watchWith(page, name, [8, 7, 7]);
		const b = watchWith(page, name, [7]);
		await page.settle();
		assert.deepEqual(page.urls(), [url(8), url(7)]);
		page.sources.forEach((source) => source.sync());
		page.sources[0].data(data(8));
		page.sources[1].data({ ...data(7), targetId: 5, extra: true });
		const seven = { type: "wakeup", ...data(7), targetId: 5 };
		assert.deepEqual(a.messages, [FIRST, { type: "wakeup", ...data(8) }, seven]);
		assert.deepEqual(b.messages, [FIRST, seven]);
		a.stop();
		await page.pass(1000);
		assert.deepEqual(page.open().map((source) => source.url), [url(7)]);
		b.stop();
		await page.pass(1000);
		assert.equal(page.open().length + page.window.listeners, 0);
	});

	test(`${name}: an added id opens its stream at once and no other one`, async (t) => {
		const page = await fakePage(t);
		const a = watchWith(page, name, [7]);
		await page.settle();
		page.last().sync();
		const b = watchWith(page, name, [7, 8]);
		await page.settle();
		assert.deepEqual(page.urls(), [url(7), url(8)]);
		assert.deepEqual(b.messages, [], "not before 8 is covered, too");
		page.last().sync();
		assert.deepEqual(b.messages, [FIRST]);
		assert.deepEqual(a.messages, [FIRST]);
		b.stop();
		await page.pass(500);
		watchWith(page, name, [9, 8]);
		await page.settle();
		assert.deepEqual(page.urls(), [url(7), url(8), url(9)]);
	});

	test(`${name}: malformed wake-ups are ignored, with one warning`, async (t) => {
		const page = await fakePage(t);
		const a = watchWith(page, name, [7]);
		await page.settle();
		page.last().sync();
		for (const change of [{ projectId: "3" }, { projectId: undefined }, { [field]: 0 },
		    { [field]: undefined }, { targetId: null }, { targetId: 1.5 }, { event: 7 }])
			page.last().data({ ...data(7), ...change });
		assert.deepEqual(a.messages, [FIRST]);
		assert.equal(a.warnings.length, 1);
	});

	test(`${name}: invalid ids are one clear TypeError`, async (t) => {
		const page = await fakePage(t);
		const parameter = name.includes("Project") ? "projectIds" : "ids";
		assert.throws(() => page[name]([0], () => {}), { name: "TypeError", message:
		    `tpi-stream: ${parameter} must be an array of 1 to 500 integers from 1 to 2147483647, not 0` });
		assert.throws(() => page[name](7, () => {}), TypeError);
	});
}

test("kinds with the same ids do not mix", async (t) => {
	const page = await fakePage(t);
	const seen = KINDS.map(([name]) => watchWith(page, name, [7]));
	await page.settle();
	page.sources.forEach((source) => source.sync());
	KINDS.forEach(([, , data], i) => page.sources[i].data(data(7)));
	seen.forEach(({ messages }, i) =>
	    assert.deepEqual(messages, [FIRST, { type: "wakeup", ...KINDS[i][2](7) }]));
});

test("several streams: a lost one is a sync when it is back, the state is the worst", async (t) => {
	const page = await fakePage(t);
	const a = watchWith(page, "watchTestRuns", [1, 2]);
	await page.settle();
	const [one, two] = page.sources;
	one.sync();
	assert.deepEqual([a.messages, a.states], [[], ["connecting"]]);
	two.sync();
	one.end();
	two.data({ event: "e", runId: 2, projectId: 3 });
	one.sync();
	assert.deepEqual(a.messages, [FIRST, { type: "wakeup", event: "e", runId: 2, projectId: 3 }, LATER]);
	two.evict();
	one.end();
	assert.deepEqual(a.states, ["connecting", "live", "connecting", "live", "parked"]);
});

for (const [name, fail] of [
	["refused", (source) => source.refuse()],
	["told to retry later", (source) => source.end()],
	["evicted", (source) => source.evict()],
])
	test(`several streams: the first sync does not wait for one that is ${name}`, async (t) => {
		const page = await fakePage(t);
		const a = watchWith(page, "watchMilestones", [1, 2]);
		await page.settle();
		const [one, two] = page.sources;
		one.sync();
		assert.deepEqual(a.messages, []);
		fail(two);
		assert.deepEqual(a.messages, [FIRST]);
		await page.pass(15000);
		page.last().sync();
		assert.deepEqual(a.messages, [FIRST, LATER]);
	});

test("several streams: no first sync while none of them is live", async (t) => {
	const page = await fakePage(t);
	const a = watchWith(page, "watchMilestones", [1, 2]);
	await page.settle();
	page.sources.forEach((source) => source.refuse());
	assert.deepEqual([a.messages, a.refusals], [[], 2]);
});

/* ---- Coalescing */

test("coalesceMs: one call for each event and item, with the last message", async (t) => {
	const page = await fakePage(t);
	const a = watchWith(page, "watchProjectTestRuns", [7], { coalesceMs: 100 });
	const b = watchWith(page, "watchProjectTestRuns", [7]);
	const result = (runId, targetId) => ({ event: "result_added", runId, projectId: 7, targetId });
	await page.settle();
	page.last().sync();
	page.last().data(result(1, 10));
	page.last().data(result(2, 20));
	await page.pass(60);
	page.last().data(result(1, 11));
	page.last().data({ event: "completed", runId: 1, projectId: 7 });
	await page.pass(39);
	assert.deepEqual(a.messages, []);
	await page.pass(1);
	assert.deepEqual(a.messages, [FIRST,
	    ...[result(2, 20), result(1, 11), { event: "completed", runId: 1, projectId: 7 }].map(
	        (data) => ({ type: "wakeup", ...data }))]);
	assert.equal(b.messages.length, 5);
	page.last().data(result(1, 12));
	await page.pass(100);
	assert.equal(a.messages.length, 5, "the next burst");
});

test("coalesceMs: notifications are one kind, whatever their ids", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup, { coalesceMs: 100 });
	await page.settle();
	page.last().sync();
	for (let i = 1; i <= 50; i++)
		page.last().data({ event: "notification", id: `n${i}` });
	await page.pass(100);
	assert.deepEqual(a.messages, [FIRST, { type: "wakeup", event: "notification", id: "n50" }]);
});

test("coalesceMs: syncs are one, which stays the first", async (t) => {
	const page = await fakePage(t);
	const a = watchWith(page, "watchTestRuns", [1], { coalesceMs: 100 });
	await page.settle();
	page.last().sync();
	page.last().sync();
	page.last().data({ event: "e", runId: 1, projectId: 3 });
	page.last().sync();
	await page.pass(100);
	page.last().sync();
	await page.pass(100);
	assert.deepEqual(a.messages, [{ type: "wakeup", event: "e", runId: 1, projectId: 3 }, FIRST, LATER]);
});

test("coalesceMs: nothing after stop(), by itself or by a callback of the same burst", async (t) => {
	const page = await livePage(t);
	const a = recorder();
	const stop = page.watchNotifications((message) => {
		a.onWakeup(message);
		stop();
	}, { coalesceMs: 100 });
	const b = recorder();
	const stopB = page.watchNotifications(b.onWakeup, { coalesceMs: 100 });
	await page.settle();
	page.last().data({ event: "notification", id: "n1" });
	stopB();
	await page.pass(100);
	assert.deepEqual([a.messages, b.messages], [[FIRST], []]);
});

/* ---- States and reconnecting */

test("the states of a stream that ends: the browser reconnects by itself", async (t) => {
	const page = await livePage(t);
	page.last().event("shutdown", "{}");
	page.last().end();
	page.last().end();
	await page.pass(600000);
	page.last().sync();
	assert.deepEqual(page.a.states, ["connecting", "live", "connecting", "live"]);
	assert.equal(page.sources.length, 1);
	assert.equal(page.a.refusals, 0);
});

test("a response that opens without a sync is not live", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup, a.options);
	await page.settle();
	page.last().readyState = 1;
	page.last().event("open");
	page.last().end();
	assert.deepEqual(a.states, ["connecting"]);
});

test("a refused stream is reopened after 30 s with full jitter, growing to 5 min", async (t) => {
	const page = await livePage(t);
	const waits = [15000, 30000, 60000, 120000, 150000, 150000];
	for (const wait of waits) {
		page.last().refuse();
		const before = page.sources.length;
		assert.equal(page.a.states.at(-1), "waiting");
		await page.pass(wait - 1);
		assert.equal(page.sources.length, before);
		await page.pass(1);
		assert.equal(page.sources.length, before + 1);
		assert.equal(page.a.states.at(-1), "connecting");
	}
	assert.equal(page.a.refusals, waits.length);
	assert.equal(page.open().length, 1);
});

test("an open stream that the browser closes is lost, not refused: back within 5 s", async (t) => {
	const page = await livePage(t);
	for (let i = 2; i < 5; i++) {
		page.last().lose();
		assert.equal(page.a.states.at(-1), "waiting");
		await page.pass(2499);
		assert.equal(page.sources.length, i - 1);
		await page.pass(1);
		assert.equal(page.sources.length, i);
		page.last().sync();
	}
	assert.deepEqual(page.a.messages, [FIRST, LATER, LATER, LATER]);
	assert.equal(page.a.refusals, 0);
	page.last().lose();
	await page.pass(2500);
	page.last().lose();
	assert.equal(page.a.refusals, 1, "it was not open");
	await page.pass(14999);
	assert.equal(page.sources.length, 5);
});

test("a lost stream comes back with retry.limit 0, too", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup, { ...a.options, retry: { limit: 0 } });
	await page.settle();
	page.last().sync();
	page.last().lose();
	await page.pass(5000);
	page.last().sync();
	assert.deepEqual(a.messages, [FIRST, LATER]);
});

test("full jitter is from 0 to the whole delay", async (t) => {
	const page = await livePage(t);
	Math.random.mock.mockImplementation(() => 0.999);
	page.last().refuse();
	await page.pass(29000);
	assert.equal(page.sources.length, 1);
	await page.pass(1000);
	assert.equal(page.sources.length, 2);
	Math.random.mock.mockImplementation(() => 0);
	page.last().refuse();
	await page.pass(1);
	assert.equal(page.sources.length, 3);
});

test("a sync resets the delay; first stays false", async (t) => {
	const page = await livePage(t);
	page.last().refuse();
	await page.pass(15000);
	page.last().refuse();
	await page.pass(30000);
	page.last().sync();
	page.last().refuse();
	await page.pass(15000);
	assert.equal(page.sources.length, 4);
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
});

test("retry: firstMs, maxMs and limit; beyond the limit the state is closed", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup,
	    { ...a.options, retry: { firstMs: 100, maxMs: 150, limit: 2 } });
	await page.settle();
	page.last().refuse();
	await page.pass(50);
	page.last().refuse();
	await page.pass(75);
	page.last().refuse();
	await page.pass(3600000);
	assert.equal(page.sources.length, 3);
	assert.deepEqual(a.states,
	    ["connecting", "waiting", "connecting", "waiting", "connecting", "closed"]);
	assert.equal(a.refusals, 3);
});

test("retry.limit 0 never reopens by a timer, but does when the page resumes", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup, { ...a.options, retry: { limit: 0 } });
	await page.settle();
	page.last().refuse();
	await page.pass(3600000);
	assert.equal(page.sources.length, 1);
	page.window.event("online");
	page.last().sync();
	assert.deepEqual(a.messages, [FIRST]);
});

test("the timer of a refused stream also works in a hidden page", async (t) => {
	const page = await livePage(t);
	page.show("hidden");
	page.last().refuse();
	await page.pass(15000);
	assert.equal(page.sources.length, 2);
	page.last().sync();
	assert.equal(page.a.states.at(-1), "live");
});

for (const [name, comeBack] of [
	["pageshow from the cache", (page) => page.window.event("pageshow", { persisted: true })],
	["online", (page) => page.window.event("online")],
	["visible", (page) => page.show("visible")],
	["resume", (page) => page.document.event("resume")],
])
	test(`${name}: a refused stream is opened at once, and only once`, async (t) => {
		const page = await livePage(t, 7);
		page.last().refuse();
		comeBack(page);
		comeBack(page);
		assert.deepEqual(page.urls(), [issuesUrl(7), issuesUrl(7)]);
		page.last().sync();
		comeBack(page);
		await page.pass(600000);
		assert.equal(page.sources.length, 2);
		assert.deepEqual(page.a.messages, [FIRST, LATER]);
	});

test("pageshow of a fresh page, and a page that hides, open nothing", async (t) => {
	const page = await livePage(t);
	page.last().refuse();
	page.window.event("pageshow", { persisted: false });
	page.show("hidden");
	assert.equal(page.sources.length, 1);
});

for (const [name, sleep, wake] of [
	["the back-forward cache", (page) => page.window.event("pagehide", { persisted: true }),
	    (page) => page.window.event("pageshow", { persisted: true })],
	["freezing", (page) => page.document.event("freeze"),
	    (page) => page.document.event("resume")],
])
	test(`${name}: closed while the page is suspended, a sync when it resumes`, async (t) => {
		const page = await livePage(t);
		sleep(page);
		assert.equal(page.open().length, 0);
		assert.equal(page.a.states.at(-1), "waiting");
		assert.equal(page.a.refusals, 0);
		wake(page);
		page.last().sync();
		assert.equal(page.sources.length, 2);
		assert.deepEqual(page.a.states, ["connecting", "live", "waiting", "connecting", "live"]);
		assert.deepEqual(page.a.messages, [FIRST, LATER]);
	});

test("a page suspended during the grace time leaves no stream open", async (t) => {
	const page = await livePage(t, 7);
	page.stop();
	page.document.event("freeze");
	page.document.event("resume");
	assert.deepEqual(page.urls(), [issuesUrl(7), issuesUrl(7)]);
	await page.pass(1000);
	assert.equal(page.open().length, 0);
	assert.equal(page.window.listeners, 0);
});

test("a stream that was stopped before it was opened is not opened when the page resumes", async (t) => {
	const page = await fakePage(t);
	watchIssues(page, 7).stop();
	page.window.event("online");
	await page.pass(1000);
	assert.equal(page.sources.length, 0);
});

test("a hidden page keeps its stream", async (t) => {
	const page = await livePage(t);
	page.show("hidden");
	await page.pass(3600000);
	page.last().data({ event: "notification", id: "n1" });
	page.show("visible");
	assert.equal(page.sources.length, 1);
	assert.equal(page.a.messages.length, 2);
});

test("evicted: parked until the page is used, whatever else happens to the page", async (t) => {
	const page = await livePage(t);
	page.last().evict();
	assert.equal(page.open().length, 1, "the browser asks by itself whether there is room");
	page.show("hidden");
	page.window.event("pointerdown");
	page.window.event("keydown");
	page.show("visible");
	page.window.event("online");
	page.document.event("freeze");
	page.document.event("resume");
	page.window.event("pageshow", { persisted: true });
	await page.pass(3600000);
	assert.equal(page.sources.length, 1);
	page.last().end();
	page.window.event("pointerdown");
	page.window.event("pointerdown");
	assert.equal(page.sources.length, 2);
	assert.equal(page.open().length, 1);
	page.last().sync();
	assert.deepEqual(page.a.states, ["connecting", "live", "parked", "connecting", "live"]);
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
	assert.equal(page.a.refusals, 0);
});

test("evicted: the browser's own reconnect finds no free slot, then one", async (t) => {
	const page = await livePage(t);
	const source = page.last();
	source.evict();
	for (let i = 0; i < 5; i++) {
		await page.pass(300000);
		source.end();
	}
	assert.deepEqual(page.a.states, ["connecting", "live", "parked"]);
	source.sync();
	source.data({ event: "notification", id: "n1" });
	page.window.event("pointerdown");
	assert.equal(page.sources.length, 1);
	assert.deepEqual(page.a.states, ["connecting", "live", "parked", "live"]);
	assert.deepEqual(page.a.messages,
	    [FIRST, LATER, { type: "wakeup", event: "notification", id: "n1" }]);
	source.end();
	assert.equal(page.a.states.at(-1), "connecting");
});

test("a parked stream that is refused stays parked until the page is used", async (t) => {
	const page = await livePage(t);
	page.last().evict();
	page.last().refuse();
	await page.pass(3600000);
	page.window.event("online");
	assert.equal(page.sources.length, 1);
	assert.deepEqual(page.a.states, ["connecting", "live", "parked"]);
	assert.equal(page.a.refusals, 1);
	page.window.event("keydown");
	assert.equal(page.sources.length, 2);
	page.last().sync();
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
});

test("a change of the projects while parked applies when the stream is live again by itself", async (t) => {
	const page = await livePage(t, 7);
	page.last().evict();
	const b = watchIssues(page, 8);
	await page.pass(5000);
	page.last().sync();
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
	assert.deepEqual(b.messages, []);
	await page.pass(250);
	assert.equal(page.last().url, issuesUrl(7, 8));
	page.last().sync();
	assert.deepEqual(b.messages, [FIRST]);
});

test("a key press unparks, too", async (t) => {
	const page = await livePage(t);
	page.last().evict();
	page.window.event("keydown");
	assert.equal(page.sources.length, 2);
});

test("using the page does not affect a stream that is not parked", async (t) => {
	const page = await livePage(t);
	page.window.event("keydown");
	page.last().refuse();
	page.window.event("pointerdown");
	assert.equal(page.sources.length, 1);
});

test("a change of the projects does not unpark; it applies when the page is used", async (t) => {
	const page = await livePage(t, 7);
	page.last().evict();
	const b = watchIssues(page, 8);
	await page.pass(5000);
	assert.equal(page.sources.length, 1);
	assert.deepEqual(b.states, ["parked"]);
	page.window.event("keydown");
	assert.equal(page.last().url, issuesUrl(7, 8));
	page.last().sync();
	assert.deepEqual(b.messages, [FIRST]);
	assert.deepEqual(page.a.messages, [FIRST, LATER]);
});

test("components that mount and unmount do not unpark", async (t) => {
	const page = await livePage(t);
	page.last().evict();
	page.stop();
	await page.pass(5000);
	const b = recorder();
	const stopB = page.watchNotifications(b.onWakeup, b.options);
	await page.pass(5000);
	assert.equal(page.sources.length, 1);
	assert.deepEqual(b.states, ["parked"]);
	stopB();
	await page.pass(5000);
	page.window.event("keydown");
	assert.equal(page.sources.length, 1);
	assert.equal(page.window.listeners, 0);
});

test("a refused stream is reopened at once for an added project, not for a dropped one", async (t) => {
	const page = await livePage(t, 7);
	const b = watchIssues(page, 8);
	await page.pass(250);
	page.last().refuse();
	b.stop();
	await page.pass(2000);
	assert.equal(page.sources.length, 2);
	watchIssues(page, 9);
	await page.pass(250);
	assert.equal(page.last().url, issuesUrl(7, 9));
	await page.pass(600000);
	assert.equal(page.sources.length, 3);
});

test("a stream that is no longer watched is not reopened", async (t) => {
	const page = await livePage(t);
	page.stop();
	page.last().refuse();
	await page.pass(1000);
	await page.pass(600000);
	assert.equal(page.sources.length, 1);
});

test("events of a replaced EventSource are ignored", async (t) => {
	const page = await livePage(t, 7);
	watchIssues(page, 8);
	await page.pass(250);
	const [old] = page.sources;
	old.sync();
	old.data(issue(7));
	old.evict();
	old.refuse();
	assert.deepEqual(page.a.messages, [FIRST]);
	assert.equal(page.a.states.at(-1), "connecting");
	assert.equal(page.a.refusals, 0);
});

/* ---- Arguments, and environments without a page */

const WANTED = "tpi-stream: projectIds must be an array of 1 to 500 integers from 1 to 2147483647";

for (const [ids, found] of [
	[[], "0 of them"],
	[range(1, 501), "501 of them"],
	[undefined, "undefined"],
	[7, "7"],
	["7,8", "7,8"],
	[[7, "8"], '"8"'],
	[[0], "0"],
	[[-1], "-1"],
	[[1.5], "1.5"],
	[[NaN], "NaN"],
	[[2147483648], "2147483648"],
	[[null], "null"],
])
	test(`projectIds ${String(ids).slice(0, 20)}: one clear TypeError`, async (t) => {
		const page = await fakePage(t);
		assert.throws(() => page.watchIssues(ids, () => {}),
		    { name: "TypeError", message: `${WANTED}, not ${found}` });
		await page.pass(1000);
		assert.equal(page.sources.length + page.window.listeners, 0);
	});

for (const [options, message] of [
	[{ baseUrl: 7 }, "baseUrl must be a string, not 7"],
	[{ coalesceMs: -1 }, "coalesceMs must be from 0 to 2147483647, not -1"],
	[{ coalesceMs: "soon" }, "coalesceMs must be from 0 to 2147483647, not soon"],
	[{ logger: {} }, "logger must have warn and error, not [object Object]"],
	[{ retry: { firstMs: 0 } }, "retry.firstMs must be from 1 to 2147483647, not 0"],
	[{ retry: { maxMs: Infinity } }, "retry.maxMs must be from 1 to 2147483647, not Infinity"],
	[{ retry: { limit: -1 } }, "retry.limit must be 0 or more, not -1"],
])
	test(`options: ${message}`, async (t) => {
		const page = await fakePage(t);
		assert.throws(() => page.watchNotifications(() => {}, options),
		    { name: "TypeError", message: `tpi-stream: ${message}` });
	});

test("onWakeup must be a function", async (t) => {
	const page = await fakePage(t);
	assert.throws(() => page.watchNotifications(),
	    { name: "TypeError", message: "tpi-stream: onWakeup must be a function, not undefined" });
});

test("an invalid base URL: one line in the log, state closed", async (t) => {
	const page = await fakePage(t);
	const a = recorder();
	page.watchNotifications(a.onWakeup, { ...a.options, baseUrl: "no url" });
	await page.pass(600000);
	assert.deepEqual(a.errors.map(([text]) => text),
	    ["tpi-stream: cannot open no url/api/notifications/stream"]);
	assert.deepEqual(a.states, ["closed"]);
});

test("without an EventSource: closed, no error", async (t) => {
	const page = await fakePage(t, { EventSource: undefined });
	const a = recorder();
	const stop = page.watchNotifications(a.onWakeup, a.options);
	await page.pass(600000);
	stop();
	await page.pass(1000);
	assert.deepEqual(a.states, ["closed"]);
	assert.deepEqual(a.errors, []);
	assert.equal(page.window.listeners, 0);
});

test("an EventSource without a window or document (a worker) works", async (t) => {
	const page = await fakePage(t, { window: undefined, document: undefined });
	const a = recorder();
	page.watchNotifications(a.onWakeup, a.options);
	await page.settle();
	page.last().sync();
	assert.deepEqual(a.messages, [FIRST]);
});

test("a window without addEventListener (React Native) is no error", async (t) => {
	const page = await fakePage(t, { window: {}, document: undefined });
	const stop = page.watchNotifications(() => {});
	await page.settle();
	stop();
	await page.pass(1000);
	assert.equal(page.open().length, 0);
});

test("plain Node.js: loads, watches nothing, and does not keep the process alive", () => {
	const script = 'import { watchIssues } from "tpi-stream-client";' +
	    'watchIssues([7], console.log, { onstate: console.log });';
	const { status, stdout, stderr } = spawnSync(process.execPath,
	    ["--input-type=module", "--eval", script],
	    { cwd: new URL("..", import.meta.url), encoding: "utf8", timeout: 30000 });
	assert.deepEqual([status, stdout, stderr], [0, "closed\n", ""]);
});
