// SPDX-License-Identifier: ISC
/*
 * Tabs that share one connection: the rules of section "Sharing" in tpi-stream.js, one per test, in a
 * fake browser. Requires only Node.js.
 */
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { FIRST, LATER } from "../testing/fakes.js";
import { FakeBrowser } from "../testing/tabs.js";

const issue = (projectId, issueId = 1) => ({ event: "issue-updated", issueId, projectId });
const wakeup = (...values) => ({ type: "wakeup", ...issue(...values) });
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);
const stream = (query) => `/api/stream?${query}`;

/* Tabs that watch one project each, from 1 on, on one stream that is live. */
async function sharing(t, count = 2) {
	const browser = new FakeBrowser(t);
	const tabs = range(1, count).map(() => browser.tab());
	await browser.settle();
	const seen = tabs.map((tab, i) => tab.watch("Issues", [i + 1]));
	await browser.pass(250);
	await browser.sync();
	assert.equal(browser.leader(), tabs[0]);
	assert.equal(browser.open().length, 1);
	for (const { messages } of seen)
		assert.deepEqual(messages, [FIRST]);
	const opened = browser.sources.length;
	return Object.assign(browser, { all: tabs, seen, opened,
		requests: () => browser.urls().slice(opened) });
}

/* Each watcher gets the wake-ups of its project, once. */
async function assertLive(browser, ...pairs) {
	for (const [{ messages }, project] of pairs) {
		const before = messages.length;
		await browser.wakeup(`issues:${project}`, issue(project, 77));
		assert.deepEqual(messages.slice(before), [wakeup(project, 77)]);
	}
}

/* ---- One connection */

test("twelve tabs with six kinds of topics are one stream", async (t) => {
	const browser = new FakeBrowser(t);
	const kinds = ["Issues", "TestRuns", "ProjectTestRuns", "Milestones", "ProjectMilestones"];
	const seen = range(1, 12).flatMap((number) => {
		const tab = browser.tab();
		return [tab.watch("Notifications"), ...kinds.map((kind) => tab.watch(kind, [number]))];
	});
	await browser.pass(250);
	await browser.sync();
	const ids = range(1, 12).join(",");
	assert.equal(browser.open().length, 1);
	assert.equal(browser.last().url, stream(`notifications=1&issues=${ids}&testRuns=${ids}` +
	    `&projectTestRuns=${ids}&milestones=${ids}&projectMilestones=${ids}`));
	await browser.wakeup("notifications", { event: "notification", id: "n1" });
	await browser.wakeup("testRuns:3", { event: "e", runId: 3, projectId: 7, targetId: 9 });
	await browser.wakeup("projectTestRuns:3", { event: "e", runId: 42, projectId: 3 });
	await browser.wakeup("milestones:3", { event: "e", milestoneId: 3, projectId: 7 });
	await browser.wakeup("projectMilestones:3", { event: "e", milestoneId: 9, projectId: 3 });
	await browser.wakeup("issues:3", issue(3));
	const told = seen.map(({ messages }) => messages.slice(1));
	assert.equal(seen.every(({ messages: [first] }) => first.first), true);
	assert.equal(told.filter(([message]) => message?.id === "n1").length, 12);
	const [, issues, ...others] = told.slice(12, 18);
	assert.deepEqual(issues, [wakeup(3)]);
	assert.deepEqual(others, [
		[{ type: "wakeup", event: "e", runId: 3, projectId: 7, targetId: 9 }],
		[{ type: "wakeup", event: "e", runId: 42, projectId: 3 }],
		[{ type: "wakeup", event: "e", milestoneId: 3, projectId: 7 }],
		[{ type: "wakeup", event: "e", milestoneId: 9, projectId: 3 }],
	]);
	assert.equal(told.flat().length, 12 + 5);
	assert.deepEqual(seen.flatMap(({ warnings, errors }) => [...warnings, ...errors]), []);
});

test("a tab that watches what is covered gets its first sync without a request", async (t) => {
	const browser = await sharing(t);
	const c = browser.tab().watch("Issues", [2]);
	await browser.settle();
	assert.deepEqual(c.messages, [FIRST]);
	assert.deepEqual(c.states, ["connecting", "live"]);
	await browser.pass(5000);
	assert.deepEqual(browser.requests(), []);
	await assertLive(browser, [c, 2], [browser.seen[1], 2]);
});

test("without watchers there is no stream, lock, channel or listener", async (t) => {
	const browser = await sharing(t);
	for (const { stop } of browser.seen)
		stop();
	await browser.pass(2000);
	assert.deepEqual([browser.open().length, browser.leader()], [0, undefined]);
	for (const { channels, window } of browser.all)
		assert.deepEqual([channels.size, window.listeners], [0, 0]);
	await browser.pass(600000, 1000);
	assert.deepEqual(browser.requests(), []);
});

test("a leader that watches nothing itself still serves the other tabs", async (t) => {
	const browser = await sharing(t);
	browser.seen[0].stop();
	await browser.pass(5000);
	assert.equal(browser.leader(), browser.all[0]);
	await assertLive(browser, [browser.seen[1], 2]);
	browser.seen[1].stop();
	await browser.pass(5000);
	assert.deepEqual([browser.open().length, browser.leader()], [0, undefined]);
});

test("other base URLs and credentials have other leaders", async (t) => {
	const browser = new FakeBrowser(t);
	const tab = browser.tab();
	browser.tab().watch("Issues", [7]);
	tab.watch("Issues", [8], { baseUrl: "/app" });
	tab.watch("Issues", [9], { withCredentials: true });
	await browser.pass(1000);
	assert.deepEqual(browser.urls(), [stream("issues=7"), `/app${stream("issues=8")}`, stream("issues=9")]);
	assert.equal(browser.last().withCredentials, true);
});

test("no callback in a follower after stop(), nor for what others watch", async (t) => {
	const browser = await sharing(t);
	const [, b] = browser.seen;
	await browser.wakeup("issues:1", issue(1));
	b.stop();
	b.stop();
	await browser.wakeup("issues:2", issue(2));
	browser.last().sync();
	await browser.settle();
	assert.deepEqual(b.messages, [FIRST]);
});

test("coalesceMs works in a follower", async (t) => {
	const browser = await sharing(t);
	const c = browser.all[1].watch("Issues", [2], { coalesceMs: 100 });
	await browser.settle();
	for (let i = 0; i < 50; i++)
		await browser.wakeup("issues:2", issue(2));
	await browser.pass(100);
	assert.deepEqual(c.messages, [FIRST, wakeup(2)]);
});

test("data that is not a wake-up: one warning in the leader, nothing in the others", async (t) => {
	const browser = await sharing(t);
	const [a, b] = browser.seen;
	browser.last().event("issues:2", "{");
	browser.last().event("issues:2", '{"event":"sync"}');
	browser.last().event("issues:2", '{"event":"e","issueId":1}');
	browser.last().data({ event: "issue-updated", issueId: 1, projectId: 2 });
	await browser.settle();
	assert.deepEqual([a.messages, b.messages], [[FIRST], [FIRST]]);
	assert.deepEqual([a.warnings.length, b.warnings.length], [1, 0]);
});

/* ---- Change-over: make before break */

for (const number of [0, 1])
	test(`growth in the ${number ? "follower" : "leader"}: the old stream serves until the new one has its sync`, async (t) => {
		const browser = await sharing(t);
		const [a, b] = browser.seen;
		const [old] = browser.open();
		const c = browser.all[number].watch("Issues", [7]);
		await browser.pass(249);
		assert.deepEqual(browser.requests(), []);
		await browser.pass(1);
		assert.deepEqual(browser.requests(), [stream("issues=1,2,7")]);
		assert.equal(browser.open().length, 2);
		await browser.wakeup("issues:1", issue(1, 5));
		old.event("issues:1", JSON.stringify(issue(1, 6)));
		await browser.sync();
		assert.deepEqual(browser.open(), [old, browser.last()], "an event may still be on its way");
		old.event("issues:1", JSON.stringify(issue(1, 7)));
		old.sync();
		old.evict();
		old.readyState = 1;
		await browser.pass(499);
		assert.equal(browser.open().length, 2);
		await browser.pass(1);
		assert.deepEqual(browser.open(), [browser.last()]);
		old.event("issues:1", JSON.stringify(issue(1, 8)));
		await browser.settle();
		assert.deepEqual(a.messages, [FIRST, wakeup(1, 5), wakeup(1, 6), wakeup(1, 7)]);
		assert.deepEqual(b.messages, [FIRST]);
		assert.deepEqual(c.messages, [FIRST]);
		assert.deepEqual(a.states, ["connecting", "live"]);
		await assertLive(browser, [a, 1], [b, 2], [c, 7]);
	});

test("growth of several tabs within 250 ms is one change-over", async (t) => {
	const browser = await sharing(t);
	browser.all[0].watch("Issues", [7]);
	await browser.pass(100);
	browser.all[1].watch("Notifications");
	await browser.pass(100);
	browser.tab().watch("TestRuns", [42]);
	await browser.pass(300);
	await browser.sync();
	await browser.pass(3000);
	assert.deepEqual(browser.requests(), [stream("notifications=1&issues=1,2,7&testRuns=42")]);
});

test("a growth during a change-over replaces the new stream, not the old one", async (t) => {
	const browser = await sharing(t);
	const [old] = browser.open();
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(250);
	const d = browser.all[1].watch("Issues", [8]);
	await browser.pass(250);
	assert.deepEqual(browser.requests(), [stream("issues=1,2,7"), stream("issues=1,2,7,8")]);
	assert.deepEqual(browser.open(), [old, browser.last()]);
	await browser.sync();
	assert.deepEqual([c.messages, d.messages], [[FIRST], [FIRST]]);
	for (const { messages } of browser.seen)
		assert.deepEqual(messages, [FIRST]);
	await browser.pass(500);
	assert.deepEqual(browser.open(), [browser.last()]);
});

test("an old stream that lingers is closed with the others", async (t) => {
	const browser = await sharing(t);
	for (const project of [7, 8]) {
		browser.all[0].watch("Issues", [project]);
		await browser.pass(250);
		await browser.sync();
		assert.equal(browser.open().length, 2);
	}
	browser.all[0].hide();
	await browser.settle();
	assert.deepEqual(browser.open().map(({ tab }) => tab), [browser.all[1]]);
});

test("shrinking reopens nothing for a minute, and then causes no sync", async (t) => {
	const browser = await sharing(t);
	browser.seen[1].stop();
	await browser.pass(59000, 500);
	assert.deepEqual(browser.requests(), []);
	await browser.pass(2000);
	assert.deepEqual(browser.requests(), [stream("issues=1")]);
	await browser.sync();
	await browser.pass(500);
	assert.equal(browser.open().length, 1);
	assert.deepEqual(browser.seen[0].messages, [FIRST]);
	await assertLive(browser, [browser.seen[0], 1]);
});

test("what is watched again within the minute is covered all along", async (t) => {
	const browser = await sharing(t);
	browser.seen[1].stop();
	await browser.pass(30000, 500);
	const c = browser.all[1].watch("Issues", [2]);
	await browser.settle();
	assert.deepEqual(c.messages, [FIRST]);
	await browser.pass(120000, 500);
	assert.deepEqual(browser.requests(), []);
});

test("watched again while it is being dropped: a later sync when it is back", async (t) => {
	const browser = await sharing(t);
	browser.seen[1].stop();
	await browser.pass(60500, 500);
	const c = browser.all[1].watch("Issues", [2]);
	await browser.settle();
	assert.deepEqual(c.messages, [FIRST]);
	await browser.sync();
	await browser.pass(300);
	assert.equal(browser.last().url, stream("issues=1,2"));
	await browser.sync();
	assert.deepEqual(c.messages, [FIRST, LATER]);
	assert.deepEqual(browser.seen[0].messages, [FIRST]);
});

test("no sync on the new stream for 5 s: the old one is given up, and there is a gap", async (t) => {
	const browser = await sharing(t);
	const [old] = browser.open();
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(250 + 4950);
	assert.equal(old.readyState, 1);
	await browser.pass(50);
	assert.deepEqual(browser.open(), [browser.last()]);
	assert.equal(browser.seen[0].states.at(-1), "connecting");
	await browser.sync();
	assert.deepEqual(browser.seen.map(({ messages }) => messages), [[FIRST, LATER], [FIRST, LATER]]);
	assert.deepEqual(c.messages, [FIRST]);
});

for (const how of ["end", "refuse", "evict"])
	test(`the old stream is lost during a change-over (${how}): the new one has it all`, async (t) => {
		const browser = await sharing(t);
		const [old] = browser.open();
		const c = browser.all[1].watch("Issues", [7]);
		await browser.pass(250);
		old[how]();
		await browser.settle();
		assert.deepEqual(browser.open(), [browser.last()]);
		assert.ok(!c.states.includes("parked"));
		await browser.sync();
		assert.deepEqual(browser.seen.map(({ messages }) => messages), [[FIRST, LATER], [FIRST, LATER]]);
		assert.deepEqual(c.messages, [FIRST]);
		await browser.pass(600000, 1000);
		assert.equal(browser.requests().length, 1);
	});

test("the new stream is refused: the old one stays, and it is tried again", async (t) => {
	const browser = await sharing(t);
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(250);
	browser.last().refuse();
	await browser.settle();
	assert.equal(c.refusals, 1);
	await assertLive(browser, [browser.seen[0], 1], [browser.seen[1], 2]);
	await browser.pass(30000, 500);
	assert.equal(browser.requests()[1], stream("issues=1,2,7"));
	await browser.sync();
	assert.deepEqual(c.messages, [FIRST]);
	assert.ok(!browser.seen[0].messages.includes(LATER));
	assert.equal(browser.open().length, 1);
});

test("the new stream is refused and the topics change: one attempt, not two", async (t) => {
	const browser = await sharing(t);
	browser.all[1].watch("Issues", [7]);
	await browser.pass(250);
	browser.last().refuse();
	browser.all[1].watch("Issues", [8]);
	await browser.pass(250);
	await browser.sync();
	await browser.pass(60000, 500);
	assert.deepEqual(browser.requests(), [stream("issues=1,2,7"), stream("issues=1,2,7,8")]);
});

test("the server defers the new stream: the browser reconnects it, the old one stays", async (t) => {
	const browser = await sharing(t);
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(250);
	browser.last().end();
	await browser.sync();
	assert.deepEqual(c.messages, [FIRST]);
	assert.deepEqual(browser.seen[0].messages, [FIRST]);
	assert.equal(browser.requests().length, 1);
});

test("a sync of the old stream during a change-over is for what it carries", async (t) => {
	const browser = await sharing(t);
	const [old] = browser.open();
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(250);
	old.sync();
	await browser.settle();
	assert.deepEqual(c.messages, []);
	await browser.sync();
	assert.deepEqual(c.messages, [FIRST]);
	assert.deepEqual(browser.seen.map(({ messages }) => messages), [[FIRST, LATER], [FIRST, LATER]]);
});

test("200 navigations of a tab under load: the others get no sync and lose nothing", async (t) => {
	const browser = await sharing(t);
	const [a] = browser.seen;
	let published = 0;
	for (let i = 0; i < 200; i++) {
		const c = browser.all[1].watch("Issues", [1000 + i]);
		for (let j = 0; j < 6; j++) {
			await browser.pass(50);
			await browser.wakeup("issues:1", issue(1, ++published));
		}
		await browser.sync();
		assert.deepEqual(c.messages, [FIRST]);
		c.stop();
	}
	const numbers = a.messages.slice(1).map(({ issueId }) => issueId);
	assert.deepEqual([...new Set(numbers)], range(1, published));
	assert.ok(!a.messages.some(({ first }) => first === false));
});

/* ---- Takeover */

for (const [how, action] of [
	["is closed or navigates", (tab) => tab.hide()],
	["crashes", (tab) => tab.crash()],
	["is frozen", (tab) => tab.document.event("freeze")],
])
	test(`the leader ${how}: another tab opens everything at once, and there is a sync`, async (t) => {
		const browser = await sharing(t, 3);
		const [, b, c] = browser.seen;
		action(browser.all[0]);
		await browser.settle();
		assert.equal(browser.leader(), browser.all[1]);
		assert.deepEqual(browser.requests(), [stream("issues=1,2,3")]);
		assert.equal(browser.open().length, 1);
		await browser.sync();
		assert.deepEqual([b.messages, c.messages], [[FIRST, LATER], [FIRST, LATER]]);
		assert.deepEqual(c.states, ["connecting", "live", "connecting", "live"]);
		await assertLive(browser, [b, 2], [c, 3]);
		await browser.pass(200000, 500);
		await browser.sync();
		assert.equal(browser.urls().at(-1), stream("issues=2,3"), "what nobody watches is dropped");
	});

test("a tab that comes back from the back-forward cache follows, and gets a sync", async (t) => {
	const browser = await sharing(t, 3);
	const [a, , c] = browser.seen;
	browser.all[0].hide();
	assert.equal(a.states.at(-1), "waiting");
	assert.equal(browser.all[0].channels.size, 0, "an open channel prevents caching");
	await browser.settle();
	await browser.sync();
	browser.all[0].show();
	await browser.settle();
	assert.deepEqual(a.messages, [FIRST, LATER]);
	assert.equal(browser.leader(), browser.all[1]);
	assert.deepEqual(c.messages, [FIRST, LATER]);
	assert.equal(browser.open().length, 1);
	await assertLive(browser, [a, 1], [c, 3]);
});

for (const [how, sleep, wake] of [
	["back-forward cache", (tab) => tab.hide(), (tab) => tab.show()],
	["freezing", (tab) => tab.document.event("freeze"), (tab) => tab.document.event("resume")],
])
	test(`${how}: a follower that comes back gets a sync, the others none`, async (t) => {
		const browser = await sharing(t);
		const [a, b] = browser.seen;
		sleep(browser.all[1]);
		await browser.wakeup("issues:2", issue(2));
		wake(browser.all[1]);
		await browser.settle();
		assert.deepEqual(b.messages, [FIRST, LATER]);
		assert.deepEqual(b.states, ["connecting", "live", "waiting", "connecting", "live"]);
		assert.deepEqual(a.messages, [FIRST]);
		assert.deepEqual(browser.requests(), []);
		await assertLive(browser, [b, 2]);
	});

test("the only tab comes back: it leads again", async (t) => {
	const browser = await sharing(t, 1);
	browser.all[0].hide();
	assert.equal(browser.open().length, 0);
	await browser.pass(60000, 500);
	browser.all[0].show();
	await browser.settle();
	await browser.sync();
	assert.deepEqual(browser.seen[0].messages, [FIRST, LATER]);
	assert.equal(browser.leader(), browser.all[0]);
});

test("a leader that is suspended just before a change-over opens nothing", async (t) => {
	const browser = await sharing(t, 1);
	browser.all[0].watch("Issues", [7]);
	await browser.pass(100);
	browser.all[0].hide();
	await browser.pass(60000, 500);
	assert.deepEqual(browser.requests(), []);
});

test("a tab that is suspended while it is elected gives the lock to the next one", async (t) => {
	for (let steps = 0; steps < 12; steps++) {
		const browser = new FakeBrowser(t);
		const [one, two] = [browser.tab(), browser.tab()];
		one.watch("Issues", [1]);
		for (let i = 0; i < steps; i++)
			await null;
		one.hide();
		const b = two.watch("Issues", [2]);
		await browser.pass(1000);
		assert.equal(browser.leader(), two);
		await browser.sync();
		assert.deepEqual(b.messages, [FIRST]);
		assert.equal(browser.open().length, 1);
		mock.timers.reset();
	}
});

test("what a former leader carried for others is not carried when it leads again", async (t) => {
	const browser = await sharing(t);
	browser.all[0].hide();
	browser.all[1].hide();
	await browser.settle();
	browser.all[0].show();
	await browser.settle();
	assert.equal(browser.last().url, stream("issues=1"));
});

test("what a suspended follower watched is dropped after a minute", async (t) => {
	const browser = await sharing(t);
	browser.all[1].hide();
	await browser.pass(61000, 500);
	assert.deepEqual(browser.requests(), [stream("issues=1")]);
});

test("components that come and go in the leader cause no messages", async (t) => {
	const browser = await sharing(t);
	const before = browser.posted.length;
	for (let i = 0; i < 50; i++) {
		browser.all[0].watch("Issues", [1]).stop();
		await browser.settle();
	}
	assert.equal(browser.posted.length, before);
});

test("the leader is lost during a change-over: old and new watchers get their sync", async (t) => {
	const browser = await sharing(t, 3);
	const d = browser.all[2].watch("Issues", [7]);
	await browser.pass(250);
	browser.all[0].crash();
	await browser.pass(300);
	await browser.sync();
	await browser.pass(300);
	await browser.sync();
	assert.deepEqual(d.messages, [FIRST]);
	assert.deepEqual(browser.seen[2].messages, [FIRST, LATER]);
	assert.equal(browser.open().length, 1);
	await assertLive(browser, [d, 7]);
});

test("leaders are lost one after the other", async (t) => {
	const browser = await sharing(t, 5);
	for (const tab of browser.all.slice(0, 4)) {
		assert.equal(browser.leader(), tab);
		tab.crash();
		await browser.settle();
		await browser.sync();
	}
	assert.deepEqual(browser.seen[4].messages, [FIRST, LATER, LATER, LATER, LATER]);
	assert.equal(browser.open().length, 1);
});

test("a hidden leader whose timers do not run still relays", async (t) => {
	const browser = await sharing(t);
	browser.all[0].document.visibilityState = "hidden";
	browser.all[0].window.event("visibilitychange");
	const [a, b] = browser.seen;
	await assertLive(browser, [a, 1], [b, 2]);
	browser.last().end();
	browser.last().sync();
	await browser.settle();
	assert.deepEqual(b.messages.at(-1), LATER);
});

test("a follower that crashes is forgotten at the second roll call", async (t) => {
	const browser = await sharing(t);
	await browser.pass(29000);
	browser.all[1].crash();
	await browser.pass(57000 + 60000, 500);
	assert.deepEqual(browser.requests(), []);
	await browser.pass(2000, 500);
	assert.deepEqual(browser.requests(), [stream("issues=1")]);
});

for (const [how, ms] of [["stop", 1500], ["hide", 1500], ["crash", 60000]])
	test(`the leader's tab watches nothing, and the last watcher goes (${how}): the stream is closed`, async (t) => {
		const browser = await sharing(t);
		browser.seen[0].stop();
		await browser.pass(29100);	/* right after it has answered a roll call */
		if (how === "stop")
			browser.seen[1].stop();
		else
			browser.all[1][how]();
		await browser.pass(ms, 100);
		assert.deepEqual(browser.open(), []);
	});

test("followers that live answer each roll call", async (t) => {
	const browser = await sharing(t, 3);
	await browser.pass(600000, 500);
	assert.deepEqual(browser.requests(), []);
	await assertLive(browser, [browser.seen[1], 2], [browser.seen[2], 3]);
});

/* ---- A leader that does not answer */

test("a leader that hangs: a tab that is shown or watches more has its own stream, until it answers", async (t) => {
	const browser = await sharing(t, 3);
	const [a, b, c] = browser.seen;
	browser.all[0].halt();
	browser.all[1].window.event("visibilitychange");
	browser.all[2].watch("Issues", [7]);
	await browser.pass(2900);
	assert.deepEqual(browser.requests(), []);
	await browser.pass(200);
	assert.deepEqual(browser.requests().sort(), [stream("issues=2"), stream("issues=3,7")]);
	await browser.sync();
	assert.deepEqual([b.messages, c.messages], [[FIRST, LATER], [FIRST, LATER]]);
	browser.all[0].thaw();
	await browser.pass(300);
	await browser.sync();
	await browser.pass(500);
	assert.equal(browser.open().length, 1);
	assert.equal(browser.last().url, stream("issues=1,2,3,7"));
	await assertLive(browser, [a, 1], [b, 2], [c, 3]);
});

test("what an isolated tab has begun to watch is carried by the leader once it answers", async (t) => {
	const browser = await sharing(t);
	browser.all[0].halt();
	browser.all[1].window.event("visibilitychange");
	await browser.pass(3000);
	const c = browser.all[1].watch("Issues", [7]);
	await browser.pass(300);
	await browser.sync();
	assert.deepEqual(c.messages, [FIRST]);
	browser.all[0].thaw();
	await browser.pass(300);
	await browser.sync();
	await browser.pass(500);
	assert.deepEqual(browser.open().map(({ url }) => url), [stream("issues=1,2,7")]);
	await assertLive(browser, [c, 7]);
});

test("a leader that hangs for three minutes is noticed without any action", async (t) => {
	const browser = await sharing(t);
	browser.all[0].halt();
	await browser.pass(184000, 1000);
	assert.deepEqual(browser.requests(), [stream("issues=2")]);
	await browser.sync();
	assert.deepEqual(browser.seen[1].messages, [FIRST, LATER]);
});

test("an isolated tab becomes the leader when the hanging one is gone, without a gap", async (t) => {
	const browser = await sharing(t, 3);
	browser.all[0].halt();
	browser.all[1].document.event("visibilitychange");
	await browser.pass(3000);
	await browser.sync();
	browser.all[0].crash();
	await browser.settle();
	assert.equal(browser.leader(), browser.all[1]);
	await browser.pass(300);
	await browser.sync();
	await browser.pass(500);
	assert.deepEqual(browser.seen[1].messages, [FIRST, LATER]);
	assert.deepEqual(browser.seen[2].messages, [FIRST, LATER]);
	assert.equal(browser.open().length, 1);
	await assertLive(browser, [browser.seen[1], 2], [browser.seen[2], 3]);
});

/* ---- Refusals and eviction */

test("a refused stream: every tab gets the state and the call, one tries again", async (t) => {
	const browser = await sharing(t);
	browser.last().refuse();
	await browser.settle();
	for (const { states, refusals } of browser.seen)
		assert.deepEqual([states.at(-1), refusals], ["waiting", 1]);
	await browser.pass(14900, 100);
	assert.deepEqual(browser.requests(), []);
	await browser.pass(200);
	await browser.sync();
	assert.equal(browser.requests().length, 1);
	for (const { messages } of browser.seen)
		assert.deepEqual(messages, [FIRST, LATER]);
});

for (const type of ["online", "visibilitychange"])
	test(`${type} in a follower reopens a refused stream at once`, async (t) => {
		const browser = await sharing(t);
		browser.last().refuse();
		await browser.settle();
		browser.all[1].window.event(type);
		await browser.settle();
		assert.equal(browser.requests().length, 1);
		browser.all[1].window.event(type);
		await browser.settle();
		assert.equal(browser.requests().length, 1);
	});

for (const number of [0, 1])
	test(`evicted: parked in all tabs until the ${number ? "follower" : "leader"} is used`, async (t) => {
		const browser = await sharing(t);
		browser.last().evict();
		await browser.settle();
		for (const { states } of browser.seen)
			assert.equal(states.at(-1), "parked");
		for (const tab of browser.all)
			for (const type of ["online", "visibilitychange"])
				tab.window.event(type);
		browser.all[1].document.visibilityState = "hidden";
		browser.all[1].window.event("keydown");
		browser.all[1].document.visibilityState = "visible";
		await browser.pass(600000, 1000);
		assert.deepEqual(browser.requests(), []);
		browser.all[number].window.event("pointerdown");
		await browser.settle();
		assert.deepEqual(browser.requests(), [stream("issues=1,2")]);
		await browser.sync();
		for (const { messages } of browser.seen)
			assert.deepEqual(messages, [FIRST, LATER]);
		browser.all[number].window.event("pointerdown");
		await browser.settle();
		assert.equal(browser.requests().length, 1);
	});

test("a parked leader is closed: the next one waits for a free slot, evicting nobody", async (t) => {
	const browser = await sharing(t, 3);
	const [, b, c] = browser.seen;
	browser.last().evict();
	await browser.settle();
	browser.all[0].hide();
	await browser.settle();
	assert.deepEqual(browser.requests(), [stream("issues=1,2,3&lastEventId=evicted")]);
	assert.deepEqual([b.states.at(-1), c.states.at(-1)], ["parked", "parked"]);
	browser.all[2].window.event("keydown");
	await browser.settle();
	assert.deepEqual(browser.requests().slice(1), [stream("issues=1,2,3")]);
	await browser.sync();
	assert.deepEqual([b.messages, c.messages], [[FIRST, LATER], [FIRST, LATER]]);
	assert.equal(browser.open().length, 1);
});

test("a parked tab that is suspended stays parked", async (t) => {
	const browser = await sharing(t, 1);
	browser.last().evict();
	browser.all[0].hide();
	browser.all[0].show();
	await browser.settle();
	assert.deepEqual(browser.requests(), [stream("issues=1&lastEventId=evicted")]);
	assert.equal(browser.seen[0].states.at(-1), "parked");
	await browser.sync();
	assert.deepEqual(browser.seen[0].messages, [FIRST, LATER]);
});

/* ---- reset() */

for (const number of [0, 1, 2])
	test(`reset() in the ${["leader", "follower", "page that watches nothing"][number]}: all tabs, nothing old`, async (t) => {
		const browser = await sharing(t);
		const [a, b] = browser.seen;
		const [old] = browser.open();
		(browser.all[number] ?? browser.tab()).reset();
		old.event("issues:1", JSON.stringify(issue(1)));
		if (number !== 0) {
			old.readyState = 1;		/* the leader has not got the message yet */
			old.event("issues:2", JSON.stringify(issue(2)));
		}
		await browser.settle();
		if (number === 1)
			assert.deepEqual(b.messages, [FIRST], "not after reset() in this tab");
		assert.equal(old.readyState, 2);
		assert.deepEqual(browser.requests(), [stream("issues=1,2")]);
		const before = [a, b].map(({ messages }) => messages.length);
		old.event("issues:1", JSON.stringify(issue(1)));
		old.event("issues:2", JSON.stringify(issue(2)));
		await browser.sync();
		assert.deepEqual([a, b].map(({ messages }, i) => messages.slice(before[i])), [[LATER], [LATER]]);
		await assertLive(browser, [a, 1], [b, 2]);
		assert.equal(browser.tabs.flatMap(({ channels }) => [...channels]).length, 2);
	});

test("reset(): a burst of the previous session is not delivered, a first sync is", async (t) => {
	const browser = await sharing(t);
	const seen = browser.all.map((tab, i) => tab.watch("Issues", [i + 1], { coalesceMs: 100 }));
	await browser.settle();
	await browser.wakeup("issues:1", issue(1));
	await browser.wakeup("issues:2", issue(2));
	browser.all[1].reset();
	await browser.pass(100);
	for (const { messages } of seen)
		assert.deepEqual(messages, [FIRST]);
	await browser.sync();
	await browser.pass(100);
	for (const { messages } of seen)
		assert.deepEqual(messages, [FIRST, LATER]);
});

test("a leader that was suspended when reset() was called reopens when it is asked", async (t) => {
	const browser = await sharing(t);
	browser.all[0].halt();
	browser.all[1].reset();
	await browser.pass(3000);
	assert.deepEqual(browser.requests(), [stream("issues=2")]);
	browser.all[0].thaw();
	await browser.pass(300);
	await browser.sync();
	await browser.pass(500);
	assert.deepEqual(browser.open().map(({ url }) => url), [stream("issues=1,2")]);
	await assertLive(browser, [browser.seen[0], 1], [browser.seen[1], 2]);
});

test("reset() opens a parked and a refused stream", async (t) => {
	for (const how of ["evict", "refuse"]) {
		const browser = await sharing(t);
		browser.last()[how]();
		browser.all[1].reset();
		await browser.settle();
		assert.deepEqual(browser.requests(), [stream("issues=1,2")]);
		mock.timers.reset();
	}
});

test("reset() reaches pages with {combined: false}, and tabs without a channel reset themselves", async (t) => {
	const browser = new FakeBrowser(t);
	const [a, b] = [browser.tab(), browser.tab({ BroadcastChannel: undefined })];
	a.watch("Issues", [1], { combined: false });
	b.watch("Issues", [2]);
	await browser.settle();
	await browser.sync();
	browser.tab().reset();
	await browser.settle();
	assert.deepEqual(browser.urls().slice(2), ["/api/issues/stream?projectIds=1"]);
	b.reset();
	assert.deepEqual(browser.urls().slice(3), [stream("issues=2")]);
	assert.equal(browser.open().length, 2);
});

/* ---- Bad messages and other versions */

test("malformed messages of other tabs are ignored, with one warning", async (t) => {
	const browser = await sharing(t);
	const [a, b] = browser.seen;
	const [good] = browser.posted.filter(({ type }) => type === "live").slice(-1);
	const other = new (class {
		name = [...browser.all[0].channels][0].name;
	})();
	const bad = [
		null, 7, "live", [], {}, { ...good, type: "news" }, { ...good, type: "constructor" },
		{ ...good, term: "x" }, { ...good, term: undefined }, { ...good, state: "open" },
		{ ...good, syncs: 7 }, { ...good, syncs: [7] }, { ...good, syncs: [["issues", 1]] },
		{ ...good, syncs: [["issues:07", 1]] }, { ...good, syncs: [["issues:7", "x"]] },
		{ ...good, syncs: undefined }, { ...good, type: "want" },
		{ ...good, type: "want", topics: "issues:7" }, { ...good, type: "want", topics: ["news:7"] },
		{ ...good, type: "want", topics: ["notifications:7"] },
		{ ...good, type: "want", topics: ["toString:7"] },
		{ ...good, type: "event", topics: ["issues"], name: "message", text: "{}" },
		{ ...good, type: "event", topics: "issues:2", name: "message", text: "{}" },
		{ ...good, type: "event", topics: ["issues:2"], text: "{}" },
		{ ...good, type: "event", topics: ["issues:2"], name: "message" },
		{ ...good, type: "event", topics: ["issues:2"], name: "message", text: issue(2) },
	];
	for (const message of bad) {
		browser.post(browser.all[0], other, message);
		await browser.settle();
	}
	assert.deepEqual([a.messages, b.messages], [[FIRST], [FIRST]]);
	assert.deepEqual([a.warnings, b.warnings], Array(2).fill(
	    [["tpi-stream: ignoring a malformed message of another tab", null]]));
	await browser.pass(1000);
	assert.deepEqual(browser.requests(), []);
	await assertLive(browser, [a, 1], [b, 2]);
});

for (const [index, bad] of [{ type: "want", topics: ["news:7"] }, { type: "event", topics: ["issues:2"] }].entries())
	test(`each kind of malformed message is a warning (${bad.type})`, async (t) => {
		const browser = await sharing(t);
		const [good] = browser.posted.filter(({ type }) => type === "live").slice(-1);
		const [{ name }] = browser.all[0].channels;
		browser.post(browser.all[0], { name }, { ...good, ...bad });
		await browser.settle();
		assert.equal(browser.seen[index].warnings.length, 1);
	});

test("tabs with another version of the module have their own leader, and get nothing of the others", async (t) => {
	const browser = await sharing(t);
	const newer = browser.tab({ version: 2 });
	const c = newer.watch("Issues", [7]);
	const d = browser.tab({ version: 2 }).watch("Issues", [8]);
	await browser.pass(250);
	await browser.sync();
	assert.equal(browser.open().length, 2);
	assert.equal(browser.last().url, stream("issues=7,8"));
	await assertLive(browser, [browser.seen[0], 1], [browser.seen[1], 2], [c, 7], [d, 8]);
	newer.reset();
	browser.all[1].window.event("keydown");
	await browser.settle();
	assert.deepEqual(browser.seen[0].messages.filter(({ type }) => type === "sync"), [FIRST]);
	for (const { warnings } of [...browser.seen, c, d])
		assert.deepEqual(warnings, []);
});

test("messages of an earlier leader are ignored", async (t) => {
	const browser = await sharing(t, 3);
	const [, , c] = browser.seen;
	const old = browser.posted.filter(({ type }) => type === "live").at(-1);
	const [{ name }] = browser.all[0].channels;
	browser.all[0].crash();
	await browser.settle();
	await browser.sync();
	browser.post(browser.all[0], { name }, { ...old, state: "parked" });
	browser.post(browser.all[0], { name }, { ...old, type: "event", topics: ["issues:3"], name: "message",
		text: JSON.stringify(issue(3)) });
	await browser.settle();
	assert.deepEqual(c.messages, [FIRST, LATER]);
	assert.equal(c.states.at(-1), "live");
});

/* ---- Fallbacks */

const refuse = () => Promise.reject(new DOMException("no storage", "SecurityError"));
const fail = () => {
	throw new DOMException("no storage", "SecurityError");
};
for (const [name, globals] of [
	["no Web Locks (an insecure origin)", { navigator: {} }],
	["no navigator", { navigator: undefined }],
	["locks that reject (an opaque origin)", { navigator: { locks: { request: refuse } } }],
	["locks that throw", { navigator: { locks: { request: fail } } }],
	["no BroadcastChannel", { BroadcastChannel: undefined }],
	["a BroadcastChannel that throws", { BroadcastChannel: class { constructor() { fail(); } } }],
])
	test(`${name}: each tab has its own combined stream`, async (t) => {
		const browser = new FakeBrowser(t);
		const tabs = [browser.tab(globals), browser.tab(globals)];
		const seen = tabs.map((tab) => [tab.watch("Issues", [7]), tab.watch("TestRuns", [42])]);
		await browser.pass(500);
		await browser.sync();
		assert.deepEqual(browser.urls(), Array(2).fill(stream("issues=7&testRuns=42")));
		assert.deepEqual(seen.flat().map(({ messages }) => messages), Array(4).fill([FIRST]));
		const c = tabs[0].watch("Issues", [8]);
		await browser.pass(250);
		await browser.sync();
		assert.deepEqual(seen[0][0].messages, [FIRST], "make before break");
		await assertLive(browser, [c, 8]);
		tabs[0].hide();
		assert.equal(browser.open().length, 1);
		tabs[0].show();
		await browser.pass(4000);
		await browser.sync();
		assert.deepEqual(seen[0][0].messages, [FIRST, LATER]);
		browser.open()[0].evict();
		tabs[0].window.event("keydown");
		tabs[1].window.event("keydown");
		await browser.sync();
		assert.equal(browser.open().length, 2);
		assert.deepEqual(seen.flat().flatMap(({ warnings, errors }) => [...warnings, ...errors]), []);
	});

test("a private window, or an iframe with partitioned storage, has its own leader", async (t) => {
	const browser = await sharing(t);
	const c = browser.tab({ partition: "private" }).watch("Issues", [7]);
	const d = browser.tab({ partition: "private" }).watch("Issues", [8]);
	await browser.pass(250);
	await browser.sync();
	assert.equal(browser.open().length, 2);
	await assertLive(browser, [browser.seen[0], 1], [c, 7], [d, 8]);
	browser.all[0].crash();
	await browser.settle();
	await browser.sync();
	assert.deepEqual(browser.seen[1].messages.at(-1), LATER);
	assert.ok(!c.messages.includes(LATER));
});

test("{combined: false} in some watchers: their own streams, with the same messages", async (t) => {
	const browser = await sharing(t);
	const c = browser.all[1].watch("Issues", [2], { combined: false });
	await browser.settle();
	await browser.sync();
	assert.deepEqual(browser.requests(), ["/api/issues/stream?projectIds=2"]);
	assert.deepEqual(c.messages, [FIRST]);
});

test("no EventSource: closed, no error, and other tabs are not disturbed", async (t) => {
	const browser = new FakeBrowser(t);
	const a = browser.tab({ EventSource: undefined }).watch("Issues", [7]);
	await browser.settle();
	assert.deepEqual(a.states, ["closed"]);
	a.stop();
	const b = browser.tab().watch("Issues", [7]);
	await browser.pass(2000);
	await browser.sync();
	assert.deepEqual(b.messages, [FIRST]);
	assert.deepEqual(a.errors, []);
});

/* ---- More than 500 topics */

const topicsOf = ({ url }) => new URL(url, "http://localhost").searchParams.get("issues").split(",");

test("over 500 topics over all tabs: several streams, the least recently watched in the second", async (t) => {
	const browser = new FakeBrowser(t);
	const [one, two] = [browser.tab(), browser.tab()];
	const a = one.watch("Issues", range(1, 300));
	await browser.settle();
	const b = two.watch("Issues", range(301, 600));
	const c = two.watch("Issues", [1]);
	await browser.pass(250);
	await browser.sync();
	assert.deepEqual([a, b, c].map(({ messages }) => messages), [[FIRST], [FIRST], [FIRST]]);
	const open = browser.open().map(topicsOf);
	assert.deepEqual(open.map(({ length }) => length).sort(), [100, 500]);
	const [second] = open.filter(({ length }) => length === 100);
	assert.deepEqual(second, range(1, 101).slice(1).map(String), "1 was watched again");
	await assertLive(browser, [c, 1], [b, 450]);
	assert.equal(a.messages.length, 2);
	const before = browser.sources.length;
	await browser.pass(200000, 1000);
	assert.equal(browser.sources.length, before, "roll calls change nothing");
});

test("answering a roll call is not watching again", async (t) => {
	const browser = new FakeBrowser(t);
	const [one, two] = [browser.tab(), browser.tab()];
	one.watch("Issues", [1000]);
	await browser.settle();
	two.watch("Issues", range(301, 600));
	await browser.settle();
	one.watch("Issues", range(1, 300));
	await browser.pass(250);
	await browser.sync();
	const before = browser.sources.length;
	await browser.pass(130000, 1000);
	assert.equal(browser.sources.length, before);
});

test("a topic that moves to the second stream: a sync, and nothing is lost", async (t) => {
	const browser = new FakeBrowser(t);
	const tab = browser.tab();
	const a = tab.watch("Issues", [1]);
	const b = tab.watch("Issues", range(2, 500));
	await browser.settle();
	await browser.sync();
	const c = tab.watch("Issues", [501]);
	await browser.settle();
	await browser.sync();
	assert.deepEqual(a.messages, [FIRST, LATER]);
	await browser.wakeup("issues:1", issue(1));
	assert.ok(a.messages.length >= 3, "from one of the streams, or from both");
	await browser.pass(250);
	await browser.sync();
	await browser.pass(500);
	assert.deepEqual([b.messages, c.messages], [[FIRST], [FIRST]]);
	assert.deepEqual(browser.open().map(topicsOf).map(({ length }) => length).sort(), [1, 500]);
	b.stop();
	await browser.pass(2000);
	await browser.sync();
	await browser.pass(2000);
	assert.equal(browser.open().length, 1, "one stream has room for all again");
	await assertLive(browser, [a, 1], [c, 501]);
});
