"""A worker's hook in Python: wakes a user's browsers up when a notification of his has been stored.

    from worker_hook import wake_user

    # In the worker, after the transaction has been committed:
    wake_user(notification.user_id, notification.id)

Or, of Celery:

    @task_success.connect(sender=store_notification)
    def wake(result, **_):
        wake_user(result["userId"], result["id"])

The row in the database is the truth, and a job must not fail because nobody could be woken up: what
goes wrong is a line on standard error, and nothing is raised. tpi-publish takes its settings
(VALKEY_URL, VALKEY_PASSWORD_FILE, INSTANCE_TENANT_ID) from the worker's environment.
"""

import subprocess
import sys

TAG = "notificationWorker"


def wake_user(user_id, notification_id):
    """Returns when the wake-up has been published, or cannot be."""
    args = ["notification", "--user", str(user_id), "--id", str(notification_id), "--best-effort", "--tag", TAG]
    try:
        # tpi-publish gives up by itself after 2 seconds; the limit here is for a machine that hangs.
        subprocess.run(["tpi-publish", *args], stdin=subprocess.DEVNULL, timeout=10, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: an id with a NUL
        print(f"[{TAG}] SSE publish failed {error}", file=sys.stderr)


# To try it: python3 worker_hook.py USER NOTIFICATION
if __name__ == "__main__":
    wake_user(*sys.argv[1:3])
