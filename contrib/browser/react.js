// SPDX-License-Identifier: ISC
"use client";
/*
 * react: hooks for tpi-stream.js, for React 18 and 19. They connect in an effect, so rendering on a
 * server, or twice under StrictMode, opens no connection.
 */
import { useEffect, useRef, useState } from "react";
import { watchIssues, watchNotifications } from "./tpi-stream.js";

/* Restarts watching only when the key changes. Calls the callbacks of the last render. */
function useWatch(key, watch, onWakeup, options = {}) {
	const [state, setState] = useState("connecting");
	const latest = useRef();
	const { baseUrl, withCredentials } = options;

	useEffect(() => {
		latest.current = { onWakeup, options };
	});
	useEffect(() => key === undefined ? undefined : watch(
		(message) => latest.current.onWakeup(message),
		{
			...options,
			onstate(value) {
				setState(value);
				latest.current.options.onstate?.(value);
			},
			onclosed: () => latest.current.options.onclosed?.(),
		},
	), [key, baseUrl, withCredentials]);
	return key === undefined ? "closed" : state;
}

/* The same key for the same projects in any order; undefined if there are none. */
function keyOf(projectIds) {
	return [...new Set(projectIds)].sort((a, b) => a - b).join(",") || undefined;
}

export function useNotifications(onWakeup, options) {
	return useWatch("", watchNotifications, onWakeup, options);
}

export function useIssueUpdates(projectIds, onWakeup, options) {
	const watch = (...rest) => watchIssues(projectIds, ...rest);
	return useWatch(keyOf(projectIds), watch, onWakeup, options);
}
