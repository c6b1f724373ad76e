/* A client made of mbedTLS 2.28: see client.h. */
#include "client.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/timing.h>

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
	if (connection > 1)
		check(mbedtls_ssl_set_session(&ssl, &session), "mbedtls_ssl_set_session");
	int r, steps = 0;
	while (ssl.state != MBEDTLS_SSL_HANDSHAKE_OVER) {
		if (steps++ == MOST_STEPS)
			fail("handshake: no end after %d steps", MOST_STEPS);
		if ((r = mbedtls_ssl_handshake_step(&ssl)) != 0)
			again(r, "handshake");
	}
	while ((r = mbedtls_ssl_write(&ssl, (const unsigned char *)message, strlen(message))) <= 0)
		again(r, "write");
	unsigned char answer[200];
	while ((r = mbedtls_ssl_read(&ssl, answer, sizeof answer)) <= 0)
		again(r, "no answer");
	/* A resumed session has the master secret of the one before. */
	answered(connection > 1 && memcmp(ssl.session->master, session.master, sizeof session.master) == 0, (char *)answer, r);
	mbedtls_ssl_session_free(&session);
	mbedtls_ssl_session_init(&session);
	check(mbedtls_ssl_get_session(&ssl, &session), "mbedtls_ssl_get_session");
	mbedtls_ssl_close_notify(&ssl);
	mbedtls_ssl_free(&ssl);
}
