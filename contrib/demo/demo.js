// SPDX-License-Identifier: ISC
/*
 * demo: the page of contrib/quickstart.sh. It shows how an application uses tpi-stream.js: a wake-up
 * or a sync only says that something has changed, or may have. The page then refetches from the
 * application (app.py); it never takes data from a stream.
 */
import { watchIssues, watchNotifications } from "./tpi-stream.js";

const LOG_MAX = 100;
const TOKEN = document.querySelector("meta[name=demo-token]").content;

/* Explanations of some states of a stream. */
const WHY = {
	waiting: "The stream was refused or the page was suspended. It will be retried.",
	parked: "You have too many tabs open. Click anywhere or press a key to continue in this one.",
	closed: "This browser has no EventSource.",
};

/* The button of an issue, by status. */
const MOVES = {
	"open": { verb: "Start", to: "in progress" },
	"in progress": { verb: "Finish", to: "done" },
	"done": { verb: "Reopen", to: "open" },
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

/* Shows what went wrong until the same thing is tried again. */
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
	notifications: refetcher("notifications", showNotifications),
	issues: refetcher("issues", showIssues),
};

/* Refetches afterwards, since the page may have no stream at the moment. */
async function post(path, value, changed) {
	await attempt("post", () => ask(path, {
		method: "POST",
		headers: { "Content-Type": "application/json", "X-Demo-Token": TOKEN },
		body: JSON.stringify(value),
	}));
	await refetch[changed]();
}

/* ---- Notifications */

function showNotifications(notifications) {
	const unread = notifications.filter(({ read }) => !read).length;
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

/* ---- Issues: updated in place to keep the keyboard focus */

function projectCard({ id, name }) {
	const found = $(`project-${id}`);
	if (found)
		return found;
	const card = fromTemplate("project");
	const form = card.querySelector("form");
	card.id = `project-${id}`;
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
	$("projects").append(card);
	return card;
}

function issueRow({ id }, list) {
	const found = $(`issue-${id}`);
	if (found)
		return found;
	const row = fromTemplate("issue");
	row.id = `issue-${id}`;
	row.querySelector(".number").textContent = `#${id}`;
	row.querySelector("button").addEventListener("click", () =>
		post("move", { id, status: MOVES[row.dataset.status].to }, "issues"));
	list.prepend(row);
	return row;
}

function showIssue(issue, list) {
	const row = issueRow(issue, list);
	const button = row.querySelector("button");
	const { verb } = MOVES[issue.status];
	row.dataset.status = issue.status;
	row.querySelector(".title").textContent = issue.title;
	row.querySelector(".status").textContent = issue.status;
	button.textContent = verb;
	button.setAttribute("aria-label", `${verb} #${issue.id}: ${issue.title}`);
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

/* Highlights the issue of a wake-up. Restarts the animation if it is running. */
function mark(issueId) {
	$(`issue-${issueId}`)?.animate([{ background: "var(--flash)" }, {}], { duration: 2000 });
}

/* ---- The streams */

function log(stream, message) {
	const item = fromTemplate("arrived");
	const { type, ...fields } = message;
	item.className = type;
	item.querySelector("b").textContent = type === "sync" ? "sync" : "wake-up";
	item.querySelector("small").textContent = `${stream}, ${clock(new Date())}`;
	item.querySelector("code").textContent =
	    Object.entries(fields).map(([name, value]) => `${name}: ${value}`).join(", ");
	item.querySelector("span").textContent = meaning(message);
	$("log").prepend(item);
	while ($("log").children.length > LOG_MAX)
		$("log").lastChild.remove();
}

function showState(stream, state) {
	const line = $(`state-${stream}`);
	line.dataset.state = state;
	line.querySelector("b").textContent = state;
	const reasons = [...document.querySelectorAll(".stream")].map(({ dataset }) =>
		WHY[dataset.state]);
	$("why").textContent = reasons.find(Boolean) ?? "";
	$("why").hidden = !$("why").textContent;
}

function meaning({ type, first }) {
	if (type === "wakeup")
		return "Something has changed: refetch it.";
	return first ? "Watching from now on: refetch everything." :
	    "Wake-ups may have been lost: refetch everything.";
}

/* Every message means the same: refetch. */
function listener(stream) {
	return async (message) => {
		log(stream, message);
		await refetch[stream]();
		if (message.issueId)
			mark(message.issueId);
	};
}

function options(stream) {
	return { onstate: (state) => showState(stream, state) };
}

async function start() {
	const { user, name, projects } = await ask("me");
	$("name").textContent = name;
	$("avatar").textContent = name[0];
	$("avatar").classList.add(user);
	$("switch").href = `/demo/api/switch?from=${user}`;

	watchNotifications(listener("notifications"), options("notifications"));
	watchIssues(projects, listener("issues"), options("issues"));
	/* Show the data even if no stream can be opened. */
	refetch.notifications();
	refetch.issues();
}

/* ---- The rest of the page */

$("send").addEventListener("submit", (event) => {
	event.preventDefault();
	post("notify", { to: event.submitter.value, text: $("text").value }, "notifications");
});
$("read").addEventListener("click", () => post("read", {}, "notifications"));
$("clear").addEventListener("click", () => $("log").replaceChildren());

/* The theme of the system, unless the user has chosen another one in this browser. */
const root = document.documentElement;
const systemTheme = () => matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
if (localStorage.theme)
	root.dataset.theme = localStorage.theme;
$("theme").addEventListener("click", () => {
	const theme = (root.dataset.theme ?? systemTheme()) === "dark" ? "light" : "dark";
	root.dataset.theme = localStorage.theme = theme;
});

attempt("start", start);
