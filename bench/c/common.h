/*
 * What both servers in C share: the socket, the peers by address, and the loop,
 * which receives a datagram at a time and obeys standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SOCKET_BUFFER (4 << 20)
#define MAX_DATAGRAM 2048

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int udp = -1;

/* send_to sends a datagram. A full socket loses it, as the network may. */
static ssize_t send_to(const struct sockaddr_in *to, const void *data, size_t n)
{
	return sendto(udp, data, n, 0, (const struct sockaddr *)to, sizeof *to);
}

/* A peer is found by its address in a table of chains that doubles. */
struct peer {
	struct peer *next;
	struct sockaddr_in addr;
	void *session;
	int open;
};

static struct peer **table;
static size_t table_size, table_count;

static size_t slot_of(const struct sockaddr_in *a, size_t size)
{
	uint64_t h = ((uint64_t)a->sin_addr.s_addr << 16 | a->sin_port) * 0x9e3779b97f4a7c15u;
	return (h >> 32) & (size - 1);
}

static struct peer **find(const struct sockaddr_in *a)
{
	struct peer **p = &table[slot_of(a, table_size)];
	while (*p && ((*p)->addr.sin_addr.s_addr != a->sin_addr.s_addr || (*p)->addr.sin_port != a->sin_port))
		p = &(*p)->next;
	return p;
}

static struct peer *add_peer(const struct sockaddr_in *a)
{
	if (table_count == table_size) {
		size_t size = table_size * 2;
		struct peer **wider = calloc(size, sizeof *wider);
		if (!wider)
			die("calloc");
		for (size_t i = 0; i < table_size; i++)
			for (struct peer *p = table[i], *next; p; p = next) {
				struct peer **head = &wider[slot_of(&p->addr, size)];
				next = p->next;
				p->next = *head;
				*head = p;
			}
		free(table);
		table = wider;
		table_size = size;
	}
	struct peer *p = calloc(1, sizeof *p);
	if (!p)
		die("calloc");
	p->addr = *a;
	struct peer **head = &table[slot_of(a, table_size)];
	p->next = *head;
	*head = p;
	table_count++;
	return p;
}

static void remove_peer(struct peer *gone)
{
	struct peer **p = find(&gone->addr);
	*p = gone->next;
	free(gone);
	table_count--;
}

/* What each server does. */
static void datagram(const struct sockaddr_in *from, unsigned char *data, size_t n);
static void close_peer(struct peer *p); /* says goodbye; p stays to be removed */

static void close_all(void)
{
	for (size_t i = 0; i < table_size; i++)
		for (struct peer *p = table[i], *next; p; p = next) {
			next = p->next;
			close_peer(p);
			remove_peer(p);
		}
}

static void receive_all(void)
{
	static unsigned char buf[MAX_DATAGRAM];
	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof from;
		ssize_t n = recvfrom(udp, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);
		if (n < 0)
			return;
		datagram(&from, buf, (size_t)n);
	}
}

static void command(const char *line)
{
	if (strcmp(line, "collect") == 0) {
		malloc_trim(0);
		printf("1 %zu\n", (size_t)mallinfo2().uordblks);
	} else if (strcmp(line, "close") == 0) {
		close_all();
		printf("closed\n");
	} else {
		fprintf(stderr, "unknown command %s\n", line);
		exit(1);
	}
	fflush(stdout);
}

static void commands(void)
{
	static char line[256];
	static size_t have;
	ssize_t n = read(0, line + have, sizeof line - have - 1);
	if (n <= 0)
		exit(0);
	have += (size_t)n;
	line[have] = 0;
	for (char *end; (end = strchr(line, '\n'));) {
		*end = 0;
		command(line);
		have -= (size_t)(end + 1 - line);
		memmove(line, end + 1, have + 1);
	}
}

/* serve says where it listens, and its version, and serves. */
static void serve(const char *version)
{
	int size = SOCKET_BUFFER;
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	table_size = 1024;
	table = calloc(table_size, sizeof *table);
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(udp, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	if (!table || udp < 0 || bind(udp, (struct sockaddr *)&addr, len) < 0 ||
	    getsockname(udp, (struct sockaddr *)&addr, &len) < 0)
		die("bind");
	printf("listening %u %s\n", ntohs(addr.sin_port), version);
	fflush(stdout);

	int ep = epoll_create1(0);
	struct epoll_event in = {.events = EPOLLIN, .data.fd = 0}, sock = {.events = EPOLLIN, .data.fd = udp}, ready[2];
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, 0, &in) < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, udp, &sock) < 0)
		die("epoll");
	for (;;) {
		int n = epoll_wait(ep, ready, 2, -1);
		for (int i = 0; i < n; i++) {
			if (ready[i].data.fd == udp)
				receive_all();
			else
				commands();
		}
	}
}
