/* A client made of wolfSSL: see client.h. */
#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "client.h"

static WOLFSSL_CTX *ctx;
static WOLFSSL_SESSION *session;

static unsigned int give_psk(WOLFSSL *ssl, const char *hint, char *identity, unsigned int max_identity,
			     unsigned char *key, unsigned int max_key)
{
	(void)ssl, (void)hint, (void)max_key;
	snprintf(identity, max_identity, "%s", IDENTITY);
	memcpy(key, psk_key, sizeof psk_key);
	return sizeof psk_key;
}

static void set_up(void)
{
	wolfSSL_Init();
	ctx = wolfSSL_CTX_new(wolfDTLSv1_2_client_method());
	if (!ctx)
		fail("wolfSSL_CTX_new");
	/* By itself it offers pre-shared keys also if it has none. */
	const char *suites = with_psk ? "ECDHE-PSK-CHACHA20-POLY1305" : "ECDHE-ECDSA-AES128-GCM-SHA256";
	if (wolfSSL_CTX_set_cipher_list(ctx, suites) != WOLFSSL_SUCCESS)
		fail("no %s", suites);
	if (with_psk)
		wolfSSL_CTX_set_psk_client_callback(ctx, give_psk);
	else if (wolfSSL_CTX_load_verify_locations(ctx, ca_file, NULL) != WOLFSSL_SUCCESS)
		fail("wolfSSL_CTX_load_verify_locations");
	wolfSSL_CTX_UseSessionTicket(ctx);
}

/* again waits for a datagram or for wolfSSL's timer, if a call has to be repeated
 * for that. */
static void again(WOLFSSL *ssl, int fd, int result, const char *what, int timer)
{
	int e = wolfSSL_get_error(ssl, result);
	if (e != WOLFSSL_ERROR_WANT_READ && e != WOLFSSL_ERROR_WANT_WRITE) {
		char text[80];
		fail("%s: %s", what, wolfSSL_ERR_error_string((unsigned long)e, text));
	}
	if (!wait_readable(fd, timer ? wolfSSL_dtls_get_current_timeout(ssl) * 1000 : -1) && timer &&
	    wolfSSL_dtls_got_timeout(ssl) == WOLFSSL_FATAL_ERROR && wolfSSL_get_error(ssl, -1) != WOLFSSL_ERROR_WANT_READ)
		fail("%s: wolfSSL_dtls_got_timeout", what);
}

static void connect_once(int fd)
{
	WOLFSSL *ssl = wolfSSL_new(ctx);
	struct sockaddr_in to = {0};
	socklen_t n = sizeof to;
	getpeername(fd, (struct sockaddr *)&to, &n);
	wolfSSL_dtls_set_peer(ssl, &to, sizeof to);
	wolfSSL_set_fd(ssl, fd);
	wolfSSL_dtls_set_using_nonblock(ssl, 1);
	wolfSSL_UseSNI(ssl, WOLFSSL_SNI_HOST_NAME, SERVER_NAME, strlen(SERVER_NAME));
	wolfSSL_check_domain_name(ssl, SERVER_NAME);
	if (session && wolfSSL_set_session(ssl, session) != WOLFSSL_SUCCESS)
		fail("wolfSSL_set_session");
	int r;
	while ((r = wolfSSL_connect(ssl)) != WOLFSSL_SUCCESS)
		again(ssl, fd, r, "handshake", 1);
	while ((r = wolfSSL_write(ssl, message, (int)strlen(message))) <= 0)
		again(ssl, fd, r, "write", 0);
	char answer[200];
	while ((r = wolfSSL_read(ssl, answer, sizeof answer)) <= 0)
		again(ssl, fd, r, "no answer", 0);
	answered(wolfSSL_session_reused(ssl), answer, r);
	wolfSSL_SESSION_free(session);
	session = wolfSSL_get1_session(ssl);
	wolfSSL_shutdown(ssl);
	wolfSSL_free(ssl);
}
