// SPDX-License-Identifier: ISC
/*
 * What must compile, and what must not. test/package.test.js compiles this file and never runs it.
 */
import { watchIssues, watchNotifications } from "tpi-stream-client";
import type { IssueMessage, StreamState, WatchOptions } from "tpi-stream-client";
import { useIssueUpdates, useNotifications } from "tpi-stream-client/react";

const options: WatchOptions = {
	baseUrl: "https://example.org",
	withCredentials: true,
	retry: { firstMs: 1000, limit: 3 },
	logger: console,
	onstate: (state) => console.log(state === "live"),
	onclosed: () => console.log("refused"),
};

const stop: () => void = watchNotifications((message) => {
	if (message.type === "sync") {
		const first: boolean = message.first;
		console.log(first);
	} else {
		const id: string = message.id;
		console.log(id, message.event);
	}
}, options);
stop();

function onIssue(message: IssueMessage): number {
	return message.type === "wakeup" ? message.issueId + message.projectId : 0;
}
watchIssues([7, 8] as const, onIssue)();

export function Component({ ids }: { ids?: number[] }): StreamState {
	useNotifications((message) => console.log(message.type));
	return useIssueUpdates(ids, onIssue, options);
}

// @ts-expect-error ids are numbers
watchIssues(["7"], onIssue);
// @ts-expect-error the projects are required
watchIssues(onIssue);
// @ts-expect-error no such option
watchNotifications(() => {}, { url: "" });
// @ts-expect-error a sync has no id
watchNotifications((message) => message.id);
// @ts-expect-error a wake-up of an issue has no id
watchIssues([7], (message) => message.type === "wakeup" && message.id);
// @ts-expect-error no such state
const state: StreamState = "open";
