// SPDX-License-Identifier: ISC
/*
 * tpi-stream: wake-ups of tpi-stream for web pages. See README.md for how to use it.
 *
 * A topic is a string: "notifications", or a kind and an id, such as "issues:7". A hub holds the
 * watchers of a base URL and the streams that carry their topics.
 *
 * Invariants:
 * - Each topic that is watched has one stream, and a stream has at most one EventSource.
 * - No callback is called from within watch…(), nor after stop().
 * - A watcher's first sync is {first: true}. It is sent when none of its topics is still about to be
 *   covered for the first time, and at least one is covered.
 * - Loading this module has no side effects: it listens to the page only while there are hubs.
 */

const UNION_MS = 250;		/* changes of the ids within this time cause one reconnect */
const GRACE_MS = 1000;		/* how long unwatched topics and streams are kept */
const IDS_MAX = 500;		/* ids per stream, a limit of the server */
const ID_MAX = 2147483647;	/* also the longest delay of setTimeout() */
const CLOSED = 2;		/* EventSource.CLOSED, for environments without EventSource */

const notification = ({ id }) => typeof id === "string" && { id };
const issue = ({ issueId, projectId }) =>
    isId(issueId) && isId(projectId) && { issueId, projectId };
const testRun = ({ runId, projectId, targetId }) =>
    isId(runId) && isId(projectId) && withTarget({ runId, projectId }, targetId);
const milestone = ({ milestoneId, projectId, targetId }) =>
    isId(milestoneId) && isId(projectId) && withTarget({ milestoneId, projectId }, targetId);

/*
 * For each kind of topic: the path of its stream, in which * stands for the ids; how many topics a
 * stream carries; and the fields of a wake-up, or false if the data is not a wake-up.
 */
const KINDS = {
	notifications: { path: "/api/notifications/stream", room: 1, fields: notification },
	issues: { path: "/api/issues/stream?projectIds=*", room: IDS_MAX, fields: issue },
	testRuns: { path: "/api/test-runs/*/stream", room: 1, fields: testRun },
	projectTestRuns: { path: "/api/projects/*/test-runs/stream", room: 1, fields: testRun },
	milestones: { path: "/api/milestones/*/stream", room: 1, fields: milestone },
	projectMilestones: { path: "/api/projects/*/milestones/stream", room: 1, fields: milestone },
};

/* A watcher of several streams has the last of their states in this order. */
const STATES = ["live", "connecting", "waiting", "parked", "closed"];

const hubs = new Set();

function isId(value) {
	return Number.isInteger(value) && value >= 1 && value <= ID_MAX;
}

function withTarget(fields, targetId) {
	return targetId === undefined ? fields : isId(targetId) && { ...fields, targetId };
}

function check(good, wanted, found) {
	if (!good)
		throw new TypeError(`tpi-stream: ${wanted}, not ${String(found)}`);
}

/* ---- Watchers */

class Hub {
	watchers = new Set();
	streams = new Set();
	homes = new Map();	/* the stream of each topic that is watched */
	syncs = 0;

	constructor(baseUrl, withCredentials) {
		Object.assign(this, { baseUrl, withCredentials });
	}

	add(watcher) {
		this.watchers.add(watcher);
		this.change();
	}

	remove(watcher) {
		if (this.watchers.delete(watcher))
			this.change();
	}

	/* Deferred until the current task ends, so that all watchers of a mounting page share a request. */
	change() {
		if (!this.changed)
			queueMicrotask(() => this.replan());
		this.changed = true;
	}

	replan() {
		this.changed = false;
		const wanted = new Map();
		for (const watcher of this.watchers)
			for (const topic of watcher.topics)
				wanted.set(topic, wanted.get(topic) ?? watcher);
		for (const [topic, stream] of this.homes)
			if (!wanted.has(topic)) {
				stream.wanted.delete(topic);
				this.homes.delete(topic);
			}
		for (const [topic, watcher] of wanted)
			if (!this.homes.has(topic)) {
				const stream = this.homeFor(topic, watcher);
				stream.wanted.add(topic);
				this.homes.set(topic, stream);
			}
		for (const stream of [...this.streams])
			stream.replan();
		/* A live stream sends no sync now, but a new watcher may have missed changes like any other. */
		this.update();
		this.dismiss();
	}

	homeFor(topic, { retry, logger }) {
		const kind = KINDS[topic.split(":")[0]];
		const able = [...this.streams].filter((stream) => stream.takes(kind, topic));
		const stream = able.find(({ opened }) => opened.has(topic)) ?? able[0] ??
		    new Stream(this, kind, retry, logger);
		this.streams.add(stream);
		return stream;
	}

	dismiss() {
		if (this.watchers.size || this.streams.size)
			return;
		hubs.delete(this);
		if (!hubs.size)
			listenToPage("removeEventListener");
	}

	/* Notifies every watcher of what has changed for it: the state of its streams, and syncs. */
	update() {
		this.each((watcher) => {
			const homes = [...watcher.topics].map((topic) => [topic, this.homes.get(topic)]);
			if (!homes.every(([, home]) => home))
				return;		/* added by a callback: replan() follows */
			const state = STATES[Math.max(...homes.map(([, home]) => STATES.indexOf(home.state)))];
			if (watcher.state !== state) {
				watcher.state = state;
				this.call(watcher, "onstate", state);
			}
			const syncs = homes.map(([topic, home]) => home.syncs.get(topic));
			const last = Math.max(...syncs.map((number) => number ?? 0));
			const first = watcher.last === undefined;
			if (!this.watchers.has(watcher) || first && syncs.includes(undefined) ||
			    last <= (watcher.last ?? 0))
				return;
			watcher.last = last;
			this.tell(watcher, { type: "sync", first });
		});
	}

	wakeup(topic, message) {
		this.each((watcher) => {
			if (watcher.topics.has(topic))
				this.tell(watcher, message);
		});
	}

	refused(stream) {
		this.each((watcher) => {
			if ([...watcher.topics].some((topic) => stream.wanted.has(topic)))
				this.call(watcher, "onclosed");
		});
	}

	/* With coalesceMs: collects messages for that long, and keeps the last of those about the same. */
	tell(watcher, message) {
		if (!watcher.coalesceMs)
			return this.call(watcher, "onWakeup", message);
		if (!watcher.burst) {
			watcher.burst = new Map();
			setTimeout(() => this.flush(watcher), watcher.coalesceMs);
		}
		const { id, targetId, first, ...subject } = message;
		const key = JSON.stringify(subject);
		if (watcher.burst.get(key)?.first)
			message = { ...message, first: true };
		watcher.burst.delete(key);
		watcher.burst.set(key, message);
	}

	flush(watcher) {
		const messages = watcher.burst.values();
		watcher.burst = undefined;
		for (const message of messages)
			if (this.watchers.has(watcher))
				this.call(watcher, "onWakeup", message);
	}

	/* Callbacks may add and stop watchers: skips those added meanwhile and those stopped. */
	each(action) {
		for (const watcher of [...this.watchers])
			if (this.watchers.has(watcher))
				action(watcher);
	}

	call(watcher, name, ...values) {
		try {
			watcher[name]?.(...values);
		} catch (error) {
			watcher.logger.error(`tpi-stream: ${name} threw`, error);
		}
	}

	all(method) {
		for (const stream of [...this.streams])
			stream[method]();
	}
}

/* ---- Streams */

class Stream {
	wanted = new Set();	/* the topics that are watched */
	opened = new Set();	/* the topics that it was last opened for */
	syncs = new Map();	/* the number of the last sync of each topic; 0 if it was lost */
	state = "connecting";
	failures = 0;		/* consecutive refusals since the last sync */

	constructor(hub, kind, retry, logger) {
		Object.assign(this, { hub, kind, retry, logger });
	}

	/* A stream that carries one topic is not reopened for another one. */
	takes(kind, topic) {
		return this.kind === kind && this.wanted.size < kind.room &&
		    (kind.room > 1 || this.opened.has(topic));
	}

	/* Whether a topic is wanted that the stream was not opened for. */
	hasGrown() {
		return ![...this.wanted].every((topic) => this.opened.has(topic));
	}

	/* Sets the timer for what is wanted now. A timer that runs for the same reason continues. */
	replan() {
		if (!this.opened.size)
			return this.open();
		const delay = this.hasGrown() ? UNION_MS : this.wanted.size < this.opened.size ? GRACE_MS : 0;
		if (delay === this.delay)
			return;
		clearTimeout(this.timer);
		this.delay = delay;
		if (delay)
			this.timer = setTimeout(() => this.settle(), delay);
	}

	settle() {
		this.delay = 0;
		if (!this.wanted.size)
			this.dismiss();
		/* With no open connection, do not reconnect just to drop topics. */
		else if (this.state !== "parked" && (this.source || this.hasGrown()))
			this.open();
	}

	/* Keeps a parked stream: a component that is mounted again must not unpark it. */
	dismiss() {
		this.close();
		if (this.state === "parked")
			return;
		this.hub.streams.delete(this);
		this.hub.dismiss();
	}

	close() {
		clearTimeout(this.retryTimer);
		this.source?.close();
		this.source = null;
		for (const topic of this.syncs.keys())
			this.syncs.set(topic, 0);
	}

	url() {
		const ids = [...this.opened].map((topic) => topic.split(":")[1]).sort((a, b) => a - b);
		return this.hub.baseUrl + this.kind.path.replace("*", ids.join(","));
	}

	open() {
		this.close();
		if (this.wanted.size)
			this.opened = new Set(this.wanted);
		this.replan();
		const url = this.url();
		if (!globalThis.EventSource)
			return this.fail("closed");
		try {
			this.source = new EventSource(url, { withCredentials: this.hub.withCredentials });
		} catch (error) {
			this.logger.error(`tpi-stream: cannot open ${url}`, error);
			return this.fail("closed");
		}
		this.attach(this.source);
		this.enter("connecting");
	}

	/* Ignores events of an EventSource that has been replaced. */
	attach(source) {
		const on = (type, handler) => source.addEventListener(type, (event) => {
			if (source === this.source)
				handler(event);
		});
		on("message", ({ data }) => this.receive(data));
		on("evicted", () => this.park());
		on("error", () => {
			if (source.readyState === CLOSED)
				this.refused();
			else
				/* The browser reconnects by itself. */
				this.fail(this.state === "parked" ? "parked" : "connecting");
		});
	}

	receive(data) {
		let message;
		try {
			message = JSON.parse(data);
		} catch {
			/* warns below */
		}
		const event = message?.event;
		if (event === "sync")
			return this.arrived();
		const fields = typeof event === "string" && this.kind.fields(message);
		if (fields)
			this.hub.wakeup(this.topicOf(fields), { type: "wakeup", event, ...fields });
		else if (!this.warned) {
			this.warned = true;
			this.logger.warn("tpi-stream: ignoring data that is not a wake-up", data);
		}
	}

	topicOf({ projectId }) {
		return this.kind === KINDS.issues ? `issues:${projectId}` : [...this.opened][0];
	}

	arrived() {
		this.failures = 0;
		const number = ++this.hub.syncs;
		this.syncs = new Map([...this.opened].map((topic) => [topic, number]));
		this.enter("live");
		/* Apply changes of the topics that were made while it was parked. */
		this.replan();
	}

	/* A response other than 200: the browser will not reconnect. */
	refused() {
		const { firstMs, maxMs, limit } = this.retry;
		const again = this.failures < limit;
		this.close();
		/* A new EventSource would evict another stream: open one only when the user uses the page. */
		if (this.state === "parked")
			this.fail("parked");
		else {
			if (again) {
				const longest = Math.min(maxMs, firstMs * 2 ** this.failures++);
				this.retryTimer = setTimeout(() => this.open(), Math.random() * longest);
			}
			this.fail(again ? "waiting" : "closed");
		}
		this.hub.refused(this);
	}

	/* Keeps the EventSource: every few minutes the browser checks for a free slot. */
	park() {
		this.fail("parked");
	}

	unpark() {
		if (this.state !== "parked")
			return;
		if (this.wanted.size)
			return this.open();
		this.state = "closed";
		this.dismiss();
	}

	/* The page is suspended: a connection would break unnoticed and prevent caching of the page. */
	suspend() {
		if (!this.source || this.state === "parked")
			return;
		this.close();
		this.fail("waiting");
	}

	resume() {
		if (this.opened.size && !this.source && this.state !== "parked")
			this.open();
	}

	/* Wake-ups no longer arrive. Watchers do not wait for these topics before their first sync. */
	fail(state) {
		this.syncs = new Map([...this.opened].map((topic) => [topic, 0]));
		this.enter(state);
	}

	enter(state) {
		this.state = state;
		this.hub.update();
	}
}

/* ---- The page */

function isVisible() {
	return globalThis.document?.visibilityState !== "hidden";
}

function all(method) {
	for (const hub of [...hubs])
		hub.all(method);
}

const act = () => isVisible() && all("unpark");

const PAGE_EVENTS = [
	["window", "pageshow", ({ persisted }) => persisted && all("resume")],
	["window", "online", () => all("resume")],
	["document", "visibilitychange", () => isVisible() && all("resume")],
	["document", "resume", () => all("resume")],
	["window", "pagehide", () => all("suspend")],
	["document", "freeze", () => all("suspend")],
	["window", "pointerdown", act],
	["window", "keydown", act],
];

function listenToPage(method) {
	for (const [target, type, handler] of PAGE_EVENTS)
		globalThis[target]?.[method]?.(type, handler, true);
}

/* ---- Exports */

function checkRetry({ firstMs = 30000, maxMs = 300000, limit = Infinity } = {}) {
	for (const [name, value] of Object.entries({ firstMs, maxMs }))
		check(value >= 1 && value <= ID_MAX, `retry.${name} must be from 1 to ${ID_MAX}`, value);
	check(limit >= 0, "retry.limit must be 0 or more", limit);
	return { firstMs, maxMs, limit };
}

function watch(kind, ids, onWakeup, options = {}) {
	const { baseUrl = "", withCredentials = false, logger = console, coalesceMs = 0, onstate,
	    onclosed } = options;
	const retry = checkRetry(options.retry);
	check(typeof onWakeup === "function", "onWakeup must be a function", onWakeup);
	check(typeof baseUrl === "string", "baseUrl must be a string", baseUrl);
	check(coalesceMs >= 0 && coalesceMs <= ID_MAX, `coalesceMs must be from 0 to ${ID_MAX}`, coalesceMs);
	check(logger?.warn && logger.error, "logger must have warn and error", logger);

	const base = baseUrl.replace(/\/+$/, "");
	const topics = new Set(ids ? [...ids].map((id) => `${kind}:${id}`) : [kind]);
	const watcher = { topics, onWakeup, onstate, onclosed, coalesceMs, retry, logger };
	let hub = [...hubs].find((other) =>
	    other.baseUrl === base && other.withCredentials === !!withCredentials);
	if (!hub) {
		if (!hubs.size)
			listenToPage("addEventListener");
		hubs.add(hub = new Hub(base, !!withCredentials));
	}
	hub.add(watcher);
	return () => hub.remove(watcher);
}

/* A function that watches topics of a kind by their ids. */
function watchIds(kind, name) {
	return (list, onWakeup, options) => {
		const wanted = `${name} must be an array of 1 to ${IDS_MAX} integers from 1 to ${ID_MAX}`;
		check(Array.isArray(list), wanted, list);
		const ids = new Set(list);
		for (const id of ids)
			check(isId(id), wanted, typeof id === "string" ? `"${id}"` : id);
		check(ids.size && ids.size <= IDS_MAX, wanted, `${ids.size} of them`);
		return watch(kind, ids, onWakeup, options);
	};
}

export function watchNotifications(onWakeup, options) {
	return watch("notifications", null, onWakeup, options);
}

export const watchIssues = watchIds("issues", "projectIds");
export const watchTestRuns = watchIds("testRuns", "ids");
export const watchProjectTestRuns = watchIds("projectTestRuns", "projectIds");
export const watchMilestones = watchIds("milestones", "ids");
export const watchProjectMilestones = watchIds("projectMilestones", "projectIds");
