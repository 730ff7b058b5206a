// SPDX-License-Identifier: ISC
import type {
	IssueMessage,
	MilestoneMessage,
	NotificationMessage,
	StreamState,
	TestRunMessage,
	WatchOptions,
} from "./tpi-stream.js";

/**
 * Watches notifications while the component is mounted. Calls the callbacks of the last render; a new
 * function or options object does not reconnect. In all hooks `coalesceMs` is 250 by default.
 * @returns the state of the stream, for a "live" dot
 */
export function useNotifications(
	onWakeup: (message: NotificationMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of issues of projects while the component is mounted. A new array with the same projects
 * does not reconnect. While there are no projects (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useIssueUpdates(
	projectIds: readonly number[] | null | undefined,
	onWakeup: (message: IssueMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of test runs while the component is mounted. A new array with the same ids
 * does not reconnect. While there are no ids (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useTestRunUpdates(
	ids: readonly number[] | null | undefined,
	onWakeup: (message: TestRunMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of all test runs of projects while the component is mounted. A new array with the same projects
 * does not reconnect. While there are no projects (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useProjectTestRunUpdates(
	projectIds: readonly number[] | null | undefined,
	onWakeup: (message: TestRunMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of milestones while the component is mounted. A new array with the same ids
 * does not reconnect. While there are no ids (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useMilestoneUpdates(
	ids: readonly number[] | null | undefined,
	onWakeup: (message: MilestoneMessage) => void,
	options?: WatchOptions,
): StreamState;

/**
 * Watches for changes of all milestones of projects while the component is mounted. A new array with the same projects
 * does not reconnect. While there are no projects (an empty array, null or undefined), nothing is
 * watched and the state is `closed`.
 * @returns the state of the stream, for a "live" dot
 */
export function useProjectMilestoneUpdates(
	projectIds: readonly number[] | null | undefined,
	onWakeup: (message: MilestoneMessage) => void,
	options?: WatchOptions,
): StreamState;
