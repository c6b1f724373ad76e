/*
 * What the clients in C share. A client is called with
 *
 *     PORT psk|certificate CAFILE CONNECTIONS SECONDS [MOVES CIDLENGTH]
 *
 * and connects to 127.0.0.1 so often, each time from a new socket, from the
 * second time on with the session of the time before. With pre-shared keys it
 * offers suites of ECDHE_PSK, whose sessions the server gives tickets for. It
 * sends a message as soon as its handshake is complete, waits for the answer, and
 * prints it behind "full" or "resumed". It ends with status 0 after the last
 * answer, with 1 and the reason when something has failed, and by itself after
 * SECONDS whatever happens.
 *
 * With MOVES, if it is made for that, it has a connection ID of CIDLENGTH bytes
 * and sends so many messages in each connection, each from another port, where it
 * waits for its echo. It prints behind "full" or "resumed" how often it has moved
 * and how long the server's connection ID is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SERVER_NAME "localhost"
#define IDENTITY "Client_identity"
static const unsigned char psk_key[] = {0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f};
static const char message[] = "hello";

static const char *port, *ca_file;
static int with_psk, connections, connection, moves, cid_length;
static long long deadline; /* ms */

static long long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* fail ends the client. */
static void fail(const char *format, ...)
{
	va_list args;
	printf("connection %d failed: ", connection);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

/* left is how many milliseconds the client has. */
static int left(void)
{
	long long ms = deadline - now_ms();
	if (ms <= 0)
		fail("its time is over");
	return (int)ms;
}

/* wait_readable waits for a datagram, at most for ms, or for ever if that is
 * negative, and says whether there is one. */
__attribute__((unused)) static int wait_readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int most = left();
	int n = poll(&p, 1, ms < 0 || ms > most ? most : ms);
	left();
	return n > 0;
}

/* dial returns a socket that is connected and never waits. */
static int dial(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("socket: %s", strerror(errno));
	return fd;
}

/* move returns another socket as dial does, and closes the one before it, unless
 * that is the connection's first one: as the server may still write to that, its
 * port must not become somebody else's. */
__attribute__((unused)) static int move(int fd, int first)
{
	int other = dial();
	if (fd != first)
		close(fd);
	return other;
}

/* nth_message writes the text for a move, and returns its length. */
__attribute__((unused)) static int nth_message(char *text, int size, int n)
{
	return snprintf(text, size, "message %d of connection %d, from a port of its own", n, connection);
}

/* moved prints what has come of the moves. */
__attribute__((unused)) static void moved(int resumed, int server_cid_length)
{
	printf("%s %d moves, a connection ID of %d bytes\n", resumed ? "resumed" : "full", moves, server_cid_length);
}

/* too_late ends the client inside a call that waits for longer. */
static void too_late(int signal)
{
	static const char text[] = "failed: a call does not return in its time\n";
	(void)signal;
	_exit(write(1, text, sizeof text - 1) < 0 ? 2 : 1);
}

/* answered prints what the server has answered. */
static void answered(int resumed, const char *text, int n)
{
	printf("%s %.*s\n", resumed ? "resumed" : "full", n, text);
}

/* What each client does: all once, and one connection. */
static void set_up(void);
static void connect_once(int fd);

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 6 && argc != 8) {
		fprintf(stderr, "usage: %s PORT psk|certificate CAFILE CONNECTIONS SECONDS [MOVES CIDLENGTH]\n", argv[0]);
		return 2;
	}
	port = argv[1];
	with_psk = strcmp(argv[2], "psk") == 0;
	ca_file = argv[3];
	connections = atoi(argv[4]);
	deadline = now_ms() + atoi(argv[5]) * 1000LL;
	if (argc == 8) {
		moves = atoi(argv[6]);
		cid_length = atoi(argv[7]);
	}
	signal(SIGALRM, too_late);
	alarm(atoi(argv[5]) + 1);
	set_up();
	for (connection = 1; connection <= connections; connection++) {
		int fd = dial();
		connect_once(fd);
		close(fd);
	}
	return 0;
}
