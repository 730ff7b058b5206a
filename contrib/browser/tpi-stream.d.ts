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

/** A watched test run, or one of a watched project, has changed. */
export interface TestRunWakeup {
	type: "wakeup";
	/** Set by the publisher, for example `"test_run.state_changed"`; never `"sync"`. */
	event: string;
	runId: number;
	projectId: number;
	/** What in the test run has changed, if the publisher says so. */
	targetId?: number;
}

/** A watched milestone, or one of a watched project, has changed. */
export interface MilestoneWakeup {
	type: "wakeup";
	/** Set by the publisher, for example `"milestone.updated"`; never `"sync"`. */
	event: string;
	milestoneId: number;
	projectId: number;
	/** What in the milestone has changed, if the publisher says so. */
	targetId?: number;
}

export type NotificationMessage = SyncMessage | NotificationWakeup;
export type IssueMessage = SyncMessage | IssueWakeup;
export type TestRunMessage = SyncMessage | TestRunWakeup;
export type MilestoneMessage = SyncMessage | MilestoneWakeup;

/**
 * - `connecting`: the browser is connecting, or reconnecting by itself.
 * - `live`: wake-ups arrive.
 * - `waiting`: refused or lost, or the page is suspended; reopened after a delay, or when the page resumes.
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
	/**
	 * Share one connection with the other tabs of the browser. False is for a server without
	 * `/api/stream`. Default true.
	 */
	combined?: boolean;
	/** Applies if this is the first watcher of the page; later watchers do not change it. */
	retry?: RetryOptions;
	/**
	 * How long to collect messages before the listener is called, in milliseconds. It is called once
	 * for each event and item, with the last message. Default 0: at once; in the React hooks 250.
	 */
	coalesceMs?: number;
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
 * Watches for changes of issues of projects.
 * @param projectIds 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchIssues(
	projectIds: readonly number[],
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of test runs.
 * @param ids 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchTestRuns(
	ids: readonly number[],
	onWakeup: (message: TestRunMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of all test runs of projects.
 * @param projectIds 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchProjectTestRuns(
	projectIds: readonly number[],
	onWakeup: (message: TestRunMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of milestones.
 * @param ids 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchMilestones(
	ids: readonly number[],
	onWakeup: (message: MilestoneMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Watches for changes of all milestones of projects.
 * @param projectIds 1 to 500 integers from 1 to 2147483647; duplicates count once
 * @throws {TypeError} if an argument is invalid
 */
export function watchProjectMilestones(
	projectIds: readonly number[],
	onWakeup: (message: MilestoneMessage) => void,
	options?: WatchOptions,
): Stop;

/**
 * Closes and reopens the streams, in all tabs of the browser. Call it when a user has signed in or out:
 * no tab then gets wake-ups of the previous session.
 */
export function reset(): void;
