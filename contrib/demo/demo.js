// SPDX-License-Identifier: ISC
/*
 * demo: the page of contrib/quickstart.sh. It shows how an application uses tpi-stream.js: a wake-up
 * or a sync only says that something has changed, or may have. The page then refetches from the
 * application (app.py); it never takes data from a stream.
 */
import { reset, watchIssues, watchNotifications, watchProjectTestRuns } from "./tpi-stream.js";

const LOG_MAX = 50;
const RUN_MS = 700;	/* between two results of "Run the tests" */
const POLL_MS = 1000;	/* how often to ask for the daemon's state while a stream is interrupted */
const COUNT_MS = 1000;	/* how often to count tabs and connections */
const TAB = "demo tab";	/* a lock that every tab shares */
const TOKEN = document.querySelector("meta[name=demo-token]").content;

/* The button of an issue, by status. */
const MOVES = {
	"open": { verb: "Start", to: "in progress" },
	"in progress": { verb: "Finish", to: "done" },
	"done": { verb: "Reopen", to: "open" },
};

/* What the page shows and watches, by the fragment of its URL. */
const VIEWS = {
	"test-run": {
		name: "test run",
		what: "run",
		watch: (...rest) => watchProjectTestRuns([me.runProject], ...rest),
	},
	"issues": {
		name: "issues",
		what: "issues",
		watch: (...rest) => watchIssues(me.projects, ...rest),
	},
};

const $ = (id) => document.getElementById(id);

function fromTemplate(id) {
	return $(id).content.firstElementChild.cloneNode(true);
}

function clock(time) {
	return time.toLocaleTimeString([], { hourCycle: "h23" });
}

/* ---- The application */

async function ask(path, options) {
	const answer = await fetch(`/demo/api/${path}`, options);
	const value = await answer.json().catch(() => null);
	if (!answer.ok)
		throw new Error(value?.error ?? `the application answers ${answer.status}`);
	return value;
}

/* Shows what went wrong until the same thing is tried again. Returns whether it worked. */
const errors = new Map();

async function attempt(what, action) {
	errors.delete(what);
	try {
		await action();
	} catch (error) {
		errors.set(what, error.message);
	}
	$("error").textContent = [...errors.values()].join(" ");
	$("error").hidden = errors.size === 0;
	return !errors.has(what);
}

/* Handles bursts of wake-ups: one fetch at a time, and one more for all that arrived meanwhile. */
function refetcher(what, show) {
	let running = null;
	let again = false;
	async function run() {
		while (again) {
			again = false;
			await attempt(what, async () => show(await ask(what)));
		}
		running = null;
	}
	return () => {
		again = true;
		running ??= run();
		return running;
	};
}

const refetch = {
	run: refetcher("run", showRun),
	issues: refetcher("issues", showIssues),
	notifications: refetcher("notifications", showNotifications),
	daemon: refetcher("daemon", showDaemon),
	connections: refetcher("connections", showConnections),
};

/* Refetches afterwards, since the page may have no stream at the moment. */
async function post(path, value, changed) {
	const done = await attempt("post", () => ask(path, {
		method: "POST",
		headers: { "Content-Type": "application/json", "X-Demo-Token": TOKEN },
		body: JSON.stringify(value),
	}));
	await refetch[changed]();
	return done;
}

/* ---- Rows: updated in place to keep the keyboard focus; a changed one lights up */

function row(id, list, template, where = "append") {
	if (!$(id))
		list[where](Object.assign(fromTemplate(template), { id }));
	return $(id);
}

function flash(element) {
	if (element?.getAnimations().length === 0)
		element.animate([{ background: "var(--flash)" }, { background: "var(--flash)" }, {}],
		    { duration: 2500 });
}

function fill(item, { id, title }, now) {
	const before = item.dataset.state;
	item.dataset.state = now;
	item.querySelector(".number").textContent = `#${id}`;
	item.querySelector(".title").textContent = title;
	item.querySelector(".pill").textContent = now;
	if (before && before !== now)
		flash(item);
}

/* ---- The test run */

let testing = false;	/* this page runs the tests, in this loop */
let loop = null;
let untested = [];

function showRun({ id, projectId, name, cases }) {
	const count = (result) => cases.filter((one) => one.result === result).length;
	const percent = (number) => Math.round(100 * number / cases.length);
	const passed = count("passed");
	const failed = count("failed");
	const done = percent(passed + failed);
	untested = cases.filter(({ result }) => result === "untested");
	$("run-title").textContent = name;
	$("run-hint").textContent = `test run ${id}, project ${projectId}`;
	$("percent").textContent = `${done}%`;
	$("passed").textContent = passed;
	$("failed").textContent = failed;
	$("untested").textContent = untested.length;
	$("progress").style.setProperty("--passed", `${percent(passed)}%`);
	$("progress").style.setProperty("--failed", `${percent(failed)}%`);
	$("progress").setAttribute("aria-valuenow", done);
	for (const one of cases)
		showCase(one, id);
	showRunButton();
}

function showCase(one, runId) {
	const item = row(`case-${runId}-${one.id}`, $("cases"), "case");
	fill(item, one, one.result);
	for (const button of item.querySelectorAll("button")) {
		button.setAttribute("aria-label", `${button.textContent} #${one.id}: ${one.title}`);
		button.setAttribute("aria-pressed", button.value === one.result);
		button.onclick = () => sendResult(one.id, button.value);
	}
}

function showRunButton() {
	$("run").textContent = testing ? "Pause" : untested.length ? "Run the tests" : "Run again";
}

function sendResult(id, result) {
	return post("result", { id, result }, "run");
}

/* Sends one result after the other, as a test runner would. */
async function runTests() {
	if (!untested.length)
		testing = await post("restart", {}, "run");
	while (testing && untested.length) {
		const passed = Math.random() < 0.85;
		testing = await sendResult(untested[0].id, passed ? "passed" : "failed") && testing;
		await new Promise((resolve) => setTimeout(resolve, RUN_MS));
	}
	testing = false;
	loop = null;
	showRunButton();
}

$("run").addEventListener("click", () => {
	testing = !testing;
	showRunButton();
	if (testing)
		loop ??= runTests();
});

/* ---- Issues */

function projectCard({ id, name }) {
	const found = $(`project-${id}`);
	if (found)
		return found;
	const card = row(`project-${id}`, $("projects"), "project");
	const form = card.querySelector("form");
	card.querySelector("h2").textContent = name;
	card.querySelector("h2").id = `title-${id}`;
	card.setAttribute("aria-labelledby", `title-${id}`);
	form.elements.title.id = `report-${id}`;
	form.querySelector("label").htmlFor = `report-${id}`;
	form.addEventListener("submit", (event) => {
		event.preventDefault();
		post("report", { projectId: id, title: form.elements.title.value }, "issues");
		form.reset();
	});
	return card;
}

function showIssue(issue, list) {
	const item = row(`issue-${issue.id}`, list, "issue", "prepend");
	const button = item.querySelector("button");
	const { verb, to } = MOVES[issue.status];
	fill(item, issue, issue.status);
	button.textContent = verb;
	button.setAttribute("aria-label", `${verb} #${issue.id}: ${issue.title}`);
	button.onclick = () => post("move", { id: issue.id, status: to }, "issues");
}

function showIssues(projects) {
	for (const project of projects) {
		const card = projectCard(project);
		const left = project.issues.filter(({ status }) => status !== "done").length;
		card.querySelector(".hint").textContent = `project ${project.id}, ${left} to do`;
		for (const issue of [...project.issues].reverse())
			showIssue(issue, card.querySelector("ul"));
	}
}

/* ---- Notifications */

function showNotifications(notifications) {
	const unread = notifications.filter(({ read }) => !read).length;
	if (unread > Number($("unread").textContent))
		flash($("bell"));
	$("unread").textContent = unread;
	$("unread").hidden = $("read").disabled = unread === 0;
	$("bell").setAttribute("aria-label", `Notifications, ${unread} unread`);
	document.title = `${unread ? `(${unread}) ` : ""}tpi-stream demo`;
	$("none").hidden = notifications.length > 0;
	$("notifications").replaceChildren(...notifications.map(({ text, from, time, read }) => {
		const item = document.createElement("li");
		const hint = document.createElement("small");
		item.className = read ? "" : "unread";
		item.textContent = text;
		hint.textContent = `${from}, ${clock(new Date(time * 1000))}`;
		item.append(hint);
		return item;
	}));
}

$("send").addEventListener("submit", (event) => {
	event.preventDefault();
	post("notify", { to: $("to").value, text: $("text").value }, "notifications");
});
$("read").addEventListener("click", () => post("read", {}, "notifications"));

/* ---- The log */

/* A UUID says little: its beginning is enough to recognize it. */
function shorten(value) {
	return typeof value === "string" && value.length > 24 ? `${value.slice(0, 8)}…` : value;
}

function meaning({ type, first, ...fields }) {
	if (type === "wakeup")
		return Object.entries(fields).map(([name, value]) =>
			name === "event" ? value : `${name} ${shorten(value)}`).join(", ");
	return first ? "Watching from now on: refetch." :
	    "Wake-ups may have been lost: refetch.";
}

function log(kind, stream, text) {
	const item = fromTemplate("arrived");
	item.className = kind;
	item.querySelector("b").textContent = `${kind} · ${stream}`;
	item.querySelector("time").textContent = clock(new Date());
	item.querySelector("span").textContent = text;
	$("log").prepend(item);
	while ($("log").children.length > LOG_MAX)
		$("log").lastChild.remove();
}

$("clear").addEventListener("click", () => $("log").replaceChildren());

/* ---- The daemon, and the states of the streams */

let daemon = { running: true, by: null };
let poll;

const state = (line) => $(`state-${line}`).dataset.state ?? "connecting";
const states = () => [state("view"), state("notifications")];

/* What to say: the first of these that is true. */
function why() {
	const has = (wanted) => states().includes(wanted);
	if (!daemon.running)
		return `${daemon.by} stopped the daemon. Changes from other windows do not arrive here.`;
	if (has("parked"))
		return "You have too many windows open. Click anywhere or press a key to continue here.";
	if (has("closed"))
		return "This browser has no EventSource.";
	if (has("waiting"))
		return "The stream was refused, or the page was suspended. It will be retried.";
	if (has("connecting"))
		return daemon.by ? `${daemon.by} started the daemon. The browser reconnects within 10 seconds.` :
		    "Connecting to tpi-streamd. Changes from other windows do not arrive here yet.";
	return "Changes from other windows arrive here. Stop the daemon to watch the page heal.";
}

function showStatus() {
	const live = states().every((one) => one === "live");
	const pending = $("daemon").disabled;
	$("why").textContent = why();
	$("status").dataset.state = !daemon.running ? "stopped" : live ? "live" : "connecting";
	if (!pending)
		$("daemon").textContent = daemon.running ? "Stop the daemon" : "Start the daemon";
	$("daemon").classList.toggle("primary", !daemon.running);
	/* While a stream is interrupted, nothing else tells the page that another one started the daemon. */
	clearTimeout(poll);
	if (!document.hidden && (!daemon.running || states().includes("connecting")))
		poll = setTimeout(refetch.daemon, POLL_MS);
}

function showDaemon(value) {
	daemon = value;
	showStatus();
}

function showState(line, name, now) {
	if (state(line) === "live" && now === "connecting")
		log("lost", name, "Disconnected. The browser reconnects.");
	setState(line, now);
	showStatus();
}

function setState(line, now) {
	$(`state-${line}`).dataset.state = now;
	$(`state-${line}`).querySelector("b").textContent = now;
}

$("daemon").addEventListener("click", async () => {
	const { running } = daemon;
	$("daemon").disabled = true;
	$("daemon").textContent = running ? "Stopping…" : "Starting…";
	await post("daemon", { run: !running }, "daemon");
	$("daemon").disabled = false;
	showStatus();
});

/* ---- Tabs and connections */

let count;

/* The browser counts the tabs of this site, the daemon the connections of all browsers. */
async function showConnections({ connections }) {
	const { held } = await navigator.locks.query();
	const amount = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
	const tabs = held.filter(({ name }) => name === TAB).length;
	$("connections").textContent = `${amount(tabs, "tab")}, ${amount(connections, "connection")}`;
}

async function countConnections() {
	clearTimeout(count);
	await refetch.connections();
	clearTimeout(count);
	if (!document.hidden)
		count = setTimeout(countConnections, COUNT_MS);
}

/* ---- The streams */

/* Every message means the same: refetch. The row that a wake-up names lights up. */
function watcher(line, name, what) {
	const listener = async (message) => {
		log(message.type === "sync" ? "sync" : "wake-up", name, meaning(message));
		await refetch[what]();
		flash($(`issue-${message.issueId}`) ?? $(`case-${message.runId}-${message.targetId}`));
	};
	return [listener, { combined: true, onstate: (now) => showState(line, name, now) }];
}

let me = null;
let stop = () => {};

function showView() {
	const view = VIEWS[location.hash.slice(1)] ? location.hash.slice(1) : "test-run";
	const { name, watch, what } = VIEWS[view];
	stop();
	stop = () => {};
	setState("view", "connecting");
	document.body.dataset.view = view;
	$("view-name").textContent = name;
	for (const link of document.querySelectorAll(".views a"))
		link.ariaCurrent = link.hash === `#${view}` ? "page" : null;
	if (!me)
		return;
	refetch[what]();	/* shows the data even if no stream can be opened */
	stop = watch(...watcher("view", name, what));
}

async function start() {
	me = await ask("me");
	/* The tabs share a connection, so the user of one is the user of all: see the event "storage". */
	if (localStorage.user !== me.user) {
		localStorage.user = me.user;
		reset();
	}
	$("name").textContent = me.name;
	$("avatar").textContent = me.name[0];
	$("avatar").classList.add(me.user);
	$("switch").href = `/demo/api/switch?from=${me.user}`;
	watchNotifications(...watcher("notifications", "notifications", "notifications"));
	refetch.notifications();
	refetch.daemon();
	showView();
	navigator.locks.request(TAB, { mode: "shared" }, () => new Promise(() => {}));
	countConnections();
}

addEventListener("hashchange", showView);
addEventListener("storage", ({ key }) => key === "user" && location.reload());
document.addEventListener("visibilitychange", () => {
	showStatus();
	if (me)
		countConnections();
});

/* The theme of the system, unless the user has chosen another one in this browser. */
const root = document.documentElement;
const systemTheme = () => matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
if (localStorage.theme)
	root.dataset.theme = localStorage.theme;
$("theme").addEventListener("click", () => {
	const theme = (root.dataset.theme ?? systemTheme()) === "dark" ? "light" : "dark";
	root.dataset.theme = localStorage.theme = theme;
});

showView();
attempt("start", start);
