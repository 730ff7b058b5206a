// SPDX-License-Identifier: ISC
/*
 * tpi-stream: wake-ups of tpi-stream for web pages. See README.md for how to use it.
 *
 * Invariants:
 * - Watchers of the same kind, base URL and credentials share a stream, and a stream has at most one
 *   EventSource. Only issue streams that would exceed 500 projects are split.
 * - No callback is called from within watchNotifications() or watchIssues(), nor after stop().
 * - A watcher's first sync is {first: true}. It is never sent before the stream covers its projects.
 * - Loading this module has no side effects: it listens to the page only while there are streams.
 */

const UNION_MS = 250;		/* changes of the projects within this time cause one reconnect */
const GRACE_MS = 1000;		/* how long unwatched projects and streams are kept */
const IDS_MAX = 500;		/* projects per stream, a limit of the server */
const ID_MAX = 2147483647;	/* also the longest delay of setTimeout() */
const CLOSED = 2;		/* EventSource.CLOSED, for environments without EventSource */

/* For each kind: its path, and the fields of a wake-up, or false if the data is not a wake-up. */
const NOTIFICATIONS = {
	path: "/api/notifications/stream",
	fields: ({ id }) => typeof id === "string" && { id },
};
const ISSUES = {
	path: "/api/issues/stream",
	fields: ({ issueId, projectId }) =>
	    isId(issueId) && isId(projectId) && { issueId, projectId },
};

const streams = new Set();

function isId(value) {
	return Number.isInteger(value) && value >= 1 && value <= ID_MAX;
}

function check(good, wanted, found) {
	if (!good)
		throw new TypeError(`tpi-stream: ${wanted}, not ${String(found)}`);
}

class Stream {
	watchers = new Set();
	state = "connecting";
	failures = 0;		/* consecutive refusals since the last sync */

	constructor(kind, baseUrl, withCredentials, retry, logger) {
		Object.assign(this, { kind, baseUrl, withCredentials, retry, logger });
	}

	serves(kind, baseUrl, withCredentials, ids) {
		return this.kind === kind && this.baseUrl === baseUrl &&
		    this.withCredentials === withCredentials && this.union(ids).size <= IDS_MAX;
	}

	join(watcher) {
		this.watchers.add(watcher);
		this.replan();
		queueMicrotask(() => this.greet(watcher));
	}

	leave(watcher) {
		if (this.watchers.delete(watcher))
			this.replan();
	}

	/* Deferred until the current task ends, so that all watchers of a mounting page share a request. */
	greet(watcher) {
		if (!this.watchers.has(watcher))
			return;
		if (!this.opened)
			this.open();
		this.notifyState(watcher);
		/* A live stream sends no sync now, but this watcher may have missed changes like any other. */
		if (this.state === "live" && !watcher.synced)
			this.sync(watcher);
	}

	/* The projects of all watchers, plus more. */
	union(more = []) {
		return new Set([...this.watchers].flatMap((watcher) => [...watcher.ids]).concat(...more));
	}

	/* Whether the stream, as last opened, carries all projects of this watcher. */
	covers({ ids }) {
		return !!this.opened && [...ids].every((id) => this.opened.has(id));
	}

	/* Whether a watcher needs a project that the stream was not opened for. */
	hasGrown() {
		return ![...this.watchers].every((watcher) => this.covers(watcher));
	}

	/* Sets the timer for what the watchers need now. A timer that runs for the same reason continues. */
	replan() {
		const delay = this.watchers.size && this.hasGrown() ? UNION_MS :
		    !this.watchers.size || this.union().size < this.opened.size ? GRACE_MS : 0;
		if (delay === this.delay)
			return;
		clearTimeout(this.timer);
		this.delay = delay;
		if (delay)
			this.timer = setTimeout(() => this.settle(), delay);
	}

	settle() {
		this.delay = 0;
		if (!this.watchers.size)
			this.dismiss();
		/* With no open connection, do not reconnect just to drop projects. */
		else if (this.state !== "parked" && (this.source || this.hasGrown()))
			this.open();
	}

	/* Keeps a parked stream: a component that is mounted again must not unpark it. */
	dismiss() {
		this.close();
		if (this.state === "parked")
			return;
		streams.delete(this);
		if (!streams.size)
			listenToPage("removeEventListener");
	}

	close() {
		clearTimeout(this.retryTimer);
		this.source?.close();
		this.source = null;
	}

	open() {
		this.close();
		if (this.watchers.size)
			this.opened = this.union();
		this.replan();
		const query = this.opened.size ?
		    `?projectIds=${[...this.opened].sort((a, b) => a - b).join(",")}` : "";
		const url = this.baseUrl + this.kind.path + query;
		if (!globalThis.EventSource)
			return this.enter("closed");
		try {
			this.source = new EventSource(url, { withCredentials: this.withCredentials });
		} catch (error) {
			this.logger.error(`tpi-stream: cannot open ${url}`, error);
			return this.enter("closed");
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
			else if (this.state !== "parked")
				this.enter("connecting");	/* the browser reconnects by itself */
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
			this.each((watcher) => {
				if (!watcher.ids.size || watcher.ids.has(fields.projectId))
					this.call(watcher, "onWakeup", { type: "wakeup", event, ...fields });
			});
		else if (!this.warned) {
			this.warned = true;
			this.logger.warn("tpi-stream: ignoring data that is not a wake-up", data);
		}
	}

	arrived() {
		this.failures = 0;
		this.enter("live");
		this.each((watcher) => this.sync(watcher));
		/* Apply changes of the projects that were made while it was parked. */
		this.replan();
	}

	/* A watcher whose projects are not covered yet gets its sync when the stream is reopened. */
	sync(watcher) {
		if (!this.covers(watcher))
			return;
		const first = !watcher.synced;
		watcher.synced = true;
		this.call(watcher, "onWakeup", { type: "sync", first });
	}

	/* A response other than 200: the browser will not reconnect. */
	refused() {
		const { firstMs, maxMs, limit } = this.retry;
		const again = this.failures < limit;
		this.close();
		/* A new EventSource would evict another stream: open one only when the user uses the page. */
		if (this.state !== "parked") {
			if (again) {
				const longest = Math.min(maxMs, firstMs * 2 ** this.failures++);
				this.retryTimer = setTimeout(() => this.open(), Math.random() * longest);
			}
			this.enter(again ? "waiting" : "closed");
		}
		this.each((watcher) => this.call(watcher, "onclosed"));
	}

	/* Keeps the EventSource: every few minutes the browser checks for a free slot. */
	park() {
		this.enter("parked");
	}

	unpark() {
		if (this.state !== "parked")
			return;
		if (this.watchers.size)
			return this.open();
		this.state = "closed";
		this.dismiss();
	}

	/* The page is suspended: a connection would break unnoticed and prevent caching of the page. */
	suspend() {
		if (!this.source || this.state === "parked")
			return;
		this.close();
		this.enter("waiting");
	}

	resume() {
		if (this.opened && !this.source && this.state !== "parked")
			this.open();
	}

	enter(state) {
		this.state = state;
		this.each((watcher) => this.notifyState(watcher));
	}

	notifyState(watcher) {
		if (watcher.notified === this.state)
			return;
		watcher.notified = this.state;
		this.call(watcher, "onstate", this.state);
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
}

/* ---- The page */

function isVisible() {
	return globalThis.document?.visibilityState !== "hidden";
}

function all(method) {
	for (const stream of [...streams])
		stream[method]();
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
	const { baseUrl = "", withCredentials = false, logger = console, onstate, onclosed } = options;
	const retry = checkRetry(options.retry);
	check(typeof onWakeup === "function", "onWakeup must be a function", onWakeup);
	check(typeof baseUrl === "string", "baseUrl must be a string", baseUrl);
	check(logger?.warn && logger.error, "logger must have warn and error", logger);

	const key = [kind, baseUrl.replace(/\/+$/, ""), !!withCredentials];
	const watcher = { ids, onWakeup, onstate, onclosed, logger };
	let stream = [...streams].find((other) => other.serves(...key, ids));
	if (!stream) {
		if (!streams.size)
			listenToPage("addEventListener");
		streams.add(stream = new Stream(...key, retry, logger));
	}
	stream.join(watcher);
	return () => stream.leave(watcher);
}

export function watchNotifications(onWakeup, options) {
	return watch(NOTIFICATIONS, new Set(), onWakeup, options);
}

export function watchIssues(projectIds, onWakeup, options) {
	const wanted = `projectIds must be an array of 1 to ${IDS_MAX} integers from 1 to ${ID_MAX}`;
	check(Array.isArray(projectIds), wanted, projectIds);
	const ids = new Set(projectIds);
	for (const id of ids)
		check(isId(id), wanted, typeof id === "string" ? `"${id}"` : id);
	check(ids.size && ids.size <= IDS_MAX, wanted, `${ids.size} of them`);
	return watch(ISSUES, ids, onWakeup, options);
}
