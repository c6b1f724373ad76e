/*
 * GnuTLS as a DTLS server: one socket, gnutls_dtls_cookie_verify before there is a
 * session, and functions of its own to send and receive for each session.
 *
 *     gnutls CERTIFICATE KEY IDENTITY PSK
 */
#include "common.h"
#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>

static gnutls_datum_t cookie_key;
static gnutls_certificate_credentials_t certificates;
static gnutls_psk_server_credentials_t keys;
static gnutls_priority_t priority;
static const char *identity, *psk;

/* The datagram that is being handled. */
static unsigned char *current;
static size_t current_len;

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t n)
{
	(void)ptr;
	if (!current) {
		errno = EAGAIN;
		return -1;
	}
	if (n > current_len)
		n = current_len;
	memcpy(data, current, n);
	current = NULL;
	return (ssize_t)n;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	(void)ptr;
	(void)ms;
	return current != NULL;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t n)
{
	struct peer *p = ptr;
	return send_to(&p->addr, data, n);
}

static ssize_t push_to(gnutls_transport_ptr_t ptr, const void *data, size_t n)
{
	return send_to(ptr, data, n);
}

static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
	(void)session;
	if (strcmp(name, identity) != 0)
		return -1;
	key->size = (unsigned)strlen(psk);
	key->data = gnutls_malloc(key->size);
	if (!key->data)
		return -1;
	memcpy(key->data, psk, key->size);
	return 0;
}

static void close_peer(struct peer *p)
{
	if (p->open)
		gnutls_bye(p->session, GNUTLS_SHUT_WR);
	gnutls_deinit(p->session);
}

static struct peer *new_peer(const struct sockaddr_in *from, gnutls_dtls_prestate_st *prestate)
{
	struct peer *p = add_peer(from);
	gnutls_session_t s;
	if (gnutls_init(&s, GNUTLS_SERVER | GNUTLS_DATAGRAM | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS) < 0)
		die("gnutls_init");
	gnutls_priority_set(s, priority);
	gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, certificates);
	gnutls_credentials_set(s, GNUTLS_CRD_PSK, keys);
	gnutls_certificate_server_set_request(s, GNUTLS_CERT_IGNORE);
	gnutls_dtls_prestate_set(s, prestate);
	gnutls_dtls_set_mtu(s, 1200);
	gnutls_transport_set_ptr(s, p);
	gnutls_transport_set_push_function(s, push);
	gnutls_transport_set_pull_function(s, pull);
	gnutls_transport_set_pull_timeout_function(s, pull_timeout);
	p->session = s;
	return p;
}

static void datagram(const struct sockaddr_in *from, unsigned char *data, size_t n)
{
	static unsigned char plain[16384];
	struct peer *p = *find(from);
	if (!p) {
		gnutls_dtls_prestate_st prestate = {0};
		if (gnutls_dtls_cookie_verify(&cookie_key, (void *)from, sizeof *from, data, n, &prestate) < 0) {
			gnutls_dtls_cookie_send(&cookie_key, (void *)from, sizeof *from, &prestate,
						(gnutls_transport_ptr_t)from, push_to);
			return;
		}
		p = new_peer(from, &prestate);
	}
	current = data;
	current_len = n;
	if (!p->open) {
		int ret = gnutls_handshake(p->session);
		if (ret == 0) {
			p->open = 1;
		} else if (gnutls_error_is_fatal(ret)) {
			close_peer(p);
			remove_peer(p);
			current = NULL;
			return;
		}
	}
	while (p->open && current) {
		ssize_t got = gnutls_record_recv(p->session, plain, sizeof plain);
		if (got > 0) {
			gnutls_record_send(p->session, plain, (size_t)got);
		} else if (got == 0 || gnutls_error_is_fatal((int)got)) {
			close_peer(p);
			remove_peer(p);
			break;
		}
	}
	current = NULL;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	identity = argv[3];
	psk = argv[4];
	if (gnutls_key_generate(&cookie_key, GNUTLS_COOKIE_KEY_SIZE) < 0 ||
	    gnutls_certificate_allocate_credentials(&certificates) < 0 ||
	    gnutls_certificate_set_x509_key_file(certificates, argv[1], argv[2], GNUTLS_X509_FMT_PEM) < 0 ||
	    gnutls_psk_allocate_server_credentials(&keys) < 0 ||
	    gnutls_priority_init(&priority, "NONE:+VERS-DTLS1.2:+AES-128-GCM:+AEAD:+PSK:+ECDHE-ECDSA:+GROUP-SECP256R1:"
			"+SIGN-ECDSA-SHA256:+COMP-NULL:+CTYPE-X509", NULL) < 0) {
		fprintf(stderr, "gnutls cannot start\n");
		return 1;
	}
	gnutls_psk_set_server_credentials_function(keys, find_key);
	char version[64];
	snprintf(version, sizeof version, "GnuTLS %s", gnutls_check_version(NULL));
	serve(version);
}
