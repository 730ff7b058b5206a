/* SPDX-License-Identifier: ISC */
/*
 * sandbox: see sandbox.h.
 *
 * Landlock rules are for directories here, because a rule for a file would not cover its
 * replacement. Connecting to Unix sockets needs no rule.
 */
#include "config.h"

#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#if defined(SYS_landlock_create_ruleset) && __has_include(<linux/landlock.h>)
#define USE_LANDLOCK
#include <linux/landlock.h>
#endif
#ifdef HAVE_SECCOMP
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#ifdef USE_LANDLOCK

/* Rights that the kernel's headers may not have yet. */
#define RIGHT_REFER     (1ULL << 13) /* since version 2 of the interface */
#define RIGHT_TRUNCATE  (1ULL << 14) /* 3 */
#define RIGHT_IOCTL_DEV (1ULL << 15) /* 5 */

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

/* All rights of the first version. */
#define RIGHTS_1                                                                                  \
	(READ | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                      \
	    LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |                      \
	    LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |                          \
	    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                          \
	    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |                        \
	    LANDLOCK_ACCESS_FS_MAKE_SYM)

/* The rights that a rule for anything but a directory can have. */
#define RIGHTS_OF_FILES (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE)

/*
 * What libraries may read at any time: configuration, certificate authorities, modules of the
 * resolver, time zones. /etc/resolv.conf may link into /run, where it may appear only later.
 */
static const char *const readable[] = { "/etc", "/usr", "/lib", "/lib32", "/lib64", "/run",
	"/nix/store", "/gnu/store", "/var/lib/ca-certificates", "/var/lib/sss", "/proc/self",
	"/proc/sys", "/proc/net", "/sys/devices/system/cpu", "/dev/random", "/dev/urandom" };

/* OpenSSL reads the paths in these; SSL_CERT_DIR may list several. */
static const char *const variables[] = { "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF",
	"OPENSSL_MODULES" };

/* Adds a rule for a path, if it exists. False with errno. */
static bool
allow(int rules, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights };
	struct stat st;
	bool good;
	int error;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd == -1)
		return true;
	if (fstat(rule.parent_fd, &st) == 0 && !S_ISDIR(st.st_mode))
		rule.allowed_access &= RIGHTS_OF_FILES;
	good = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
	error = errno;
	close(rule.parent_fd);
	errno = error;
	return good;
}

/* Adds a rule for the directory of a file. False with errno. */
static bool
allow_directory(int rules, const char *file, uint64_t rights)
{
	const char *slash = strrchr(file, '/');
	size_t length = slash != NULL ? (size_t)(slash - file) : 0;
	char directory[PATH_MAX];

	if (length >= sizeof(directory))
		return true;
	memcpy(directory, file, length);
	directory[length] = '\0';
	return allow(rules, length > 0 ? directory : slash != NULL ? "/" : ".", rights);
}

/* The file may be a link. It and its target may be replaced. "": no file. */
static bool
allow_reading(int rules, const char *file)
{
	char target[PATH_MAX];

	if (file[0] == '\0')
		return true;
	return allow_directory(rules, file, READ) &&
	    (realpath(file, target) == NULL || allow_directory(rules, target, READ));
}

/* Permits reading a directory, or a file as allow_reading() does; nothing if it does not exist. */
static bool
allow_path(int rules, const char *path)
{
	struct stat st;

	if (stat(path, &st) == -1)
		return true;
	return S_ISDIR(st.st_mode) ? allow(rules, path, READ) : allow_reading(rules, path);
}

/* A list separated by colons, or one path that contains colons. */
static bool
allow_list(int rules, const char *list)
{
	char *copy = strdup(list), *rest = copy, *path;
	bool good = copy != NULL && allow_path(rules, list);

	while (good && (path = strsep(&rest, ":")) != NULL)
		good = allow_path(rules, path);
	free(copy);
	return good;
}

static bool
add_rules(int rules, const struct settings *s, const struct listener *l)
{
	/* Some systems link the first to a place of their own, such as /mnt/wsl. */
	const char *const files[] = { "/etc/resolv.conf", s->access_file != NULL ? s->access_file : "",
		s->app_ca, s->valkey_tls_ca, s->valkey_tls_cert, s->valkey_tls_key };
	const char *value;
	bool good = allow(rules, "/dev/null", RIGHTS_OF_FILES);

	for (size_t i = 0; good && i < COUNT(readable); i++)
		good = allow(rules, readable[i], READ);
	for (size_t i = 0; good && i < COUNT(files); i++)
		good = allow_reading(rules, files[i]);
	for (size_t i = 0; good && i < COUNT(variables); i++)
		if ((value = getenv(variables[i])) != NULL)
			good = allow_list(rules, value);
	if (good && l->path != NULL)
		good = allow_directory(rules, l->path, LANDLOCK_ACCESS_FS_REMOVE_FILE);
	return good;
}

/* Returns why files are not restricted, or NULL. */
static const char *
restrict_files(const struct settings *s, const struct listener *l)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = RIGHTS_1 };
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int rules = -1;
	bool good;

	if (version < 1)
		return errno == EOPNOTSUPP ? "Landlock is disabled in the kernel"
		    : errno == ENOSYS ? "the kernel has no Landlock" : strerror(errno);
	if (version >= 2)
		attr.handled_access_fs |= RIGHT_REFER;
	if (version >= 3)
		attr.handled_access_fs |= RIGHT_TRUNCATE;
	if (version >= 5)
		attr.handled_access_fs |= RIGHT_IOCTL_DEV;
	rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	good = rules != -1 && add_rules(rules, s, l) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    syscall(SYS_landlock_restrict_self, rules, 0) == 0;
	if (rules != -1)
		close(rules);
	return good ? NULL : strerror(errno);
}

#else

static const char *
restrict_files(const struct settings *s, const struct listener *l)
{
	(void)s, (void)l;
	return "built without Landlock";
}

#endif

#ifdef HAVE_SECCOMP

/* By purpose; those that an architecture does not have are skipped. */
static const char *const denied[] = {
	/* other programs and processes */
	"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev",
	"process_madvise", "kcmp", "kill", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
	/* file systems and namespaces */
	"mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount",
	"fspick", "mount_setattr", "pivot_root", "chroot", "unshare", "setns", "open_by_handle_at",
	"name_to_handle_at", "fanotify_init", "quotactl", "quotactl_fd", "swapon", "swapoff",
	/* file owners, modes, times and attributes, which Landlock does not cover */
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "chown32",
	"fchown32", "lchown32", "utime", "utimes", "futimesat", "utimensat", "utimensat_time64",
	"setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "mknod",
	"mknodat",
	/* users and capabilities */
	"setuid", "setuid32", "setgid", "setgid32", "setreuid", "setreuid32", "setregid", "setregid32",
	"setresuid", "setresuid32", "setresgid", "setresgid32", "setfsuid", "setfsuid32", "setfsgid",
	"setfsgid32", "setgroups", "setgroups32", "capset",
	/* the kernel */
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
	"io_uring_register", "init_module", "finit_module", "delete_module", "kexec_load",
	"kexec_file_load", "reboot", "syslog", "add_key", "request_key", "keyctl", "acct", "iopl",
	"ioperm", "modify_ldt", "personality", "vhangup", "sethostname", "setdomainname",
	"lookup_dcookie",
	/* the clock */
	"settimeofday", "stime", "clock_settime", "clock_settime64", "adjtimex", "clock_adjtime",
	"clock_adjtime64",
};

/* Denies a call of this name if bits & mask == value in an argument. Returns 0, or -errno. */
static int
deny_if(scmp_filter_ctx filter, const char *name, unsigned argument, uint64_t mask, uint64_t value)
{
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), seccomp_syscall_resolve_name(name), 1,
	    SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, mask, value));
}

static int
deny(scmp_filter_ctx filter)
{
	int error = 0;

	for (size_t i = 0; error == 0 && i < COUNT(denied); i++) {
		int number = seccomp_syscall_resolve_name(denied[i]);

		if (number != __NR_SCMP_ERROR)
			error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
	}
#ifndef __s390__
	/*
	 * Allow threads only. A filter cannot see the flags of clone3(), which are in memory.
	 * ENOSYS makes the C library use clone() instead.
	 */
	if (error == 0)
		error = deny_if(filter, "clone", 0, CLONE_THREAD, 0);
	if (error == 0 && seccomp_syscall_resolve_name("clone3") != __NR_SCMP_ERROR)
		error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS),
		    seccomp_syscall_resolve_name("clone3"), 0);
#endif
	/* Memory may be writable or executable, not both. */
	if (error == 0)
		error = deny_if(filter, "mmap", 2, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC);
	if (error == 0)
		error = deny_if(filter, "mprotect", 2, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC);
	return error;
}

/* Returns why system calls are not restricted, or NULL. */
static const char *
restrict_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int error = filter != NULL ? deny(filter) : -ENOMEM;

#if SCMP_VER_MAJOR > 2 || (SCMP_VER_MAJOR == 2 && SCMP_VER_MINOR >= 5)
	/* Without the SSB mitigation, which is slow and on by default; with a binary tree. */
	if (error == 0)
		error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	if (error == 0)
		error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
#endif
	if (error == 0)
		error = seccomp_load(filter);
	if (filter != NULL)
		seccomp_release(filter);
	return error == 0 ? NULL : strerror(-error);
}

#else

static const char *
restrict_calls(void)
{
	return "built without libseccomp";
}

#endif

/* Sanitizers start a symbolizer and write reports to files. */
#ifdef TPI_SANITIZED
#define POSSIBLE false
#else
#define POSSIBLE true
#endif

void
sandbox_enter(const struct settings *s, const struct listener *l)
{
	const char *no_files = POSSIBLE ? "TPI_SANDBOX is off" : "built with a sanitizer";
	const char *no_calls = no_files;

	if (POSSIBLE && s->sandbox == SANDBOX_ON) {
		no_files = restrict_files(s, l);
		no_calls = restrict_calls();
	}
	LOG(LOG_LEVEL_INFO, "streamd", "sandbox",
	    LOG_STR("files", no_files == NULL ? "restricted" : "not restricted"),
	    LOG_STR("systemCalls", no_calls == NULL ? "restricted" : "not restricted"),
	    LOG_STR("reason", no_files != NULL ? no_files : no_calls));
}
