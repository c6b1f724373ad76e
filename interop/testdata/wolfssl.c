/* A client made of wolfSSL, with connection IDs if that has them: see client.h. */
#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

#include "client.h"

#if defined WOLFSSL_DTLS_CID && __GLIBC__ == 2 && __GLIBC_MINOR__ < 38
/* The library that has them may be built for a newer C library, where strtol has
 * this name. */
long __isoc23_strtol(const char *text, char **end, int base);
long __isoc23_strtol(const char *text, char **end, int base)
{
	return strtol(text, end, base);
}
#endif

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

/* write_all and read_some send a message, and receive one. */
static void write_all(WOLFSSL *ssl, int fd, const char *text, int n)
{
	int r;
	while ((r = wolfSSL_write(ssl, text, n)) <= 0)
		again(ssl, fd, r, "write", 0);
	if (r != n)
		fail("write: %d of %d bytes", r, n);
}

static int read_some(WOLFSSL *ssl, int fd, char *text, int size)
{
	int r;
	while ((r = wolfSSL_read(ssl, text, size)) <= 0)
		again(ssl, fd, r, "no answer", 0);
	return r;
}

/* use_cid has the client offer a connection ID. */
static void use_cid(WOLFSSL *ssl)
{
#ifdef WOLFSSL_DTLS_CID
	unsigned char cid[255];
	WC_RNG rng;
	if (wc_InitRng(&rng) != 0 || wc_RNG_GenerateBlock(&rng, cid, cid_length) != 0)
		fail("no random bytes");
	wc_FreeRng(&rng);
	if (wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS || wolfSSL_dtls_cid_set(ssl, cid, cid_length) != WOLFSSL_SUCCESS)
		fail("no connection ID of %d bytes", cid_length);
#else
	(void)ssl;
	fail("it has no connection IDs");
#endif
}

/* server_cid_length is how long the server's connection ID is, or -1 if there are
 * none in the connection. */
static int server_cid_length(WOLFSSL *ssl)
{
	unsigned int n = 0;
#ifdef WOLFSSL_DTLS_CID
	if (wolfSSL_dtls_cid_is_enabled(ssl) && wolfSSL_dtls_cid_get_tx_size(ssl, &n) == WOLFSSL_SUCCESS)
		return (int)n;
#else
	(void)ssl, (void)n;
#endif
	return -1;
}

/* move_on has messages echoed, each from another port. */
static void move_on(WOLFSSL *ssl, int first)
{
	int fd = first;
	for (int i = 1; i <= moves; i++) {
		char text[100], echo[200];
		int n = nth_message(text, sizeof text, i);
		fd = move(fd, first);
		wolfSSL_set_fd(ssl, fd);
		write_all(ssl, fd, text, n);
		int r = read_some(ssl, fd, echo, sizeof echo);
		if (r != n || memcmp(text, echo, n) != 0)
			fail("the echo of \"%s\" is \"%.*s\"", text, r, echo);
	}
	wolfSSL_shutdown(ssl); /* from the last port */
	if (fd != first)
		close(fd);
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
	if (moves > 0)
		use_cid(ssl);
	if (session && wolfSSL_set_session(ssl, session) != WOLFSSL_SUCCESS)
		fail("wolfSSL_set_session");
	int r;
	while ((r = wolfSSL_connect(ssl)) != WOLFSSL_SUCCESS)
		again(ssl, fd, r, "handshake", 1);
	if (moves == 0) {
		char answer[200];
		write_all(ssl, fd, message, (int)strlen(message));
		answered(wolfSSL_session_reused(ssl), answer, read_some(ssl, fd, answer, sizeof answer));
	}
	wolfSSL_SESSION_free(session);
	session = wolfSSL_get1_session(ssl);
	if (moves == 0) {
		wolfSSL_shutdown(ssl);
	} else {
		move_on(ssl, fd);
		moved(wolfSSL_session_reused(ssl), server_cid_length(ssl));
	}
	wolfSSL_free(ssl);
}
