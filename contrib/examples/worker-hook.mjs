// A worker's hook in Node.js: wakes a user's browsers up when a notification of his has been stored.
//
//	import { wakeUser } from "./worker-hook.mjs";
//
//	// In the worker, after the transaction has been committed:
//	await wakeUser(notification.userId, notification.id);
//
// Or, of a queue of BullMQ whose jobs return the notification:
//
//	worker.on("completed", (job, stored) => wakeUser(stored.userId, stored.id));
//
// The row in the database is the truth, and a job must not fail because nobody could be woken up:
// what goes wrong is a line on standard error, and nothing is thrown. tpi-publish takes its settings
// (VALKEY_URL, VALKEY_PASSWORD_FILE, INSTANCE_TENANT_ID) from the worker's environment.

import { execFile } from "node:child_process";
import { pathToFileURL } from "node:url";

const TAG = "notificationWorker";

/** Resolves when the wake-up has been published, or cannot be. */
export function wakeUser(userId, notificationId) {
    const args = ["notification", "--user", userId, "--id", notificationId, "--best-effort", "--tag", TAG];
    return new Promise((resolve) => {
        // tpi-publish gives up by itself after 2 seconds; the limit here is for a machine that hangs.
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
