/* A client made of OpenSSL: see client.h. */
#include "client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *ctx;
static SSL_SESSION *session;

static unsigned int give_psk(SSL *ssl, const char *hint, char *identity, unsigned int max_identity,
			     unsigned char *key, unsigned int max_key)
{
	(void)ssl, (void)hint, (void)max_key;
	snprintf(identity, max_identity, "%s", IDENTITY);
	memcpy(key, psk_key, sizeof psk_key);
	return sizeof psk_key;
}

static void set_up(void)
{
	ctx = SSL_CTX_new(DTLS_client_method());
	if (!ctx || !SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION))
		fail("SSL_CTX_new");
	if (with_psk) {
		SSL_CTX_set_psk_client_callback(ctx, give_psk);
		if (!SSL_CTX_set_cipher_list(ctx, "ECDHE-PSK-CHACHA20-POLY1305"))
			fail("SSL_CTX_set_cipher_list");
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		if (!SSL_CTX_load_verify_locations(ctx, ca_file, NULL))
			fail("SSL_CTX_load_verify_locations");
	}
}

/* again waits for a datagram or for OpenSSL's timer, if a call has to be
 * repeated for that. */
static void again(SSL *ssl, int fd, int result, const char *what)
{
	int e = SSL_get_error(ssl, result);
	if (e == SSL_ERROR_SYSCALL && (errno == ECONNREFUSED || errno == EAGAIN))
		e = SSL_ERROR_WANT_READ;
	if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
		fail("%s: error %d, %s", what, e, ERR_error_string(ERR_get_error(), NULL));
	struct timeval tv;
	int ms = DTLSv1_get_timeout(ssl, &tv) ? (int)(tv.tv_sec * 1000 + tv.tv_usec / 1000 + 1) : -1;
	if (!wait_readable(fd, ms) && DTLSv1_handle_timeout(ssl) < 0)
		fail("%s: DTLSv1_handle_timeout: %s", what, ERR_error_string(ERR_get_error(), NULL));
}

static void connect_once(int fd)
{
	SSL *ssl = SSL_new(ctx);
	BIO *bio = BIO_new_dgram(fd, BIO_NOCLOSE);
	struct sockaddr_in to = {0};
	socklen_t n = sizeof to;
	getpeername(fd, (struct sockaddr *)&to, &n);
	BIO_ctrl(bio, BIO_CTRL_DGRAM_SET_CONNECTED, 0, &to);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_tlsext_host_name(ssl, SERVER_NAME);
	if (!with_psk)
		SSL_set1_host(ssl, SERVER_NAME);
	if (session && !SSL_set_session(ssl, session))
		fail("SSL_set_session");
	int r;
	while ((r = SSL_connect(ssl)) != 1)
		again(ssl, fd, r, "handshake");
	while ((r = SSL_write(ssl, message, strlen(message))) <= 0)
		again(ssl, fd, r, "write");
	char answer[200];
	while ((r = SSL_read(ssl, answer, sizeof answer)) <= 0)
		again(ssl, fd, r, "no answer");
	answered(SSL_session_reused(ssl), answer, r);
	SSL_SESSION_free(session);
	session = SSL_get1_session(ssl);
	SSL_shutdown(ssl);
	SSL_free(ssl);
}
