// SPDX-License-Identifier: ISC
/*
 * TestPlanIt's hooks, with the arguments they have there, on the one connection of the browser. Replace
 * them one by one: let a file in TestPlanIt's hooks/ export the function from here, and leave the
 * components as they are. Call useSessionReset() once below the SessionProvider.
 *
 *	hooks/useIssueUpdateStream.ts	useIssueUpdateStream
 *	hooks/useTestRunLiveStream.ts	useTestRunLiveStream, useProjectTestRunStream
 *	hooks/useMilestoneLiveStream.ts	useMilestoneLiveStream, useProjectMilestoneStream
 *	components/NotificationBell.tsx	useNotificationStream, in place of its effect with an EventSource
 */
import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { reset } from "tpi-stream-client";
import type { MilestoneMessage, TestRunMessage } from "tpi-stream-client";
import {
	useIssueUpdates, useMilestoneUpdates, useNotifications, useProjectMilestoneUpdates,
	useProjectTestRunUpdates, useTestRunUpdates,
} from "tpi-stream-client/react";

const combined = { combined: true };

/* The listeners of test runs and milestones collect bursts themselves (useCoalescedWakeUp). */
const single = { combined: true, coalesceMs: 0 };

type Id = number | null | undefined;

export interface WakeUp {
	event: string;
	runId?: number;
	milestoneId?: number;
	projectId?: number;
	targetId?: number;
}

interface Args {
	enabled?: boolean;
	onWakeUp: (event: WakeUp) => void;
}

function idsOf(id: Id, enabled = true) {
	return enabled && id && id > 0 ? [id] : null;
}

/* Messages as TestPlanIt's listeners know them. */
function toWakeUp(onWakeUp: Args["onWakeUp"]) {
	return (message: TestRunMessage | MilestoneMessage) => {
		if (message.type === "sync")
			return onWakeUp({ event: "sync" });
		const { type, ...wakeUp } = message;
		onWakeUp(wakeUp);
	};
}

export function useTestRunLiveStream({ runId, enabled, onWakeUp }: Args & { runId: Id }) {
	useTestRunUpdates(idsOf(runId, enabled), toWakeUp(onWakeUp), single);
}

export function useProjectTestRunStream({ projectId, enabled, onWakeUp }: Args & { projectId: Id }) {
	useProjectTestRunUpdates(idsOf(projectId, enabled), toWakeUp(onWakeUp), single);
}

export function useMilestoneLiveStream({ milestoneId, enabled, onWakeUp }: Args & { milestoneId: Id }) {
	useMilestoneUpdates(idsOf(milestoneId, enabled), toWakeUp(onWakeUp), single);
}

export function useProjectMilestoneStream({ projectId, enabled, onWakeUp }: Args & { projectId: Id }) {
	useProjectMilestoneUpdates(idsOf(projectId, enabled), toWakeUp(onWakeUp), single);
}

/*
 * A first sync refetches nothing: badges that are mounted again while their data is refetched would
 * refetch it forever.
 */
export function useIssueUpdateStream(projectIds: Id | number[]) {
	const client = useQueryClient();
	const ids = [projectIds ?? []].flat().filter((id) => Number.isInteger(id) && id > 0);

	useIssueUpdates(ids, (message) => {
		if (message.type === "wakeup" || !message.first)
			void client.invalidateQueries({ queryKey: ["zenstack"] });
	}, combined);
}

export function useNotificationStream(refetch: () => void) {
	useNotifications(refetch, combined);
}

const LAST_USER = "tpi-stream-user";

/*
 * After sign-in and sign-out, reopens the stream of all tabs with the cookies of the new session. userId is
 * that of useSession(): undefined while it is loading, null if nobody is signed in. localStorage keeps the
 * last one because TestPlanIt loads another page to sign in.
 */
export function useSessionReset(userId: string | null | undefined) {
	useEffect(() => {
		if (userId === undefined || localStorage.getItem(LAST_USER) === (userId ?? ""))
			return;
		localStorage.setItem(LAST_USER, userId ?? "");
		reset();
	}, [userId]);
}
