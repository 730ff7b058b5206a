// SPDX-License-Identifier: ISC
/*
 * Drives a Chromium that runs already, for ../chromium.py: `node driver.js ws://…`.
 *
 * Each line of standard input is a call, {"id": 1, "call": "goto", "args": [0, "http://…"]}, each line of
 * standard output the answer to one, {"id": 1, "value": …} or {"id": 1, "error": "…"}. A tab is the number that
 * open() has answered. What pages say on their console, and what they throw, goes to standard error.
 *
 * It works on the browser's default context and without Playwright's defaults, which would show every
 * tab as visible: here a tab is hidden behind another one as it is for people.
 */
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.connectOverCDP(process.argv[2], { noDefaults: true });
const [context] = browser.contexts();
const tabs = [];

function report(number, text) {
	process.stderr.write(`tab ${number}: ${text}\n`);
}

function open() {
	return context.newPage().then(adopt);
}

/* A window of its own, so that its page stays visible while other windows are used. */
async function openWindow() {
	const session = await browser.newBrowserCDPSession();
	const [tab] = await Promise.all([
		context.waitForEvent("page"),
		session.send("Target.createTarget", { url: "about:blank", newWindow: true }),
	]);
	await session.detach();
	return adopt(tab);
}

/* In a profile of its own. */
async function openPrivate() {
	return adopt(await (await browser.newContext()).newPage());
}

function adopt(tab) {
	const number = tabs.push(tab) - 1;
	tab.on("console", (message) => report(number, message.text()));
	tab.on("pageerror", (error) => report(number, error.stack));
	return number;
}

/* The clock of a page goes forward at once, timers and EventSource included, and stands still from then on. */
async function skip(tab, seconds) {
	const session = await context.newCDPSession(tabs[tab]);
	const passed = new Promise((resolve) => session.once("Emulation.virtualTimeBudgetExpired", resolve));
	await session.send("Emulation.setVirtualTimePolicy", { policy: "advance", budget: seconds * 1000 });
	await passed;
}

/* Delays each response, so that the page is painted before its data arrives. */
async function delay(tab, ms) {
	const session = await context.newCDPSession(tabs[tab]);
	await session.send("Network.emulateNetworkConditions",
	    { offline: false, latency: ms, downloadThroughput: -1, uploadThroughput: -1 });
}

async function lifecycle(tab, state) {
	const session = await context.newCDPSession(tabs[tab]);
	await session.send("Page.setWebLifecycleState", { state });
	await session.detach();
}

const calls = {
	open,
	openWindow,
	openPrivate,
	skip,
	delay,
	lifecycle,
	version: async () => browser.version(),
	goto: (tab, url) => tabs[tab].goto(url).then(() => null),
	back: (tab) => tabs[tab].goBack({ waitUntil: "commit" }).then(() => null),
	evaluate: (tab, expression) => tabs[tab].evaluate(expression),
	show: (tab) => tabs[tab].bringToFront(),
	click: (tab) => tabs[tab].mouse.click(10, 10),
	press: (tab, selector) => tabs[tab].click(selector),
	size: (tab, width, height) => tabs[tab].setViewportSize({ width, height }),
	theme: (tab, colorScheme) => tabs[tab].emulateMedia({ colorScheme }),
	offline: (value) => context.setOffline(value),
	cookie: (url, name, value) => context.addCookies([{ url, name, value }]),
	clear: () => context.clearCookies(),
	close: (tab) => tabs[tab].close(),
};

async function answer({ id, call, args }) {
	const reply = await calls[call](...args).then(
	    (value) => ({ id, value: value ?? null }), (error) => ({ id, error: error.message }));
	process.stdout.write(`${JSON.stringify(reply)}\n`);
}

for await (const line of createInterface({ input: process.stdin }))
	answer(JSON.parse(line));
await browser.close();
