// SPDX-License-Identifier: ISC
"use client";
/*
 * react: hooks for tpi-stream.js, for React 18 and 19. They connect in an effect, so rendering on a
 * server, or twice under StrictMode, opens no connection.
 */
import { useEffect, useRef, useState } from "react";
import {
	watchIssues, watchMilestones, watchNotifications, watchProjectMilestones, watchProjectTestRuns,
	watchTestRuns,
} from "./tpi-stream.js";

const COALESCE_MS = 250;	/* short for a user, long enough for a burst */

/* Restarts watching only when the key changes. Calls the callbacks of the last render. */
function useWatch(key, watch, onWakeup, options = {}) {
	const [state, setState] = useState("connecting");
	const latest = useRef();
	const { baseUrl, withCredentials, combined, coalesceMs = COALESCE_MS } = options;

	useEffect(() => {
		latest.current = { onWakeup, options };
	});
	useEffect(() => key === undefined ? undefined : watch(
		(message) => latest.current.onWakeup(message),
		{
			...options,
			coalesceMs,
			onstate(value) {
				setState(value);
				latest.current.options.onstate?.(value);
			},
			onclosed: () => latest.current.options.onclosed?.(),
		},
	), [key, baseUrl, withCredentials, combined, coalesceMs]);
	return key === undefined ? "closed" : state;
}

/* The same key for the same ids in any order; undefined if there are none. */
function keyOf(ids) {
	return [...new Set(ids)].sort((a, b) => a - b).join(",") || undefined;
}

/* A hook that watches topics by their ids. */
function hookOf(watch) {
	return (ids, onWakeup, options) =>
	    useWatch(keyOf(ids), (...rest) => watch(ids, ...rest), onWakeup, options);
}

export function useNotifications(onWakeup, options) {
	return useWatch("", watchNotifications, onWakeup, options);
}

export const useIssueUpdates = hookOf(watchIssues);
export const useTestRunUpdates = hookOf(watchTestRuns);
export const useProjectTestRunUpdates = hookOf(watchProjectTestRuns);
export const useMilestoneUpdates = hookOf(watchMilestones);
export const useProjectMilestoneUpdates = hookOf(watchProjectMilestones);
