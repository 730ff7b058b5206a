/** Something may have been missed: fetch again whatever the page shows. */
export interface SyncMessage {
	type: "sync";
	/** True for the first one that this watcher gets, false for each one after it. */
	first: boolean;
}

/** There is something new for this user. */
export interface NotificationWakeup {
	type: "wakeup";
	/** What the publisher calls it, `"notification"` say; never `"sync"`. */
	event: string;
	id: string;
}

/** An issue of one of the watched projects has changed. */
export interface IssueWakeup {
	type: "wakeup";
	/** What the publisher calls it, `"issue-updated"` say; never `"sync"`. */
	event: string;
	issueId: number;
	projectId: number;
}

export type NotificationMessage = SyncMessage | NotificationWakeup;
export type IssueMessage = SyncMessage | IssueWakeup;

/**
 * - `connecting`: the browser connects, or connects again by itself.
 * - `live`: wake-ups arrive.
 * - `waiting`: refused, or the page sleeps; opened again after a while, or when the page comes back.
 * - `parked`: too many streams of this user; opened again when the page is visible and used, or live
 *   again by itself, minutes after there is room.
 * - `closed`: not tried again by a timer: `retry.limit` is reached, or there is no `EventSource`.
 */
export type StreamState = "connecting" | "live" | "waiting" | "parked" | "closed";

/** How a stream comes back after an answer other than 200, at which the browser itself gives up. */
export interface RetryOptions {
	/** The first wait is a random time up to this; it doubles from then on. Default 30000. */
	firstMs?: number;
	/** The longest wait, in milliseconds. Default 300000. */
	maxMs?: number;
	/** Refusals in a row that are answered with a new try. Default Infinity; 0 is never. */
	limit?: number;
}

export interface Logger {
	warn(...values: unknown[]): void;
	error(...values: unknown[]): void;
}

export interface WatchOptions {
	/** Origin and prefix before `/api`, `"https://example.org/app"` say. Default `""`. */
	baseUrl?: string;
	/** Send cookies to another origin. Default false. */
	withCredentials?: boolean;
	/** Of the watcher that makes a stream come into being; those who join take it as it is. */
	retry?: RetryOptions;
	/** Default `console`. */
	logger?: Logger;
	/** Called with each new state of the stream, and soon after the start with the present one. */
	onstate?(state: StreamState): void;
	/** Called each time the stream was refused (401, 404, 503 …: a page cannot tell which). */
	onclosed?(): void;
}

/** Stops watching; a second call does nothing. No callback is called after it. */
export type Stop = () => void;

/**
 * Watches for the notifications of the user who is signed in.
 * @throws {TypeError} when an argument is not what it has to be
 */
export function watchNotifications(
	onWakeup: (message: NotificationMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of issues.
 * @param projectIds 1 to 500 integers from 1 to 2147483647; a repeated one counts once
 * @throws {TypeError} when an argument is not what it has to be
 */
export function watchIssues(
	projectIds: readonly number[],
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): Stop;
