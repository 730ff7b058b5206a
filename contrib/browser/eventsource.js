// SPDX-License-Identifier: ISC
/*
 * eventsource.js: gives an unchanged TestPlanIt one connection for all tabs of a browser.
 *
 * A classic script that runs before those of the page and replaces EventSource: on TestPlanIt's six paths
 * of the page's origin it returns objects that are fed by the shared stream of tpi-stream.js, for any
 * other URL the browser's own. README.md, "An unchanged TestPlanIt", says how to insert it.
 *
 * build.sh makes eventsource.js of eventsource.js.in and tpi-stream.js. Edit those.
 *
 * Invariants:
 * - Whatever fails before the last statements leaves the browser's own EventSource in place.
 * - Only tabs of the same user share a stream: the user's id is part of the hub's key.
 * - What the shared stream cannot serve, such as an anonymous page, gets the browser's own EventSource.
 */
(() => {
"use strict";

/* The server may have sent the page without this tag: a framework that compares must not notice it. */
globalThis.document?.currentScript?.remove();

/* The browser's own, for the code below, too. */
const EventSource = globalThis.EventSource;

/* ---- tpi-stream.js */

// SPDX-License-Identifier: ISC
/*
 * tpi-stream: wake-ups of tpi-stream for web pages. See README.md for how to use it.
 *
 * A topic is a string: "notifications", or a kind and an id, such as "issues:7". A hub holds the
 * watchers of a base URL and the streams that carry their topics. Unless {combined: false}, the tabs of
 * a browser share streams: see Sharing.
 *
 * Invariants:
 * - Each topic that is watched has one stream, and a stream has at most one EventSource; a combined
 *   stream has a second one while it is reopened for other topics.
 * - No callback is called from within watch…(), nor after stop().
 * - A watcher's first sync is {first: true}. It is sent when none of its topics is still about to be
 *   covered for the first time, and at least one is covered.
 * - Loading this module has no side effects: it listens to the page only while there are hubs.
 */

const COMBINED = true;		/* whether tabs share a connection if the page does not say */
const UNION_MS = 250;		/* changes of the ids within this time cause one reconnect */
const GRACE_MS = 1000;		/* how long unwatched topics and streams are kept */
const LOST_MS = 5000;		/* the longest delay after a stream was lost, not refused */
const SHRINK_MS = 60000;	/* how long a combined stream keeps unwatched topics */
const OVERLAP_MS = 5000;	/* how long the old EventSource is kept for the new one */
const LINGER_MS = 500;		/* how much longer: what was sent before may arrive after the sync */
const PROBE_MS = 3000;		/* how long a tab waits for the leader before it opens a stream */
const ROLL_MS = 29000;		/* how often the leader asks which tabs are left, see #callRoll() */
const IDS_MAX = 500;		/* ids per stream, a limit of the server */
const ID_MAX = 2147483647;	/* also the longest delay of setTimeout() */
const CLOSED = 2;		/* EventSource.CLOSED, for environments without EventSource */

/* The fields of a change of an item, by the name of its id. */
const change = (name) => ({ [name]: id, projectId, targetId }) =>
    isId(id) && isId(projectId) && (targetId === undefined || isId(targetId)) &&
    { [name]: id, projectId, ...(targetId && { targetId }) };

/*
 * For each kind of topic: the path of its stream, in which * stands for the ids; whether a stream
 * carries many of them; and the fields of a wake-up, or false if the data is not a wake-up.
 */
const KINDS = {
	__proto__: null,
	notifications: {
		path: "/api/notifications/stream",
		fields: ({ id }) => typeof id === "string" && { id },
	},
	issues: {
		path: "/api/issues/stream?projectIds=*",
		many: true,
		fields: change("issueId"),
	},
	testRuns: {
		path: "/api/test-runs/*/stream",
		fields: change("runId"),
	},
	projectTestRuns: {
		path: "/api/projects/*/test-runs/stream",
		fields: change("runId"),
	},
	milestones: {
		path: "/api/milestones/*/stream",
		fields: change("milestoneId"),
	},
	projectMilestones: {
		path: "/api/projects/*/milestones/stream",
		fields: change("milestoneId"),
	},
};
/* The stream of any topics. It names each event by its topic. */
const ANY = {};

/* A watcher of several streams has the last of their states in this order. */
const STATES = ["live", "connecting", "waiting", "parked", "closed"];

/* With the version of the messages: tabs with other versions have other names, and never mix. */
const CHANNEL = "tpi-stream/1";

const hubs = new Set();
let channel;			/* BroadcastChannel, while there are hubs */
let warned;			/* whether a malformed message has been logged */

function isId(value) {
	return Number.isInteger(value) && value >= 1 && value <= ID_MAX;
}

/* Returns undefined for a text that is not JSON. */
function parse(text) {
	try {
		return JSON.parse(text);
	} catch {
		return undefined;
	}
}

function kindOf(topic) {
	return topic.split(":")[0];
}

/* Of several streams; "connecting" if there are none yet. */
function worst(streams) {
	return STATES[Math.max(...streams.map(({ state }) => STATES.indexOf(state)))] ?? "connecting";
}

function check(good, wanted, found) {
	if (!good)
		throw new TypeError(`tpi-stream: ${wanted}, not ${String(found)}`);
}

/* ---- Watchers */

class Hub {
	watchers = new Set();
	streams = new Set();
	#recent = new Set();	/* topics, the most recently watched last */
	syncs = 0;
	#changed;

	constructor(fields) {
		Object.assign(this, fields);
		if (this.combined && channel && globalThis.EventSource)
			this.sharing = new Sharing(this);
	}

	add(watcher) {
		this.watchers.add(watcher);
		this.touch(watcher.topics);
		this.change();
	}

	remove(watcher) {
		if (this.watchers.delete(watcher))
			this.change();
	}

	touch(topics) {
		for (const topic of topics) {
			this.#recent.delete(topic);
			this.#recent.add(topic);
		}
	}

	/* Deferred until the current task ends, so that all watchers of a mounting page share a request. */
	change() {
		if (!this.#changed)
			queueMicrotask(() => this.replan());
		this.#changed = true;
	}

	topics() {
		return new Set([...this.watchers].flatMap(({ topics }) => topics));
	}

	replan() {
		this.#changed = false;
		if (!hubs.has(this))
			return;
		const topics = this.topics();
		this.sharing?.addTo(topics);
		this.#recent = new Set([...this.#recent].filter((topic) => topics.has(topic)));
		if (this.sharing?.mirror)
			this.sharing.want(topics);
		else
			this.#assign(topics);
		/* A live stream sends no sync now, but a new watcher may have missed changes like any other. */
		this.update();
		if (!this.sharing?.mirror)
			this.dismiss();
	}

	/* Distributes the topics to streams. */
	#assign(topics) {
		const streams = [...this.streams];
		for (const stream of streams)
			stream.wanted = new Set([...stream.wanted].filter(
			    (topic) => topics.has(topic) && !this.combined));
		if (this.combined)
			/* The topics of pages that are in use stay together: moving one is a gap. */
			[...this.#recent].reverse().forEach((topic, i) => (streams[Math.floor(i / IDS_MAX)] ??=
			    this.#newStream(ANY)).wanted.add(topic));
		else
			for (const topic of topics)
				if (!this.#home(topic))
					this.#homeFor(topic).wanted.add(topic);
		this.all("replan");
	}

	#homeFor(topic) {
		const kind = KINDS[kindOf(topic)];
		return [...this.streams].find((stream) => stream.takes(kind, topic)) ?? this.#newStream(kind);
	}

	#newStream(kind) {
		const stream = new Stream(this, kind);
		if (this.sharing?.parked)
			stream.state = "parked";
		this.streams.add(stream);
		return stream;
	}

	/* Where the state and the syncs of a topic are found. */
	#home(topic) {
		return this.sharing?.mirror ?? [...this.streams].find(({ wanted }) => wanted.has(topic));
	}

	/* There was, or may have been, a gap: every watcher that had a sync gets another one. */
	gap() {
		for (const watcher of this.watchers)
			if (watcher.last)
				watcher.last = 0;
	}

	/* Closes and forgets the streams, because another tab has them. */
	drop() {
		this.all("end");
		this.streams.clear();
	}

	dismiss() {
		if (this.watchers.size || this.streams.size || !hubs.delete(this))
			return;
		this.sharing?.leave();
		if (hubs.size)
			return;
		listenToPage("removeEventListener");
		disconnect();
	}

	reset(term) {
		this.gap();
		/* A burst that is being collected is of the previous session. Its syncs may be the first. */
		for (const { burst } of this.watchers)
			for (const [key, { type }] of burst ?? [])
				if (type === "wakeup")
					burst.delete(key);
		this.sharing?.reset(term);
		this.all("reopen");
		this.update();
	}

	/* The page is suspended, resumed, or used: "suspend", "resume" or "use". */
	page(method) {
		this.sharing?.[method]();
		this.all(method);
	}

	/* Notifies every watcher of what has changed for it: the state of its streams, and syncs. */
	update() {
		this.#each((watcher) => {
			const homes = watcher.topics.map((topic) => this.#home(topic));
			if (homes.includes(undefined))
				return;		/* added by a callback: replan() follows */
			const state = worst(homes);
			if (watcher.state !== state) {
				watcher.state = state;
				this.#call(watcher, "onstate", state);
			}
			const syncs = watcher.topics.map((topic) => this.#home(topic)?.syncs.get(topic));
			const last = Math.max(0, ...syncs.filter(Boolean));
			const first = watcher.last === undefined;
			if (last > (first && syncs.includes(undefined) ? Infinity : watcher.last ?? 0) &&
			    this.watchers.has(watcher)) {
				watcher.last = last;
				this.#tell(watcher, { type: "sync", first });
			}
		});
		this.sharing?.announce();
	}

	/* An event as it arrived, for eventsource.js, or "refused". Also for the other tabs. */
	pass(topics, name, text) {
		const call = name === "refused" ? ["onclosed"] : ["onevent", name, text];
		this.#each((watcher) => {
			if (topics.some((topic) => watcher.topics.includes(topic)))
				this.#call(watcher, ...call);
		});
		this.sharing?.relay({ topics, name, text });
	}

	/* Returns a falsy value if the text is not a wake-up. */
	wakeup(topic, text, data = parse(text)) {
		this.pass([topic], "message", text);
		const event = data?.event;
		const fields = typeof event === "string" && KINDS[kindOf(topic)].fields(data);
		this.#each((watcher) => {
			if (fields && watcher.topics.includes(topic))
				this.#tell(watcher, { type: "wakeup", event, ...fields });
		});
		return fields;
	}

	/* With coalesceMs: collects messages for that long, and keeps the last of those about the same. */
	#tell(watcher, message) {
		if (!watcher.coalesceMs)
			return this.#call(watcher, "onWakeup", message);
		if (!watcher.burst) {
			watcher.burst = new Map();
			setTimeout(() => this.#flush(watcher), watcher.coalesceMs);
		}
		const { id, targetId, first, ...subject } = message;
		const key = JSON.stringify(subject);
		if (watcher.burst.get(key)?.first)
			message = { ...message, first: true };
		watcher.burst.delete(key);
		watcher.burst.set(key, message);
	}

	#flush(watcher) {
		const messages = watcher.burst.values();
		watcher.burst = undefined;
		for (const message of messages)
			if (this.watchers.has(watcher))
				this.#call(watcher, "onWakeup", message);
	}

	/* Callbacks may add and stop watchers: skips those added meanwhile and those stopped. */
	#each(action) {
		for (const watcher of [...this.watchers])
			if (this.watchers.has(watcher))
				action(watcher);
	}

	#call(watcher, name, ...values) {
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
	#failures = 0;		/* consecutive refusals since the last sync */
	#source;
	#next;			/* during a change-over: the new EventSource, without a sync */
	#old;			/* after a change-over: for what is still on its way */
	#retryTimer;
	#timer;
	#delay;
	#warned;
	#hub;
	#kind;

	constructor(hub, kind) {
		this.#hub = hub;
		this.#kind = kind;
	}

	/* A stream that carries one topic is not reopened for another one. */
	takes(kind, topic) {
		return this.#kind === kind && this.wanted.size < IDS_MAX && (kind.many || this.opened.has(topic));
	}

	/* Whether a topic is wanted that the stream was not opened for. */
	#hasGrown() {
		return ![...this.wanted].every((topic) => this.opened.has(topic));
	}

	/* Sets the timer for what is wanted now. A timer that runs for the same reason continues. */
	replan() {
		if (!this.opened.size)
			return this.open();
		const delay = this.#hasGrown() ? UNION_MS : this.wanted.size === this.opened.size ? 0 :
		    this.wanted.size && this.#kind === ANY ? SHRINK_MS : GRACE_MS;
		if (delay === this.#delay)
			return;
		clearTimeout(this.#timer);
		this.#delay = delay;
		if (delay)
			this.#timer = setTimeout(() => this.#settle(), delay);
	}

	#settle() {
		this.#delay = 0;
		if (!this.wanted.size)
			this.#dismiss();
		/* With no open connection, do not reconnect just to drop topics. */
		else if (this.state !== "parked" && (this.#source || this.#hasGrown()))
			this.open();
	}

	/* Keeps a parked stream: a component that is mounted again must not unpark it. */
	#dismiss() {
		this.end();
		if (this.state === "parked")
			return;
		this.#hub.streams.delete(this);
		this.#hub.dismiss();
	}

	end() {
		clearTimeout(this.#timer);
		this.#close();
	}

	#close() {
		clearTimeout(this.#retryTimer);
		this.#source?.close();
		this.#next?.close();
		this.#old?.close();
		this.#source = this.#next = null;
		for (const topic of this.syncs.keys())
			this.syncs.set(topic, 0);
	}

	#url() {
		const idsOf = (kind) => String([...this.opened].filter((topic) => kindOf(topic) === kind).map(
		    (topic) => topic.split(":")[1] ?? 1).sort((a, b) => a - b));
		if (this.#kind !== ANY)
			return this.#hub.baseUrl + this.#kind.path.replace("*", idsOf(kindOf([...this.opened][0])));
		const query = Object.keys(KINDS).filter(idsOf).map((kind) => `${kind}=${idsOf(kind)}`);
		/* Another tab was evicted: like its reconnect, this stream must not evict others. */
		if (this.state === "parked")
			query.push("lastEventId=evicted");
		return `${this.#hub.baseUrl}/api/stream?${query.join("&")}`;
	}

	/* A combined stream that is live stays open until the new EventSource has its sync. */
	open() {
		clearTimeout(this.#retryTimer);
		const overlap = this.#kind === ANY && this.state === "live" && this.#source;
		if (overlap)
			this.#next?.close();
		else
			this.#close();
		if (this.wanted.size)
			this.opened = new Set(this.wanted);
		this.replan();
		const url = this.#url();
		if (!globalThis.EventSource)
			return this.#fail("closed");
		let source;
		try {
			source = new EventSource(url, { withCredentials: this.#hub.withCredentials });
		} catch (error) {
			this.#hub.logger.error(`tpi-stream: cannot open ${url}`, error);
			return this.#fail("closed");
		}
		this.#attach(source, this.opened);
		if (overlap) {
			this.#next = source;
			/* All connections of the browser may be in use: give up the old one. */
			this.#retryTimer = setTimeout(() => this.#replace(), OVERLAP_MS);
		} else {
			this.#source = source;
			this.#enter("connecting");
		}
	}

	/* The new EventSource, which has no sync yet, takes the place of the old one: there is a gap. */
	#replace() {
		const next = this.#next;
		this.#next = null;
		this.#close();
		this.#source = next;
		this.#fail("connecting");
	}

	/* Ignores events of an EventSource that has been replaced. */
	#attach(source, topics) {
		const on = (type, handler) => source.addEventListener(type, (event) => {
			if (source === this.#source || source === this.#next)
				handler(event);
		});
		on("message", ({ data }) => this.#receive(source, topics, data));
		if (this.#kind === ANY)
			for (const topic of topics)
				source.addEventListener(topic, ({ data }) =>
				    source.readyState !== CLOSED && this.#receive(source, topics, data, topic));
		on("shutdown", () => this.#hub.pass([...topics], "shutdown", "{}"));
		on("evicted", () => this.#next ? this.#replace() : this.#fail("parked"));
		on("error", () => {
			if (this.#next && source !== this.#next)
				this.#replace();
			else if (source.readyState === CLOSED)
				this.#refused();
			else if (!this.#next)
				/* The browser reconnects by itself. */
				this.#fail("connecting");
		});
	}

	#receive(source, topics, data, topic) {
		const message = parse(data);
		if (message?.event === "sync" && !topic)
			return this.#arrived(source, topics);
		topic ??= this.#kind === KINDS.issues ? `issues:${message?.projectId}` :
		    this.#kind === ANY ? "" : [...topics][0];
		if (!topic || !this.#hub.wakeup(topic, data, message)) {
			if (!this.#warned)
				this.#hub.logger.warn("tpi-stream: ignoring data that is not a wake-up", data);
			this.#warned = true;
		}
	}

	#arrived(source, topics) {
		const number = ++this.#hub.syncs;
		const changed = source === this.#next;
		if (changed) {
			clearTimeout(this.#retryTimer);
			this.#old?.close();
			const old = this.#old = this.#source;
			setTimeout(() => old.close(), LINGER_MS);
			this.#source = source;
			this.#next = null;
		}
		this.#failures = 0;
		/* Topics that the old EventSource has carried until now have no gap. */
		this.syncs = new Map([...topics].map(
		    (topic) => [topic, changed && this.syncs.get(topic) || number]));
		this.#enter("live");
		/* Apply changes of the topics that were made while it was parked. */
		this.replan();
	}

	/*
	 * The browser will not reconnect: the response was not 200, or an open stream was lost in a way
	 * that the browser takes for an error.
	 */
	#refused() {
		const { firstMs, maxMs, limit } = this.#hub.retry;
		const overlap = this.#next;
		const lost = !overlap && this.state === "live";
		const again = lost || this.#failures < limit;
		if (overlap)
			this.#next = null;	/* the old EventSource stays */
		else
			this.#close();
		clearTimeout(this.#retryTimer);
		/* A new EventSource would evict another stream: open one only when the user uses the page. */
		if (again && this.state !== "parked") {
			const longest = lost ? LOST_MS : Math.min(maxMs, firstMs * 2 ** this.#failures++);
			this.#retryTimer = setTimeout(() => this.open(), Math.random() * longest);
		}
		if (!overlap)
			this.#fail(again ? "waiting" : "closed");
		if (!lost)
			this.#hub.pass([...this.wanted], "refused", "");
	}

	use() {
		if (this.state === "parked")
			this.reopen();
	}

	/* For a user who uses a parked page, or another user who has signed in. */
	reopen() {
		this.state = "closed";
		if (this.wanted.size)
			this.open();
		else
			this.#dismiss();
	}

	/* The page is suspended: a connection would break unnoticed and prevent caching of the page. */
	suspend() {
		if (!this.#source || this.state === "parked")
			return;
		this.#close();
		this.#fail("waiting");
	}

	resume() {
		if (this.opened.size && !this.#source && this.state !== "parked")
			this.open();
	}

	/* Wake-ups no longer arrive. Watchers do not wait for these topics before their first sync. */
	#fail(state) {
		this.syncs = new Map([...this.opened].map((topic) => [topic, 0]));
		this.#enter(state);
	}

	/*
	 * A parked stream stays parked until it is live, with its EventSource: every few minutes the browser
	 * checks for a free slot.
	 */
	#enter(state) {
		if (this.state !== "parked" || state === "live")
			this.state = state;
		this.#hub.update();
	}
}

/* ---- Sharing one connection among the tabs of a browser */

/*
 * Checks of messages, by type: what each must have, apart from the hub, the tab that sent it, and the term.
 * A check that fails returns false or throws.
 */
const MESSAGES = {
	__proto__: null,
	want: ({ topics }) => topics.every(isTopic),
	use: () => true,
	live: ({ state, syncs }) => STATES.includes(state) &&
	    syncs.every(([topic, number]) => isTopic(topic) && number >= 0),
	event: ({ topics, name, text }) => topics.every(isTopic) && name && typeof text === "string",
	reset: () => true,
};

function isTopic(value) {
	const [kind, id] = String(value).split(":");
	return kind in KINDS && value === (kind === "notifications" ? kind : isId(+id) && `${kind}:${+id}`);
}

/* The messages of later leaders and resets have greater terms, whichever tab sends them. */
function termAfter(term) {
	return Math.max(Date.now() + Math.random(), term + 1);
}

/*
 * The tabs that watch something elect a leader: the one that holds a lock. The leader has the streams,
 * and relays what they carry. The other tabs follow: they have a mirror of the leader's state instead
 * of streams. A tab that the leader does not answer is isolated: it opens streams, until the leader
 * answers. README.md draws the states.
 */
class Sharing {
	#id = Math.random();
	term = 0;		/* messages of earlier terms are ignored */
	#tabs = new Map();	/* in the leader: the topics of every other tab */
	#answered = new Set();	/* those that have answered since the last roll call */
	#hub;
	#election;
	#resign;		/* in the leader: gives up the lock */
	#wanted;
	#announced;
	#timer;

	constructor(hub) {
		this.#hub = hub;
		this.#join();
	}

	#join() {
		const { signal } = this.#election = new AbortController();
		this.#follow("connecting");
		this.#wanted = null;
		this.#hub.change();
		/* Where there are no locks, or the page may not use them, this throws or rejects. */
		const elect = async () => navigator.locks.request(`${CHANNEL} ${this.#hub.key}`, { signal },
		    () => signal.aborted || this.#lead());
		elect().catch(() => signal.aborted || this.#isolate());
	}

	/* The lock is held until the promise is resolved. */
	#lead() {
		return new Promise((resolve) => {
			this.#resign = resolve;
			this.term = termAfter(this.term);
			if (this.mirror) {
				/* Until the tabs have answered, carry what the last leader did: this opens one stream, not two. */
				this.#enter("", [...this.mirror.syncs.keys()]);
				this.#isolate();
			}
			this.#callRoll();
		});
	}

	/*
	 * Forgets the tabs that did not answer the last time: they have crashed. This closes a stream that only
	 * they watched within a minute.
	 */
	#callRoll() {
		for (const id of this.#tabs.keys())
			if (!this.#answered.has(id))
				this.#tabs.delete(id);
		this.#answered.clear();
		this.#hub.change();
		this.announce({ call: true });
		this.#wait(ROLL_MS, () => this.#callRoll());
	}

	addTo(topics) {
		for (const topic of [...this.#tabs.values()].flat())
			topics.add(topic);
	}

	#enter(id, topics) {
		const before = this.#tabs.get(id);
		this.#hub.touch(topics.filter((topic) => !before?.includes(topic)));
		this.#tabs.set(id, topics);
		this.#answered.add(id);
	}

	/* A parked tab stays parked until the leader says otherwise. */
	#follow(state) {
		if (worst(this.mirror ? [this.mirror] : [...this.#hub.streams]) === "parked")
			state = "parked";
		this.mirror = { state, syncs: new Map() };
		this.#hub.drop();
		this.#hub.gap();
	}

	/* Opens streams in this tab. */
	#isolate() {
		if (!this.mirror)
			return;
		this.parked = this.mirror.state === "parked";
		this.mirror = null;
		this.#hub.gap();
		this.#hub.replan();
		this.parked = false;
	}

	leave() {
		this.#election.abort();
		this.#resign?.();
		this.#resign = null;
		this.#tabs.clear();
		clearTimeout(this.#timer);
	}

	suspend() {
		this.#post({ type: "want", topics: [] });
		this.leave();
		this.#follow("waiting");
		this.#hub.update();
	}

	resume() {
		if (this.#election.signal.aborted)
			this.#join();
		else if (!this.#resign)
			this.#ask({ resume: true });
	}

	/* If the leader is parked, it may open a stream now. */
	use() {
		if (this.mirror?.state === "parked")
			this.#post({ type: "use" });
	}

	reset(term) {
		this.term = Math.max(term, this.#resign ? this.term + 1 : this.term);
		if (!this.mirror)
			return;
		this.#follow("connecting");
		this.#ask({});
	}

	/* What this tab watches has changed, perhaps. */
	want(topics) {
		if (this.#wanted !== String([...topics]))
			this.#ask({});
		if (!topics.size)
			setTimeout(() => this.#hub.dismiss(), GRACE_MS);
	}

	#ask(fields) {
		const topics = [...this.#hub.topics()];
		this.#wanted = String(topics);
		this.#post({ type: "want", topics, ...fields });
		if (!fields.answer)
			this.#wait(PROBE_MS, () => this.#isolate());
	}

	/* The leader calls the roll; the others wait for the leader. */
	#wait(ms, action) {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(action, ms);
	}

	#post(fields) {
		channel?.postMessage({ hub: this.#hub.key, id: this.#id, term: this.term, ...fields });
	}

	relay(event) {
		if (this.#resign)
			this.#post({ type: "event", ...event });
	}

	/* Sends the state of the streams to the other tabs if it has changed, or with fields. */
	announce(fields) {
		if (!this.#resign)
			return;
		const streams = [...this.#hub.streams];
		const live = {
			state: worst(streams),
			syncs: streams.flatMap(({ wanted, syncs }) => [...syncs].filter(
			    ([topic]) => wanted.has(topic))),
		};
		const announced = JSON.stringify(live);
		if (fields || announced !== this.#announced)
			this.#post({ type: "live", ...live, ...fields });
		this.#announced = announced;
	}

	hear(message) {
		const { type, term, topics, name, text } = message;
		if (type === "want" || type === "use") {
			if (this.#resign)
				this.#serve(message);
		} else if (term >= this.term && !this.#resign) {
			if (type === "live")
				this.#mirrorLeader(message);
			else if (this.mirror && name === "message")
				this.#hub.wakeup(topics[0], text);
			else if (this.mirror)
				this.#hub.pass(topics, name, text);
		}
	}

	/* As the leader. */
	#serve({ type, id, topics, answer, resume }) {
		if (type === "use")
			return this.#hub.all("use");
		this.#enter(id, topics);
		if (resume)
			this.#hub.all("resume");
		this.#hub.replan();
		if (!answer)
			this.announce({});
	}

	#mirrorLeader({ term, state, syncs, call }) {
		const unknown = !this.mirror || term > this.term;
		if (unknown)
			this.#follow(state);
		this.term = term;
		/* A leader that never calls the roll again hangs. */
		this.#wait(6 * ROLL_MS, () => this.#ask({}));
		this.mirror = { state, syncs: new Map(syncs) };
		if (unknown || call)
			this.#ask({ answer: true });
		this.#hub.update();
	}
}

function hear({ data }) {
	try {
		if (!(data.term >= 0 && MESSAGES[data.type](data)))
			throw data;
		for (const hub of [...hubs])
			if (data.type === "reset")
				hub.reset(data.term);
			else if (hub.key === data.hub)
				hub.sharing?.hear(data);
	} catch {
		if (!warned)
			[...hubs][0]?.logger.warn("tpi-stream: ignoring a malformed message of another tab", data);
		warned = true;
	}
}

/* A page that cannot have a channel, or is suspended, has none. */
function connect() {
	try {
		channel ??= new BroadcastChannel(CHANNEL);
		channel.onmessage = hear;
		channel.unref?.();	/* in Node.js */
	} catch {
		/* each tab has its own streams */
	}
}

function disconnect() {
	channel?.close();
	channel = undefined;
}

/* ---- The page */

function all(method) {
	for (const hub of [...hubs])
		hub.page(method);
}

function suspend() {
	all("suspend");
	disconnect();	/* a page with an open channel may not be cached */
}

function resume() {
	connect();
	all("resume");
}

const ifVisible = (action) => () => globalThis.document?.visibilityState === "hidden" || action();
const use = ifVisible(() => all("use"));

/* The window also gets the events of the document, before it. */
const PAGE_EVENTS = {
	pageshow: ({ persisted }) => persisted && resume(),
	online: resume,
	visibilitychange: ifVisible(resume),
	resume,
	pagehide: suspend,
	freeze: suspend,
	pointerdown: use,
	keydown: use,
};

function listenToPage(method) {
	for (const type in PAGE_EVENTS)
		globalThis.window?.[method]?.(type, PAGE_EVENTS[type], true);
}

/* ---- Exports */

function checkRange(name, value, min) {
	check(value >= min && value <= ID_MAX, `${name} must be from ${min} to ${ID_MAX}`, value);
}

/*
 * eventsource.js has two more options: onevent is called with the type and data of each event as it arrived;
 * watchers with different groups share nothing.
 */
function watch(kind, ids, onWakeup, options = {}) {
	const { baseUrl = "", withCredentials = false, combined = COMBINED, logger = console,
	    coalesceMs = 0, onstate, onclosed, onevent, group = "" } = options;
	const { firstMs = 30000, maxMs = 300000, limit = Infinity } = options.retry ?? {};
	checkRange("retry.firstMs", firstMs, 1);
	checkRange("retry.maxMs", maxMs, 1);
	check(limit >= 0, "retry.limit must be 0 or more", limit);
	check(typeof onWakeup === "function", "onWakeup must be a function", onWakeup);
	check(typeof baseUrl === "string", "baseUrl must be a string", baseUrl);
	checkRange("coalesceMs", coalesceMs, 0);
	check(logger?.warn && logger.error, "logger must have warn and error", logger);

	const base = baseUrl.replace(/\/+$/, "");
	const topics = ids ? [...ids].map((id) => `${kind}:${id}`) : [kind];
	const retry = { firstMs, maxMs, limit };
	const watcher = { topics, onWakeup, onstate, onclosed, onevent, coalesceMs, logger };
	const key = String([base, !!withCredentials, !!combined, group]);
	let hub = [...hubs].find((other) => other.key === key);
	if (!hub) {
		if (!hubs.size) {
			connect();
			listenToPage("addEventListener");
		}
		hub = new Hub({ key, baseUrl: base, withCredentials, combined, retry, logger });
		hubs.add(hub);
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

function watchNotifications(onWakeup, options) {
	return watch("notifications", null, onWakeup, options);
}

const watchIssues = watchIds("issues", "projectIds");
const watchTestRuns = watchIds("testRuns", "ids");
const watchProjectTestRuns = watchIds("projectTestRuns", "projectIds");
const watchMilestones = watchIds("milestones", "ids");
const watchProjectMilestones = watchIds("projectMilestones", "projectIds");

/* Closes and reopens the streams of all tabs: for a page in which a user signs in or out. */
function reset() {
	const term = termAfter(0);
	connect();
	channel?.postMessage({ type: "reset", term });
	for (const hub of [...hubs])
		hub.reset(term);
	if (!hubs.size)
		disconnect();
}

/* ---- The replacement for EventSource */

const CONNECTING = 0;
const OPEN = 1;
const SYNC = '{"event":"sync"}';

const tasks = [];
const opened = new Set();	/* objects that are not closed */
let user;			/* promise of the id of the user, while there are such objects */

/* The user that this page's requests come from; undefined if nobody is signed in or it is unknown. */
async function fetchUser() {
	try {
		const session = await (await fetch("/api/auth/session", { cache: "no-store" })).json();
		return session.user.id ? String(session.user.id) : undefined;
	} catch {
		return undefined;
	}
}

/* The ids of a query, or undefined if the server would refuse it. */
function projectIds(query) {
	const one = query.getAll("projectId");
	const lists = query.getAll("projectIds");
	if (one.length + lists.length !== 1)
		return undefined;
	return one.length ? one : lists[0].split(",");
}

/* What the stream at this URL carries; undefined if the URL is not one of the six, or invalid. */
function topicsOf(text) {
	const url = URL.canParse(text, document.baseURI) && new URL(text, document.baseURI);
	if (!url || url.origin !== globalThis.origin || url.username || url.password ||
	    url.searchParams.has("lastEventId") || url.searchParams.has("Last-Event-ID"))
		return undefined;
	for (const kind in KINDS) {
		const [path] = KINDS[kind].path.split("?");
		const found = new RegExp(`^${path.replace("*", "([^/]+)")}$`).exec(url.pathname);
		if (!found)
			continue;
		const ids = kind === "notifications" ? [] :
		    kind === "issues" ? projectIds(url.searchParams) : [found[1]];
		if (!ids?.every((id) => /^[1-9][0-9]*$/.test(id) && isId(+id)) || ids.length > IDS_MAX)
			return undefined;
		return { url: url.href, kind, ids: ids.length ? new Set(ids.map(Number)) : null };
	}
	return undefined;
}

class SharedEventSource extends EventTarget {
	#url;
	#withCredentials;
	#readyState = CONNECTING;
	#handlers = {};
	#stop;			/* stops watching */
	#synced;		/* whether it was open before */
	#own;			/* the browser's own, if the shared stream cannot serve it */

	constructor({ url, kind, ids }, withCredentials) {
		super();
		this.#url = url;
		this.#withCredentials = withCredentials;
		if (!opened.size)
			user = fetchUser();
		opened.add(this);
		this.#connect(kind, ids);
	}

	async #connect(kind, ids) {
		const group = await user;
		if (this.#readyState === CLOSED)
			return;
		if (!group)
			return this.#openOwn();
		this.#stop = watch(kind, ids, ({ type }) => type === "sync" && this.#sync(), {
			combined: true,
			group,
			onstate: (state) => this.#lose(state),
			onclosed: () => this.#task(() => this.#refused()),
			onevent: (type, data) => this.#message(type, data),
		});
	}

	/* Runs in a task of its own, as in the browser's own EventSource, unless the page closes it first. */
	#task(action) {
		tasks.push(() => this.#readyState !== CLOSED && action());
		port2.postMessage(0);
	}

	#message(type, data, lastEventId = "") {
		/* A wake-up before the first sync is covered by it. */
		this.#task(() => this.#readyState === OPEN && this.dispatchEvent(
		    new MessageEvent(type, { data, origin: location.origin, lastEventId })));
	}

	#sync() {
		this.#task(() => {
			if (this.#readyState === OPEN)
				return;
			this.#readyState = OPEN;
			this.#synced = true;
			this.dispatchEvent(new Event("open"));
		});
		this.#message("message", SYNC);
	}

	/* The shared stream has this state. It is live again at the next sync. */
	#lose(state) {
		if (state === "parked")
			this.#message("evicted", "{}", "evicted");
		if (state === "closed")
			this.#task(() => this.#fail());
		else if (state !== "live")
			this.#task(() => {
				if (this.#readyState !== OPEN)
					return;
				this.#readyState = CONNECTING;
				this.dispatchEvent(new Event("error"));
			});
	}

	/*
	 * A request of the shared stream was refused, perhaps for further topics only. What the server says to
	 * a new object, it says in response to the object's own URL.
	 */
	#refused() {
		if (this.#readyState !== CONNECTING || this.#own)
			return;
		this.#stop();
		if (this.#synced)
			this.#fail();
		else
			this.#openOwn();
	}

	#fail() {
		this.#end();
		this.dispatchEvent(new Event("error"));
	}

	#end() {
		this.#readyState = CLOSED;
		opened.delete(this);
		this.#stop?.();
	}

	#openOwn() {
		const own = this.#own = new EventSource(this.#url, { withCredentials: this.#withCredentials });
		this.#stop = () => own.close();
		for (const type of ["open", "message", "error", "shutdown", "evicted"])
			own.addEventListener(type, ({ data, origin, lastEventId }) => {
				this.#readyState = own.readyState;
				if (own.readyState === CLOSED)
					this.#end();
				this.dispatchEvent(data === undefined ? new Event(type) :
				    new MessageEvent(type, { data, origin, lastEventId }));
			});
	}

	/* An event handler: its listener has the position at which the first value was set. */
	static #handler(type) {
		const name = `on${type}`;
		return {
			get [name]() {
				return this.#handlers[type]?.value ?? null;
			},
			set [name](value) {
				const good = typeof value === "function" || (typeof value === "object" && value);
				const handler = this.#handlers[type] ??= {
					listener: (event) => typeof handler.value === "function" &&
					    handler.value.call(this, event),
				};
				handler.value = good ? value : null;
				if (good)
					this.addEventListener(type, handler.listener);
				else
					this.removeEventListener(type, handler.listener);
			},
		};
	}

	/* Members as WebIDL defines them: enumerable. */
	static {
		const attributes = {
			get url() {
				return this.#url;
			},
			get withCredentials() {
				return this.#withCredentials;
			},
			get readyState() {
				return this.#readyState;
			},
		};
		const methods = {
			close() {
				this.#end();
			},
		};
		for (const members of [attributes, ...["open", "message", "error"].map(this.#handler), methods])
			Object.defineProperties(this.prototype, Object.getOwnPropertyDescriptors(members));
	}
}

/* Without these a page would share nothing. */
if (!EventSource || !globalThis.BroadcastChannel || !globalThis.navigator?.locks || !URL.canParse)
	return;

const { port1, port2 } = new MessageChannel();
port1.onmessage = () => tasks.shift()();

/*
 * The browser's own class with another constructor: constants, name and prototype stay. A class that
 * extends it, and arguments that it refuses, are left to it.
 */
const replacement = new Proxy(EventSource, {
	construct(target, values, newTarget) {
		if (!values.length || newTarget !== replacement)
			return Reflect.construct(target, values, newTarget);
		const url = `${values[0]}`;
		const init = values[1] ?? {};
		const topics = Object(init) === init && topicsOf(url);
		return topics ? new SharedEventSource(topics, !!init.withCredentials) :
		    Reflect.construct(target, [url, ...values.slice(1)], newTarget);
	},
});

/* instanceof, the constants and the class name come from the browser's own prototype. */
delete SharedEventSource.prototype.constructor;
Object.setPrototypeOf(SharedEventSource.prototype, EventSource.prototype);
EventSource.prototype.constructor = replacement;
globalThis.EventSource = replacement;
})();
