// SPDX-License-Identifier: ISC
/*
 * Wake-ups for an application with TanStack Query (version 5). Render <Refetch /> once below the
 * QueryClientProvider and write queries as usual: it watches every project that is in the cache and
 * refetches it when it changes.
 *
 * Watch at the top and not in each component: a component that is unmounted while its data is
 * refetched would start to watch when it is mounted again, get a sync, refetch, and so on forever.
 */
import {
	notifyManager, QueryClient, QueryKey, useQuery, useQueryClient,
} from "@tanstack/react-query";
import { useCallback, useMemo, useSyncExternalStore } from "react";
import { useIssueUpdates, useNotifications } from "tpi-stream-client/react";

const COALESCE_MS = 200;

/* createRefetch() collects bursts, so that the hooks need not. */
const options = { coalesceMs: 0, combined: true };

/* Wake-ups say when data is stale; this is for times without a stream. */
const staleTime = 60_000;

async function fetchJson(url: string) {
	const answer = await fetch(url);
	if (!answer.ok)
		throw new Error(`${url}: ${answer.status}`);
	return answer.json();
}

export function useIssues(projectId: number) {
	return useQuery({
		queryKey: ["issues", projectId],
		queryFn: () => fetchJson(`/api/projects/${projectId}/issues`),
		staleTime,
	});
}

export function useNotificationList() {
	return useQuery({
		queryKey: ["notifications"],
		queryFn: () => fetchJson("/api/notifications"),
		staleTime,
	});
}

export function Refetch() {
	const client = useQueryClient();
	const refetch = useMemo(() => createRefetch(client), [client]);

	useNotifications(() => refetch(["notifications"]), options);
	return useCachedProjects(client).map((id) =>
	    <ProjectRefetch key={id} id={id} refetch={refetch} />);
}

function ProjectRefetch({ id, refetch }: { id: number; refetch: (key: QueryKey) => void }) {
	/* On a sync and on a wake-up alike: refetch. */
	useIssueUpdates([id], () => refetch(["issues", id]), options);
	return null;
}

/* The projects whose issues are in the cache, in ascending order. */
function useCachedProjects(client: QueryClient): number[] {
	const cache = client.getQueryCache();
	/* Batched, which defers the call: a query may enter the cache while a component renders. */
	const subscribe = useCallback((changed: () => void) =>
	    cache.subscribe(notifyManager.batchCalls(changed)), [cache]);
	const snapshot = () => {
		const ids = cache.findAll({ queryKey: ["issues"] }).map(({ queryKey }) => queryKey[1]);
		return JSON.stringify([...new Set(ids as number[])].sort((a, b) => a - b));
	};
	return JSON.parse(useSyncExternalStore(subscribe, snapshot, () => "[]"));
}

/*
 * Runs one round of fetches at a time. Requests that arrive meanwhile cause one more round, so a burst
 * causes two fetches, and a wake-up never cancels a fetch in flight.
 */
function createRefetch(client: QueryClient) {
	const asked = new Map<string, QueryKey>();
	let running = false;

	async function run() {
		running = true;
		while (asked.size) {
			await new Promise((resolve) => setTimeout(resolve, COALESCE_MS));
			const keys = [...asked.values()];
			asked.clear();
			await Promise.all(keys.map((queryKey) => fetchAgain(client, queryKey)));
		}
		running = false;
	}
	return (queryKey: QueryKey) => {
		asked.set(JSON.stringify(queryKey), queryKey);
		if (!running)
			void run();
	};
}

async function fetchAgain(client: QueryClient, queryKey: QueryKey) {
	/* TanStack joins a first fetch in flight instead of starting one, but that may return stale data. */
	const loading = client.isFetching({
		queryKey,
		predicate: ({ state }) => state.data === undefined,
	});
	await client.invalidateQueries({ queryKey });
	if (loading)
		await client.invalidateQueries({ queryKey });
}
