/* A client made of mbedTLS 2.28, or of 3.6 with connection IDs: see client.h. */
#include "client.h"

#define MBEDTLS_ALLOW_PRIVATE_ACCESS /* to master secrets, in 3.6 */

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/timing.h>
#include <mbedtls/version.h>

/* Those of 2.28, if it is built with any, are a draft's. */
#if MBEDTLS_VERSION_MAJOR >= 3
#define WITH_CID
#endif

/* A handshake has less than 20 steps, and some of them are repeated. */
#define MOST_STEPS 100

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context drbg;
static mbedtls_ssl_config conf;
static mbedtls_x509_crt authority;
static mbedtls_ssl_session session;

static void check(int r, const char *what)
{
	if (r != 0)
		fail("%s: -0x%04x", what, -r);
}

static void set_up(void)
{
	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&drbg);
	mbedtls_ssl_config_init(&conf);
	mbedtls_x509_crt_init(&authority);
	mbedtls_ssl_session_init(&session);
	check(mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0), "seed");
	check(mbedtls_ssl_config_defaults(&conf, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT),
	      "defaults");
	mbedtls_ssl_conf_rng(&conf, mbedtls_ctr_drbg_random, &drbg);
	if (with_psk) {
		static const int suites[] = {MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256, 0};
		mbedtls_ssl_conf_ciphersuites(&conf, suites);
		check(mbedtls_ssl_conf_psk(&conf, psk_key, sizeof psk_key, (const unsigned char *)IDENTITY, strlen(IDENTITY)), "key");
	} else {
		check(mbedtls_x509_crt_parse_file(&authority, ca_file), "authority");
		mbedtls_ssl_conf_ca_chain(&conf, &authority, NULL);
		mbedtls_ssl_conf_authmode(&conf, MBEDTLS_SSL_VERIFY_REQUIRED);
	}
}

/* again says whether a call has to be repeated, which waits by itself. */
static void again(int result, const char *what)
{
	left();
	if (result != MBEDTLS_ERR_SSL_WANT_READ && result != MBEDTLS_ERR_SSL_WANT_WRITE && result != MBEDTLS_ERR_SSL_TIMEOUT)
		fail("%s: -0x%04x", what, -result);
}

/* write_all and read_some send a message, and receive one. */
static void write_all(mbedtls_ssl_context *ssl, const char *text, int n)
{
	int r;
	while ((r = mbedtls_ssl_write(ssl, (const unsigned char *)text, n)) <= 0)
		again(r, "write");
	if (r != n)
		fail("write: %d of %d bytes", r, n);
}

static int read_some(mbedtls_ssl_context *ssl, char *text, int size)
{
	int r;
	while ((r = mbedtls_ssl_read(ssl, (unsigned char *)text, size)) <= 0)
		again(r, "no answer");
	return r;
}

/* use_cid has the client offer a connection ID. */
static void use_cid(mbedtls_ssl_context *ssl)
{
#ifdef WITH_CID
	unsigned char cid[MBEDTLS_SSL_CID_IN_LEN_MAX];
	check(cid_length > (int)sizeof cid, "length of the connection ID");
	check(mbedtls_ctr_drbg_random(&drbg, cid, cid_length), "mbedtls_ctr_drbg_random");
	check(mbedtls_ssl_conf_cid(&conf, cid_length, MBEDTLS_SSL_UNEXPECTED_CID_FAIL), "mbedtls_ssl_conf_cid");
	check(mbedtls_ssl_set_cid(ssl, MBEDTLS_SSL_CID_ENABLED, cid, cid_length), "mbedtls_ssl_set_cid");
#else
	(void)ssl;
	fail("it has no connection IDs");
#endif
}

/* server_cid_length is how long the server's connection ID is, or -1 if there are
 * none in the connection. */
static int server_cid_length(mbedtls_ssl_context *ssl)
{
	int enabled = 0;
	size_t n = 0;
#ifdef WITH_CID
	unsigned char cid[MBEDTLS_SSL_CID_OUT_LEN_MAX];
	check(mbedtls_ssl_get_peer_cid(ssl, &enabled, cid, &n), "mbedtls_ssl_get_peer_cid");
#else
	(void)ssl;
#endif
	return enabled ? (int)n : -1;
}

/* move_on has messages echoed, each from another port. */
static void move_on(mbedtls_ssl_context *ssl, mbedtls_net_context *net)
{
	int first = net->fd;
	for (int i = 1; i <= moves; i++) {
		char text[100], echo[200];
		int n = nth_message(text, sizeof text, i);
		net->fd = move(net->fd, first);
		mbedtls_net_set_block(net);
		write_all(ssl, text, n);
		int r = read_some(ssl, echo, sizeof echo);
		if (r != n || memcmp(text, echo, n) != 0)
			fail("the echo of \"%s\" is \"%.*s\"", text, r, echo);
	}
	mbedtls_ssl_close_notify(ssl); /* from the last port */
	if (net->fd != first)
		close(net->fd);
}

static void connect_once(int fd)
{
	mbedtls_net_context net = {.fd = fd};
	mbedtls_timing_delay_context timer;
	mbedtls_ssl_context ssl;
	mbedtls_ssl_init(&ssl);
	mbedtls_net_set_block(&net); /* it waits in mbedtls_net_recv_timeout */
	mbedtls_ssl_conf_read_timeout(&conf, 1000);
	check(mbedtls_ssl_setup(&ssl, &conf), "mbedtls_ssl_setup");
	check(mbedtls_ssl_set_hostname(&ssl, SERVER_NAME), "mbedtls_ssl_set_hostname");
	mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
	mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, mbedtls_net_recv_timeout);
	if (moves > 0)
		use_cid(&ssl);
	if (connection > 1)
		check(mbedtls_ssl_set_session(&ssl, &session), "mbedtls_ssl_set_session");
	int r, steps = 0;
	while (ssl.state != MBEDTLS_SSL_HANDSHAKE_OVER) {
		if (steps++ == MOST_STEPS)
			fail("handshake: no end after %d steps", MOST_STEPS);
		if ((r = mbedtls_ssl_handshake_step(&ssl)) != 0)
			again(r, "handshake");
	}
	/* A resumed session has the master secret of the one before. */
	int resumed = connection > 1 && memcmp(ssl.session->master, session.master, sizeof session.master) == 0;
	if (moves == 0) {
		char answer[200];
		write_all(&ssl, message, strlen(message));
		answered(resumed, answer, read_some(&ssl, answer, sizeof answer));
	}
	mbedtls_ssl_session_free(&session);
	mbedtls_ssl_session_init(&session);
	check(mbedtls_ssl_get_session(&ssl, &session), "mbedtls_ssl_get_session");
	if (moves == 0) {
		mbedtls_ssl_close_notify(&ssl);
	} else {
		move_on(&ssl, &net);
		moved(resumed, server_cid_length(&ssl));
	}
	mbedtls_ssl_free(&ssl);
}
