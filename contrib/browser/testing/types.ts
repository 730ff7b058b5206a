// SPDX-License-Identifier: ISC
/*
 * What must compile, and what must not. test/package.test.js compiles this file and never runs it.
 */
import {
	reset, watchIssues, watchMilestones, watchNotifications, watchProjectMilestones, watchProjectTestRuns,
	watchTestRuns,
} from "tpi-stream-client";
import type {
	IssueMessage, MilestoneMessage, StreamState, TestRunMessage, WatchOptions,
} from "tpi-stream-client";
import {
	useIssueUpdates, useMilestoneUpdates, useNotifications, useProjectMilestoneUpdates,
	useProjectTestRunUpdates, useTestRunUpdates,
} from "tpi-stream-client/react";

const options: WatchOptions = {
	baseUrl: "https://example.org",
	withCredentials: true,
	retry: { firstMs: 1000, limit: 3 },
	coalesceMs: 100,
	combined: true,
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
reset();

function onIssue(message: IssueMessage): number {
	return message.type === "wakeup" ? message.issueId + message.projectId : 0;
}
watchIssues([7, 8] as const, onIssue)();

function onTestRun(message: TestRunMessage): number | undefined {
	return message.type === "wakeup" ? message.targetId ?? message.runId : undefined;
}
watchTestRuns([42], onTestRun)();
watchProjectTestRuns([7], onTestRun, options)();

function onMilestone(message: MilestoneMessage): number | undefined {
	return message.type === "wakeup" ? message.targetId ?? message.milestoneId : undefined;
}
watchMilestones([9], onMilestone)();
watchProjectMilestones([7], onMilestone, options)();

export function Component({ ids }: { ids?: number[] }): StreamState {
	useTestRunUpdates(ids, onTestRun);
	useProjectTestRunUpdates(ids, onTestRun, options);
	useMilestoneUpdates(ids, onMilestone);
	useProjectMilestoneUpdates(null, onMilestone, options);
	useNotifications((message) => console.log(message.type));
	return useIssueUpdates(ids, onIssue, options);
}

// @ts-expect-error ids are numbers
watchIssues(["7"], onIssue);
// @ts-expect-error the projects are required
watchIssues(onIssue);
// @ts-expect-error combined is a boolean
watchNotifications(() => {}, { combined: "yes" });
// @ts-expect-error no such option
watchNotifications(() => {}, { url: "" });
// @ts-expect-error a sync has no id
watchNotifications((message) => message.id);
// @ts-expect-error a wake-up of an issue has no id
watchIssues([7], (message) => message.type === "wakeup" && message.id);
// @ts-expect-error no such state
const state: StreamState = "open";
// @ts-expect-error a test run has no issue
watchTestRuns([42], (message) => message.type === "wakeup" && message.issueId);
// @ts-expect-error a milestone has no test run
useProjectMilestoneUpdates([7], (message) => message.type === "wakeup" && message.runId);
