// SPDX-License-Identifier: ISC
import type {
	IssueMessage,
	NotificationMessage,
	StreamState,
	WatchOptions,
} from "./tpi-stream.js";

/**
 * Watches notifications while the component is mounted. Calls the callbacks of the last render; a new
 * function or options object does not reconnect.
 * @returns the state of the stream, for a "live" dot
 */
export function useNotifications(
	onWakeup: (message: NotificationMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of issues while the component is mounted. A new array with the same projects
 * does not reconnect. While there are no projects (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useIssueUpdates(
	projectIds: readonly number[] | null | undefined,
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): StreamState;
