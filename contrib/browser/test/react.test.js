// SPDX-License-Identifier: ISC
/*
 * The hooks and the example on React 18 and 19, in jsdom with a fake EventSource. Requires `npm ci`.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { JSDOM } from "jsdom";
import { FIRST, fakePage, pick, separate } from "../testing/fakes.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "tpi-stream-"));
const require = createRequire(import.meta.url);

after(() => rmSync(directory, { recursive: true }));

async function bundle(version, alias) {
	const outfile = join(directory, `react${version}.cjs`);
	await build({
		entryPoints: [`${root}/testing/react-parts.tsx`],
		outfile,
		alias,
		bundle: true,
		platform: "node",
		jsx: "automatic",
		define: { "process.env.NODE_ENV": '"development"' },
		logLevel: "error",
	});
	return outfile;
}

/* React's act() leaves channels open; real ones would keep the process from exiting. */
class FakeChannel {
	port1 = {};
	port2 = { postMessage: () => setImmediate(() => this.port1.onmessage()) };
}

/* A page on which render() shows elements. Reloads the bundle, which holds the streams. */
async function reactPage(t, file) {
	const dom = new JSDOM("<main></main>", { url: "https://example.org/" });
	const { window } = dom;
	const page = await fakePage(t, {
		window,
		document: window.document,
		navigator: window.navigator,
		localStorage: window.localStorage,
		MessageChannel: FakeChannel,
		IS_REACT_ACT_ENVIRONMENT: true,
	});
	delete require.cache[file];
	const parts = require(file);
	const element = window.document.querySelector("main");
	const reactRoot = parts.createRoot(element);
	const { mock: errors } = t.mock.method(console, "error", () => {});
	const act = (action) => parts.act(async () => action());

	return Object.assign(page, parts, separate(pick(parts, /^use(Notifications|\w+Updates)$/)), {
		act,
		/* Whatever was shown: no stream is left open, and React reported no errors. */
		async leave() {
			await act(() => reactRoot.unmount());
			await act(() => page.pass(1000));
			assert.equal(page.open().length, 0);
			assert.deepEqual(errors.calls.map(({ arguments: [text] }) => text), []);
			window.close();
		},
		text: () => element.textContent,
		render: (...values) => act(() => reactRoot.render(parts.createElement(...values))),
		wait: (ms) => act(() => page.pass(ms)),
	});
}

/* Enough time for all timers of a refetch, each of which may start the next. */
async function rounds(page, count) {
	for (let i = 0; i < count; i++)
		await page.wait(200);
}

for (const [major, alias] of [
	["18", { "react": "react18", "react-dom": "react-dom18" }],
	["19", {}],
]) {
	const file = await bundle(major, alias);
	const testReact = (name, action) => test(`React ${major}: ${name}`, async (t) => {
		const page = await reactPage(t, file);
		await action(page, t);
		await page.leave();
	});

	testReact("is the version under test", (page) => {
		assert.equal(page.version.split(".")[0], major);
	});

	testReact("StrictMode opens one stream, and closes it after unmounting", async (page) => {
		const messages = [];
		function App() {
			return page.useNotifications((message) => messages.push(message));
		}
		const app = page.createElement(App);
		await page.render(page.StrictMode, null, app);
		assert.equal(page.text(), "connecting");
		await page.act(() => page.last().sync());
		assert.equal(page.text(), "live");
		await page.wait(250);
		assert.deepEqual(messages, [FIRST]);
		assert.equal(page.sources.length, 1);
		await page.render(page.StrictMode, null);
		await page.wait(1000);
		assert.equal(page.open().length, 0);
	});

	testReact("a new array, options and callback: no reconnect, latest callback", async (page) => {
		const seen = [];
		function App({ name, ids }) {
			page.useIssueUpdates([...ids], (message) => seen.push([name, message]),
			    { coalesceMs: 0, retry: {}, onclosed: () => seen.push([name, "closed"]),
			        onstate: (state) => seen.push([name, state]) });
			return null;
		}
		await page.render(App, { name: "a", ids: [7, 8] });
		await page.render(App, { name: "b", ids: [8, 7, 7] });
		await page.wait(5000);
		await page.act(() => page.last().sync());
		await page.act(() => page.last().refuse());
		assert.deepEqual(page.urls(), ["/api/issues/stream?projectIds=7,8"]);
		assert.deepEqual(seen, [["a", "connecting"], ["b", "live"], ["b", FIRST],
		    ["b", "connecting"], ["b", "waiting"], ["b", "closed"]]);
	});

	testReact("other projects are another watch; none are none, and closed", async (page) => {
		const messages = [];
		function App({ ids }) {
			return page.useIssueUpdates(ids, (message) => messages.push(message));
		}
		for (const ids of [undefined, null, []]) {
			await page.render(App, { ids });
			await page.wait(1000);
			assert.equal(page.text(), "closed");
		}
		assert.equal(page.sources.length, 0);
		await page.render(App, { ids: [7] });
		await page.act(() => page.last().sync());
		assert.equal(page.text(), "live");
		await page.wait(250);
		await page.render(App, { ids: [9] });
		await page.wait(250);
		await page.act(() => page.last().sync());
		assert.equal(page.last().url, "/api/issues/stream?projectIds=9");
		await page.wait(250);
		assert.deepEqual(messages, [FIRST, FIRST]);
		await page.render(App, { ids: [] });
		await page.wait(1000);
		assert.equal(page.text(), "closed");
		assert.equal(page.open().length, 0);
	});

	testReact("another base URL is another watch", async (page) => {
		const App = ({ baseUrl }) => page.useNotifications(() => {}, { baseUrl });
		await page.render(App, { baseUrl: "/a" });
		await page.render(App, { baseUrl: "/b" });
		await page.wait(1000);
		assert.deepEqual(page.open().map(({ url }) => url), ["/b/api/notifications/stream"]);
	});

	testReact("combined: all hooks share one stream; another value is another watch", async (page) => {
		const App = ({ combined }) => page.useNotifications(() => {}, { combined }) +
		    page.useIssueUpdates([7], () => {}, { combined }) +
		    page.useMilestoneUpdates([9], () => {}, { combined });
		const app = (combined) => page.createElement(App, { combined });
		await page.render(page.StrictMode, null, app(true));
		await page.wait(250);
		await page.act(() => page.last().sync());
		assert.equal(page.text(), "livelivelive");
		assert.deepEqual(page.open().map(({ url }) => url),
		    ["/api/stream?notifications=1&issues=7&milestones=9"]);
		await page.render(page.StrictMode, null, app(false));
		await page.wait(1000);
		assert.deepEqual(page.open().map(({ url }) => url), ["/api/notifications/stream",
		    "/api/issues/stream?projectIds=7", "/api/milestones/9/stream"]);
	});

	testReact("TestPlanIt's hooks: another user reopens the stream, the same user does not", async (page) => {
		function App({ userId }) {
			page.useSessionReset(userId);
			page.useNotificationStream(() => {});
			return null;
		}
		const opened = [];
		for (const userId of [undefined, "ann", "ann", undefined, "ann", null, "ben", "ben"]) {
			await page.render(page.StrictMode, null, page.createElement(App, { userId }));
			await page.wait(250);
			await page.act(() => page.last().sync());
			opened.push(page.sources.length);
		}
		assert.deepEqual(opened, [1, 2, 2, 2, 2, 3, 4, 4]);
	});

	testReact("TestPlanIt's hooks: one stream, and the messages that they had", async (page, t) => {
		const seen = [];
		const onWakeUp = (event) => seen.push(event);
		const client = new page.QueryClient();
		t.after(() => client.clear());
		const invalidated = t.mock.method(client, "invalidateQueries", async () => {}).mock;
		function Parts({ enabled }) {
			page.useNotificationStream(() => seen.push("refetch"));
			page.useIssueUpdateStream([8, 7, -1]);
			page.useIssueUpdateStream(7);
			page.useIssueUpdateStream(null);
			page.useTestRunLiveStream({ runId: 42, enabled, onWakeUp });
			page.useProjectTestRunStream({ projectId: 7, enabled, onWakeUp });
			page.useMilestoneLiveStream({ milestoneId: 9, enabled, onWakeUp });
			page.useProjectMilestoneStream({ projectId: 0, onWakeUp });
			return null;
		}
		const show = (enabled) => page.render(page.QueryClientProvider, { client },
		    page.createElement(Parts, { enabled }));
		await show();
		await page.wait(250);
		await page.act(() => page.last().sync());
		assert.deepEqual(page.open().map(({ url }) => url), ["/api/stream?notifications=1" +
		    "&issues=7,8&testRuns=42&projectTestRuns=7&milestones=9"]);
		const send = (topic, data) => page.last().event(topic, JSON.stringify(data));
		await page.act(() => {
			send("testRuns:42", { event: "test_run.completed", runId: 42, projectId: 7 });
			send("milestones:9", { event: "milestone.updated", milestoneId: 9, projectId: 7, targetId: 1 });
			send("issues:8", { event: "issue-updated", issueId: 1, projectId: 8 });
		});
		await page.wait(250);
		assert.deepEqual(seen, [...Array(3).fill({ event: "sync" }),
		    { event: "test_run.completed", runId: 42, projectId: 7 },
		    { event: "milestone.updated", milestoneId: 9, projectId: 7, targetId: 1 }, "refetch"]);
		assert.deepEqual(invalidated.calls.map(({ arguments: [filter] }) => filter),
		    [{ queryKey: ["zenstack"] }]);
		await show(false);
		await page.wait(60250);
		assert.equal(page.last().url, "/api/stream?notifications=1&issues=7,8");
	});

	testReact("many components share one stream, and each gets its state", async (page) => {
		const Row = ({ id }) => page.useIssueUpdates([id], () => {}) + " ";
		const rows = (ids) => ids.map((id) => page.createElement(Row, { key: id, id }));
		await page.render("p", null, rows([1, 2, 3]));
		await page.act(() => page.last().sync());
		assert.equal(page.text(), "live live live ");
		await page.act(() => page.last().evict());
		assert.equal(page.text(), "parked parked parked ");
		assert.deepEqual(page.urls(), ["/api/issues/stream?projectIds=1,2,3"]);
	});

	const OTHERS = [
		["useTestRunUpdates", "/api/test-runs/7/stream",
		    { event: "test_run.completed", runId: 7, projectId: 3 }],
		["useProjectTestRunUpdates", "/api/projects/7/test-runs/stream",
		    { event: "test_run.created", runId: 42, projectId: 7 }],
		["useMilestoneUpdates", "/api/milestones/7/stream",
		    { event: "milestone.updated", milestoneId: 7, projectId: 3, targetId: 1 }],
		["useProjectMilestoneUpdates", "/api/projects/7/milestones/stream",
		    { event: "milestone.created", milestoneId: 9, projectId: 7 }],
	];
	for (const [hook, url, data] of OTHERS)
		testReact(`${hook}: watches, shows its state, coalesces a burst`, async (page) => {
			const messages = [];
			const App = ({ ids }) => page[hook](ids, (message) => messages.push(message));
			await page.render(page.StrictMode, null, page.createElement(App, { ids: [7, 7] }));
			assert.deepEqual(page.urls(), [url]);
			await page.act(() => page.last().sync());
			assert.equal(page.text(), "live");
			await page.wait(250);
			await page.act(() => Array(50).fill(data).forEach((each) => page.last().data(each)));
			await page.wait(249);
			assert.deepEqual(messages, [FIRST]);
			await page.wait(1);
			assert.deepEqual(messages, [FIRST, { type: "wakeup", ...data }]);
			await page.render(page.StrictMode, null, page.createElement(App, { ids: [] }));
			assert.equal(page.text(), "closed");
		});

	testReact("coalesceMs: another value is another watch", async (page) => {
		const messages = [];
		const App = ({ coalesceMs }) =>
		    page.useTestRunUpdates([7], (message) => messages.push(message), { coalesceMs });
		await page.render(App, { coalesceMs: 5000 });
		await page.act(() => page.last().sync());
		await page.wait(4999);
		assert.deepEqual(messages, []);
		await page.render(App, { coalesceMs: 0 });
		await page.wait(5000);
		assert.deepEqual(messages, [FIRST]);
		assert.equal(page.sources.length, 1);
	});

	testReact("a component that remounts on each sync does not reconnect", async (page) => {
		const messages = [];
		function App() {
			page.useIssueUpdates([7], (message) => messages.push(message));
			return null;
		}
		for (let key = 0; key < 10; key++) {
			await page.render(App, { key });
			if (key === 0)
				await page.act(() => page.last().sync());
			await page.wait(500);
		}
		assert.equal(page.sources.length, 1);
		assert.deepEqual(messages, Array(10).fill(FIRST));
	});

	testReact("renders on a server: opens nothing, and the text is that of the first render", async (page) => {
		function App() {
			const hooks = Object.entries(page).filter(([name]) => name.endsWith("Updates"));
			return [page.useNotifications(() => {}),
			    ...hooks.flatMap(([, hook]) => [hook([7], () => {}), hook([], () => {})])].join();
		}
		assert.equal(page.renderToString(page.createElement(App)),
		    "connecting" + ",connecting,closed".repeat(5));
		await page.wait(5000);
		assert.equal(page.sources.length, 0);
	});

	/* An application that uses the example: a list that is unmounted during fetches. */
	async function queryPage(page, t) {
		let issues = 0;
		const waiting = [];
		const requests = [];
		globalThis.fetch = (url) => new Promise((resolve) => {
			requests.push(url);
			waiting.push(() => resolve({ ok: true, json: async () => `${url} ${issues}` }));
		});
		t.after(() => delete globalThis.fetch);

		const List = ({ id }) => page.useIssues(id).data ?? "loading";
		function App({ ids }) {
			const fetching = page.useIssues(ids[0]).isFetching;
			return fetching ? "fetching" :
			    ids.map((id) => page.createElement(List, { key: id, id }));
		}
		const client = new page.QueryClient();
		t.after(() => client.clear());
		Object.assign(page, {
			requests,
			show: (ids) => page.render(page.QueryClientProvider, { client },
			    page.createElement(page.Refetch), page.createElement(App, { ids })),
			async answer() {
				issues++;
				await page.act(() => waiting.splice(0).forEach((resolve) => resolve()));
				await rounds(page, 3);
			},
		});
		await page.show([7]);
		await rounds(page, 3);
		return page;
	}

	const issuesOf = (id) => `/api/projects/${id}/issues`;
	const wake = (page, ...ids) => page.act(() => ids.forEach((id) =>
	    page.last().event(`issues:${id}`,
	        JSON.stringify({ event: "issue-updated", issueId: 1, projectId: id }))));
	const issueStream = (page) => page.open().filter(({ url }) => url.includes("issues"));

	testReact("TanStack: a first sync during the first fetch causes one more", async (page, t) => {
		await queryPage(page, t);
		assert.deepEqual(issueStream(page).map(({ url }) => url),
		    ["/api/stream?notifications=1&issues=7"]);
		await page.act(() => page.last().sync());
		await rounds(page, 3);
		assert.deepEqual(page.requests, [issuesOf(7)]);
		await page.answer();
		assert.deepEqual(page.requests, [issuesOf(7), issuesOf(7)]);
		await page.answer();
		await rounds(page, 10);
		assert.equal(page.text(), `${issuesOf(7)} 2`);
		assert.equal(page.requests.length, 2);
	});

	testReact("TanStack: a burst causes two fetches, and remounting no more", async (page, t) => {
		await queryPage(page, t);
		await page.answer();
		await page.act(() => page.last().sync());
		await rounds(page, 3);
		await page.answer();
		page.requests.length = 0;
		await wake(page, ...Array(50).fill(7));
		await page.wait(199);
		assert.equal(page.requests.length, 0);
		await rounds(page, 3);
		assert.equal(page.text(), "fetching");
		await wake(page, ...Array(50).fill(7));
		await rounds(page, 3);
		assert.equal(page.requests.length, 1);
		await page.answer();
		assert.equal(page.requests.length, 2);
		await page.answer();
		await rounds(page, 20);
		assert.equal(page.requests.length, 2);
		assert.equal(page.text(), `${issuesOf(7)} 4`);
		assert.equal(issueStream(page).length, 1);
	});

	testReact("TanStack: a wake-up refetches only its own project", async (page, t) => {
		await queryPage(page, t);
		await page.answer();
		await page.show([7, 8]);
		await rounds(page, 3);
		await page.answer();
		await rounds(page, 3);
		await page.act(() => page.last().sync());
		await rounds(page, 3);
		await page.answer();
		await page.answer();
		page.requests.length = 0;
		await wake(page, 8);
		await rounds(page, 3);
		assert.deepEqual(page.requests, [issuesOf(8)]);
		await page.answer();
		assert.equal(page.last().url, "/api/stream?notifications=1&issues=7,8");
	});
}

test("plain Node.js: the hooks load without a page", () => {
	const { status, stderr } = spawnSync(process.execPath,
	    ["--input-type=module", "--eval", 'import "tpi-stream-client/react";'],
	    { cwd: root, encoding: "utf8", timeout: 30000 });
	assert.deepEqual([status, stderr], [0, ""]);
});
