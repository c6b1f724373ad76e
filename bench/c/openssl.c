/*
 * OpenSSL as a DTLS server: one socket, DTLSv1_listen before there is a session,
 * and a BIO of its own for each session, which reads the datagram that is being
 * handled and sends by sendto. So a peer costs no socket.
 *
 *     openssl CERTIFICATE KEY IDENTITY PSK
 */
#include "common.h"
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#define MTU 1200

static SSL_CTX *ctx;
static SSL *listening; /* takes the hellos of unknown peers */
static BIO_METHOD *method;
static BIO_ADDR *listen_addr;
static EVP_MAC_CTX *cookie_mac;
static const char *identity, *psk;

/* The datagram that is being handled, and who sent it. */
static const struct sockaddr_in *current_from;
static unsigned char *current;
static size_t current_len;
static int peeking;

static int bio_read(BIO *b, char *data, int n)
{
	BIO_clear_retry_flags(b);
	if (!current) {
		BIO_set_retry_read(b);
		return -1;
	}
	if ((size_t)n > current_len)
		n = (int)current_len;
	memcpy(data, current, (size_t)n);
	if (!peeking)
		current = NULL;
	return n;
}

static int bio_write(BIO *b, const char *data, int n)
{
	struct peer *p = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	send_to(p ? &p->addr : current_from, data, (size_t)n);
	return n;
}

static long bio_ctrl(BIO *b, int cmd, long n, void *ptr)
{
	(void)b;
	(void)ptr;
	switch (cmd) {
	case BIO_CTRL_DGRAM_SET_PEEK_MODE:
		peeking = n != 0;
		return 1;
	case BIO_CTRL_DGRAM_QUERY_MTU:
	case BIO_CTRL_DGRAM_GET_FALLBACK_MTU:
		return MTU;
	case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD:
		return 28;
	case BIO_CTRL_FLUSH:
	case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
		return 1;
	}
	return 0;
}

static int bio_create(BIO *b)
{
	BIO_set_init(b, 1);
	return 1;
}

static int make_cookie(SSL *s, unsigned char *cookie, unsigned int *len)
{
	size_t n = 0;
	(void)s;
	if (!EVP_MAC_init(cookie_mac, NULL, 0, NULL) ||
	    !EVP_MAC_update(cookie_mac, (const void *)&current_from->sin_addr, sizeof current_from->sin_addr) ||
	    !EVP_MAC_update(cookie_mac, (const void *)&current_from->sin_port, sizeof current_from->sin_port) ||
	    !EVP_MAC_final(cookie_mac, cookie, &n, DTLS1_COOKIE_LENGTH))
		return 0;
	*len = (unsigned)n;
	return 1;
}

static int check_cookie(SSL *s, const unsigned char *cookie, unsigned int len)
{
	unsigned char want[DTLS1_COOKIE_LENGTH];
	unsigned int n;
	return make_cookie(s, want, &n) && n == len && CRYPTO_memcmp(want, cookie, n) == 0;
}

static unsigned int find_key(SSL *s, const char *name, unsigned char *key, unsigned int max)
{
	(void)s;
	size_t n = strlen(psk);
	if (strcmp(name, identity) != 0 || n > max)
		return 0;
	memcpy(key, psk, n);
	return (unsigned)n;
}

static SSL *new_session(void)
{
	SSL *s = SSL_new(ctx);
	BIO *b = BIO_new(method);
	if (!s || !b)
		die("SSL_new");
	SSL_set_bio(s, b, b);
	SSL_set_accept_state(s);
	SSL_set_mtu(s, MTU);
	return s;
}

static void close_peer(struct peer *p)
{
	if (p->open)
		SSL_shutdown(p->session);
	SSL_free(p->session);
}

static void datagram(const struct sockaddr_in *from, unsigned char *data, size_t n)
{
	static unsigned char plain[16384];
	struct peer *p = *find(from);
	current = data;
	current_len = n;
	current_from = from;
	ERR_clear_error();
	if (!p) {
		int verified = DTLSv1_listen(listening, listen_addr);
		peeking = 0;
		if (verified <= 0) {
			current = NULL;
			return;
		}
		p = add_peer(from);
		p->session = listening;
		BIO_set_data(SSL_get_rbio(listening), p);
		listening = new_session();
		current = data;
	}
	int ret = 1;
	if (!p->open) {
		ret = SSL_accept(p->session);
		p->open = ret == 1;
	}
	while (p->open && current && ret > 0) {
		ret = SSL_read(p->session, plain, sizeof plain);
		if (ret > 0)
			SSL_write(p->session, plain, ret);
	}
	if (ret <= 0 && SSL_get_error(p->session, ret) != SSL_ERROR_WANT_READ) {
		close_peer(p);
		remove_peer(p);
	}
	current = NULL;
}

int main(int argc, char **argv)
{
	unsigned char secret[32];
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0), OSSL_PARAM_construct_end()};
	EVP_MAC *mac;
	if (argc != 5)
		return 2;
	identity = argv[3];
	psk = argv[4];
	mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	ctx = SSL_CTX_new(DTLS_server_method());
	method = BIO_meth_new(BIO_TYPE_DGRAM, "datagram");
	listen_addr = BIO_ADDR_new();
	if (!mac || !ctx || !method || !listen_addr || !(cookie_mac = EVP_MAC_CTX_new(mac)) ||
	    getrandom(secret, sizeof secret, 0) != sizeof secret ||
	    !EVP_MAC_init(cookie_mac, secret, sizeof secret, params) ||
	    !SSL_CTX_set_min_proto_version(ctx, DTLS1_2_VERSION) ||
	    !SSL_CTX_set_cipher_list(ctx, "PSK-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256") ||
	    !SSL_CTX_set1_groups_list(ctx, "P-256") ||
	    SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1) {
		ERR_print_errors_fp(stderr);
		return 1;
	}
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_ctrl(method, bio_ctrl);
	BIO_meth_set_create(method, bio_create);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_QUERY_MTU | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_cookie_generate_cb(ctx, make_cookie);
	SSL_CTX_set_cookie_verify_cb(ctx, check_cookie);
	SSL_CTX_set_psk_server_callback(ctx, find_key);
	listening = new_session();
	serve(OpenSSL_version(OPENSSL_VERSION));
}
