# SPDX-License-Identifier: ISC
"""A hook for a worker in Python: wakes up a user's browsers when a notification has been stored for them.

    from worker_hook import wake_user

    # In the worker, after committing the transaction:
    wake_user(notification.user_id, notification.id)

Or, with Celery:

    @task_success.connect(sender=store_notification)
    def wake(result, **_):
        wake_user(result["userId"], result["id"])

The notification is already stored, so a job must not fail because a wake-up could not be published:
errors are printed to standard error, and nothing is raised. tpi-publish reads its settings (VALKEY_URL,
VALKEY_PASSWORD_FILE, INSTANCE_TENANT_ID) from the worker's environment.
"""

import subprocess
import sys

TAG = "notificationWorker"


def wake_user(user_id, notification_id):
    """Publish the wake-up. Return when it has been published or has failed."""
    args = ["notification", "--user", str(user_id), "--id", str(notification_id), "--best-effort", "--tag", TAG]
    try:
        # tpi-publish times out after 2 seconds; this limit is for a machine that hangs.
        subprocess.run(["tpi-publish", *args], stdin=subprocess.DEVNULL, timeout=10, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: an id with a NUL
        print(f"[{TAG}] SSE publish failed {error}", file=sys.stderr)


# To try it: python3 worker_hook.py USER NOTIFICATION
if __name__ == "__main__":
    wake_user(*sys.argv[1:3])
