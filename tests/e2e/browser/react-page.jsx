// SPDX-License-Identifier: ISC
/* Two components with hooks, one of which can be taken out and put back. */
import { StrictMode, useState, version } from "react";
import { createRoot } from "react-dom/client";
import { useIssueUpdates, useNotifications } from "tpi-stream-client/react";

/* The test counts messages. */
const options = { coalesceMs: 0, combined: false };

window.seen = { bell: { messages: [] }, board: { messages: [] } };

function Bell() {
	const state = useNotifications((message) => seen.bell.messages.push(message), options);
	return <p id="bell">{state}</p>;
}

function Board({ ids }) {
	const state = useIssueUpdates(ids, (message) => seen.board.messages.push(message), options);
	return <p id="board">{state}</p>;
}

function App() {
	const [bells, setBells] = useState(["left", "right"]);
	Object.assign(window, { version, setBells });
	return <>{bells.map((name) => <Bell key={name} />)}<Board ids={[7]} /><Board ids={[8]} /></>;
}

createRoot(document.body).render(<StrictMode><App /></StrictMode>);
