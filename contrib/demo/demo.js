/*
 * The page of contrib/quickstart.sh: opens both streams with a plain EventSource and shows what
 * arrives. A wake-up says only that something changed; a real page would now ask the application.
 */
"use strict";

const ROWS_MAX = 200;
const log = document.getElementById("log");

function clock() {
	const now = new Date();
	return now.toLocaleTimeString([], { hour12: false }) + "." +
	    String(now.getMilliseconds()).padStart(3, "0");
}

function write(stream, text, kind) {
	const row = log.insertRow(0);
	row.className = kind;
	for (const value of [clock(), stream, text])
		row.insertCell().textContent = value;
	while (log.rows.length > ROWS_MAX)
		log.deleteRow(-1);
}

function watch(name, url) {
	const card = document.getElementById(name);
	const count = card.querySelector(".count b");
	const source = new EventSource(url);

	function state(value, text) {
		card.dataset.state = value;
		card.querySelector(".state").textContent = text;
	}

	source.onmessage = ({ data }) => {
		let event;
		try {
			({ event } = JSON.parse(data));
		} catch {
			return;
		}
		/* The first event of each stream, and the one after anything may have been missed. */
		if (event === "sync") {
			state("live", "live");
			write(name, "sync: listening from here on, refetch once", "sync");
			return;
		}
		count.textContent = Number(count.textContent) + 1;
		write(name, data, "wakeup");
	};
	source.addEventListener("shutdown", () => write(name, "shutdown: the server restarts", "end"));
	source.addEventListener("evicted", () => {
		source.close();
		state("closed", "closed: too many tabs of this user; reload this one to use it");
		write(name, "evicted: a newer tab took this place", "end");
	});
	source.onerror = () => {
		/* CLOSED: an answer other than 200, after which a browser does not try again. */
		if (source.readyState === EventSource.CLOSED)
			state("closed", "refused: reload the page to try again");
		else
			state("connecting", "connecting again");
	};
}

document.getElementById("clear").onclick = () => log.replaceChildren();

fetch("/", { method: "HEAD" }).then((answer) => {
	document.getElementById("user").textContent = answer.headers.get("X-Demo-User") || "nobody";
});

watch("notifications", "/api/notifications/stream");
watch("issues", "/api/issues/stream?projectIds=7,8");
