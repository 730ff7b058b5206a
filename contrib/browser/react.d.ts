import type {
	IssueMessage,
	NotificationMessage,
	StreamState,
	WatchOptions,
} from "./tpi-stream.js";

/**
 * Watches for notifications as long as the component is mounted.
 * The latest callbacks are used; a new function or options object does not reconnect.
 * @returns the state of the stream, for a "live" dot
 */
export function useNotifications(
	onWakeup: (message: NotificationMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of issues as long as the component is mounted.
 * A new array with the same projects does not reconnect. Nothing is watched, and the state is
 * `closed`, while there are no projects (an empty array, null or undefined: not known yet).
 * @returns the state of the stream, for a "live" dot
 */
export function useIssueUpdates(
	projectIds: readonly number[] | null | undefined,
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): StreamState;
