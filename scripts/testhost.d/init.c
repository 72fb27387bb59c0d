/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The init of the emulated host: sets the machine up, inserts the module, runs
 * COMMAND and tells scripts/testhost about it.
 *
 * It talks through port 0xe9, which both emulators turn into bytes on their
 * standard output: nothing is lost, nothing is translated, it takes no emulated
 * time, and the kernel's console on the serial port stays apart. What goes out
 * is the token that testhost chose for this run, then frames: a letter, the
 * payload's length in two bytes (low first), the payload. machine.py reads them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT 0xe9
#define PAYLOAD_MAX 4096
#define HEARTBEAT_MS 1000

static void send_raw(const void *data, size_t length)
{
	__asm__ volatile("rep outsb"
			 : "+S"(data), "+c"(length) : "d"(PORT) : "memory");
}

static void send_frame(char type, const void *payload, size_t length)
{
	unsigned char head[3] = { type, length & 0xff, length >> 8 };

	send_raw(head, sizeof(head));
	send_raw(payload, length);
}

/* The host itself failed: testhost ends the machine when it reads this. */
static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...)
{
	char text[PAYLOAD_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	send_frame('F', text, strlen(text));
	for (;;)
		pause();
}

/* A small file's content with a NUL behind it; NULL where there is none. */
static char *read_file(const char *path, size_t *length)
{
	static const size_t room = 1 << 20;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;
	ssize_t n;

	*length = 0;
	if (fd < 0)
		return NULL;
	text = malloc(room + 1);
	while (*length < room &&
	       (n = read(fd, text + *length, room - *length)) > 0)
		*length += n;
	close(fd);
	text[*length] = '\0';
	return text;
}

/* A file of NUL-terminated strings as an argument vector. */
static char **read_arguments(const char *path)
{
	size_t length, count = 0;
	char *text = read_file(path, &length);
	char **list;

	if (!text)
		return NULL;
	list = calloc(length + 1, sizeof(*list));
	for (char *p = text; p < text + length; p += strlen(p) + 1)
		list[count++] = p;
	return list;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			fail("cannot write %s: %m", path);
		close(fd);
	}
}

static void mount_all(void)
{
	static const struct {
		const char *type, *where;
		int needed;
	} table[] = {
		{ "proc",     "/proc",              1 },
		{ "sysfs",    "/sys",               1 },
		{ "devtmpfs", "/dev",               1 },
		{ "devpts",   "/dev/pts",           0 },
		{ "tmpfs",    "/dev/shm",           1 },
		{ "tmpfs",    "/tmp",               1 },
		{ "tmpfs",    "/run",               1 },
		{ "debugfs",  "/sys/kernel/debug",   0 },
		{ "tracefs",  "/sys/kernel/tracing", 0 },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		mkdir(table[i].where, 0755);
		if (mount(table[i].type, table[i].where, table[i].type, 0, NULL) &&
		    table[i].needed)
			fail("cannot mount %s: %m", table[i].where);
	}
	chmod("/tmp", 01777);
	chmod("/dev/shm", 01777);
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

/* Was this kernel started by kexec? Its loader type says so in either case. */
static int started_by_kexec(void)
{
	size_t length;
	char *text = read_file("/proc/sys/kernel/bootloader_type", &length);

	return text && atoi(text) >> 4 == 0xd;
}

/* Starts a program in a session of its own; its output comes out of *output. */
static pid_t start(char **argv, int *output)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		fail("pipe: %m");
	pid = fork();
	if (pid < 0)
		fail("fork: %m");
	if (!pid) {
		int null = open("/dev/null", O_RDONLY);

		signal(SIGTERM, SIG_DFL);
		signal(SIGUSR1, SIG_DFL);
		signal(SIGUSR2, SIG_DFL);
		setsid();
		/* a process with ports is dearer to leave a guest for */
		iopl(0);
		dup2(null, 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		close(null);
		execvp(argv[0], argv);
		/* the words and numbers of a shell */
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	close(ends[1]);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	*output = ends[0];
	return pid;
}

static void heartbeat(void)
{
	static struct timespec last;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if ((now.tv_sec - last.tv_sec) * 1000 +
	    (now.tv_nsec - last.tv_nsec) / 1000000 >= HEARTBEAT_MS) {
		send_frame('H', NULL, 0);
		last = now;
	}
}

/*
 * Passes on what comes out of *output* until the program *pid* is gone and the
 * pipe is empty. Others may hold the pipe open still: they are not waited for.
 * Returns the status as a shell would give it.
 */
static int relay(pid_t pid, int output)
{
	static char buffer[PAYLOAD_MAX];
	int status = 0, gone = 0, eof = 0;

	for (;;) {
		struct pollfd wait_for = { .fd = eof ? -1 : output, .events = POLLIN };
		ssize_t n = -1;
		pid_t child;

		/* SIGCHLD does not end a poll by itself: look often */
		poll(&wait_for, 1, gone ? 0 : 20);
		heartbeat();
		/*
		 * First look whether it is gone, then read: what it wrote is in
		 * the pipe by then.
		 */
		while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
			if (child == pid) {
				gone = WIFSIGNALED(status) ?
					256 + 128 + WTERMSIG(status) :
					256 + WEXITSTATUS(status);
			}
		}
		if (!eof)
			n = read(output, buffer, sizeof(buffer));
		if (n > 0)
			send_frame('O', buffer, n);
		else if (!n)
			eof = 1;
		if (gone && n <= 0)
			return gone & 0xff;
	}
}

static void insert_module(char **arguments)
{
	char text[PAYLOAD_MAX - 256];
	size_t length = 0;
	int status, output;
	ssize_t n;
	pid_t pid = start(arguments, &output);

	waitpid(pid, &status, 0);
	while (length < sizeof(text) - 1 &&
	       (n = read(output, text + length, sizeof(text) - 1 - length)) > 0)
		length += n;
	text[length] = '\0';
	close(output);
	if (status)
		fail("inserting the module failed: %s", text);
}

static void on_signal(int number)
{
	/* what busybox's reboot, poweroff and halt ask their init for */
	sync();
	reboot(number == SIGTERM ? RB_AUTOBOOT :
	       number == SIGUSR2 ? RB_POWER_OFF : RB_HALT_SYSTEM);
}

int main(void)
{
	char *token, **arguments;
	size_t length;
	unsigned char status;
	int output, second;

	if (iopl(3)) {
		printf("testhost: iopl: %m\n");
		return 1;
	}
	token = read_file("/testhost/token", &length);
	send_raw(token, length);
	mount_all();
	second = started_by_kexec();
	send_frame('B', second ? "k" : "b", 1);

	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	unsetenv("TERM");
	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);

	if (second) {
		static char *second_command[] = { "/overlay/second-command", NULL };

		arguments = second_command;
	} else {
		arguments = read_arguments("/testhost/insert");
		if (arguments)
			insert_module(arguments);
		arguments = read_arguments("/testhost/command");
	}

	send_frame('S', NULL, 0);
	status = 0;
	if (!second || !access(arguments[0], F_OK)) {
		pid_t pid = start(arguments, &output);

		status = relay(pid, output);
	}

	/*
	 * testhost judges the kernel's log once this line has come through it,
	 * with all that was logged before.
	 */
	write_file("/dev/kmsg", "testhost: COMMAND has ended\n");
	send_frame('X', &status, 1);
	for (;;)
		pause();
}
