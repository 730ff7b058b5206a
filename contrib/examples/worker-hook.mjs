// SPDX-License-Identifier: ISC
// A hook for a worker in Node.js: wakes up a user's browsers when a notification has been stored for them.
//
//	import { wakeUser } from "./worker-hook.mjs";
//
//	// In the worker, after committing the transaction:
//	await wakeUser(notification.userId, notification.id);
//
// Or, with a BullMQ queue whose jobs return the notification:
//
//	worker.on("completed", (job, stored) => wakeUser(stored.userId, stored.id));
//
// The notification is already stored, so a job must not fail because a wake-up could not be published:
// errors are printed to standard error, and nothing is thrown. tpi-publish reads its settings (VALKEY_URL,
// VALKEY_PASSWORD_FILE, INSTANCE_TENANT_ID) from the worker's environment.

import { execFile } from "node:child_process";
import { pathToFileURL } from "node:url";

const TAG = "notificationWorker";

/** Publishes the wake-up. Resolves when it has been published or has failed. */
export function wakeUser(userId, notificationId) {
    const args = ["notification", "--user", userId, "--id", notificationId, "--best-effort", "--tag", TAG];
    return new Promise((resolve) => {
        // tpi-publish times out after 2 seconds; this limit is for a machine that hangs.
        execFile("tpi-publish", args, { timeout: 10000 }, (error, stdout, stderr) => {
            process.stderr.write(stderr);
            if (error && !stderr) {
                console.error(`[${TAG}] SSE publish failed`, error.message);
            }
            resolve();
        });
    });
}

// To try it: node worker-hook.mjs USER NOTIFICATION
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
    await wakeUser(process.argv[2], process.argv[3]);
}
