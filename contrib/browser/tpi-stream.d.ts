// SPDX-License-Identifier: ISC
/** Wake-ups may have been lost: refetch whatever the page shows. */
export interface SyncMessage {
	type: "sync";
	/** True for the first sync of this watcher, false for each later one. */
	first: boolean;
}

/** This user has a new notification, or one has changed. */
export interface NotificationWakeup {
	type: "wakeup";
	/** Set by the publisher, for example `"notification"`; never `"sync"`. */
	event: string;
	id: string;
}

/** An issue of one of the watched projects has changed. */
export interface IssueWakeup {
	type: "wakeup";
	/** Set by the publisher, for example `"issue-updated"`; never `"sync"`. */
	event: string;
	issueId: number;
	projectId: number;
}

export type NotificationMessage = SyncMessage | NotificationWakeup;
export type IssueMessage = SyncMessage | IssueWakeup;

/**
 * - `connecting`: the browser is connecting, or reconnecting by itself.
 * - `live`: wake-ups arrive.
 * - `waiting`: refused, or the page is suspended; reopened after a delay, or when the page resumes.
 * - `parked`: this user has too many streams; reopened when the page is visible and used, or live
 *   again by itself, minutes after a slot is free.
 * - `closed`: not retried by a timer: `retry.limit` is reached, the base URL is invalid, or there is
 *   no `EventSource`.
 */
export type StreamState = "connecting" | "live" | "waiting" | "parked" | "closed";

/** How a stream is reopened after a response other than 200; the browser does not reconnect then. */
export interface RetryOptions {
	/** The longest first delay, in milliseconds; doubles with each refusal. Default 30000. */
	firstMs?: number;
	/** The longest delay, in milliseconds. Default 300000. */
	maxMs?: number;
	/** How many consecutive refusals are retried; 0 means none. Default Infinity. */
	limit?: number;
}

export interface Logger {
	warn(...values: unknown[]): void;
	error(...values: unknown[]): void;
}

export interface WatchOptions {
	/** Origin and prefix that precede `/api`, for example `"https://example.org/app"`. Default `""`. */
	baseUrl?: string;
	/** Send cookies to another origin. Default false. */
	withCredentials?: boolean;
	/** Applies if this watcher creates the stream; watchers that join it do not change it. */
	retry?: RetryOptions;
	/** Default `console`. */
	logger?: Logger;
	/** Called with the state soon after the start, and with each new state. */
	onstate?(state: StreamState): void;
	/** Called each time the stream is refused (401, 404, 503, …: a page cannot tell which). */
	onclosed?(): void;
}

/** Stops watching: no callback is called afterwards. Further calls do nothing. */
export type Stop = () => void;

/**
 * Watches the notifications of the signed-in user.
 * @throws {TypeError} if an argument is invalid
 */
export function watchNotifications(
	onWakeup: (message: NotificationMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of issues.
 * @param projectIds 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchIssues(
	projectIds: readonly number[],
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): Stop;
