// SPDX-License-Identifier: ISC
/*
 * Drives a Firefox that runs already, for ../chromium.py, over WebDriver BiDi:
 * `node --experimental-websocket firefox.js ws://…`. Calls and replies are those of driver.js, which
 * Firefox cannot use: Playwright needs a Firefox build of its own.
 */
import { createInterface } from "node:readline";

const socket = new WebSocket(`${process.argv[2]}/session`);
await new Promise((resolve, reject) => {
	socket.onopen = resolve;
	socket.onerror = reject;
});

const pending = new Map();
let commands = 0;

socket.onmessage = ({ data }) => {
	const { id, type, method, params, result, message } = JSON.parse(data);
	if (method === "log.entryAdded")
		process.stderr.write(`${params.source.context}: ${params.text}\n`);
	const command = pending.get(id);
	pending.delete(id);
	if (type === "error")
		command?.reject(new Error(message));
	else
		command?.resolve(result);
};

function send(method, params) {
	const id = ++commands;
	socket.send(JSON.stringify({ id, method, params }));
	return new Promise((resolve, reject) => pending.set(id, { resolve, reject }));
}

const { capabilities } = await send("session.new", { capabilities: {} });
await send("session.subscribe", { events: ["log.entryAdded"] });
const tabs = [];

async function create(params) {
	const { context } = await send("browsingContext.create", params);
	return tabs.push(context) - 1;
}

/* As JSON, because BiDi has its own notation of values. eval() accepts statements, too. */
async function evaluate(tab, expression) {
	const { result, exceptionDetails } = await send("script.evaluate", {
		expression: `(async () => JSON.stringify(await (0, eval)(${JSON.stringify(expression)})) ?? null)()`,
		target: { context: tabs[tab] },
		awaitPromise: true,
	});
	if (exceptionDetails)
		throw new Error(exceptionDetails.text);
	return JSON.parse(result.value ?? null);
}

/* In a container, whose storage, locks and channels are its own, like those of a private window. */
async function openPrivate() {
	return create({ type: "tab", ...await send("browser.createUserContext", {}) });
}

const calls = {
	open: () => create({ type: "tab" }),
	openPrivate,
	openWindow: () => create({ type: "window" }),
	version: () => capabilities.browserVersion,
	goto: (tab, url) => send("browsingContext.navigate", { context: tabs[tab], url, wait: "complete" }).then(() => null),
	evaluate,
	show: (tab) => send("browsingContext.activate", { context: tabs[tab] }),
	cookie: (url, name, value) => send("storage.setCookie", {
		cookie: { name, value: { type: "string", value }, domain: new URL(url).hostname, path: "/" },
	}),
	clear: () => send("storage.deleteCookies", {}),
	close: (tab) => send("browsingContext.close", { context: tabs[tab] }),
};

async function answer({ id, call, args }) {
	const reply = await (async () => calls[call](...args))().then(
	    (value) => ({ id, value: value ?? null }), (error) => ({ id, error: error.message }));
	process.stdout.write(`${JSON.stringify(reply)}\n`);
}

for await (const line of createInterface({ input: process.stdin }))
	answer(JSON.parse(line));
socket.close();
