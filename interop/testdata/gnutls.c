/* A client made of GnuTLS: see client.h. */
#include "client.h"

#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>

static gnutls_psk_client_credentials_t psk;
static gnutls_certificate_credentials_t certificates;
static gnutls_datum_t session_data;

static void check(int r, const char *what)
{
	if (r < 0)
		fail("%s: %s", what, gnutls_strerror(r));
}

static void set_up(void)
{
	const gnutls_datum_t key = {(unsigned char *)psk_key, sizeof psk_key};
	check(gnutls_psk_allocate_client_credentials(&psk), "allocate");
	check(gnutls_psk_set_client_credentials(psk, IDENTITY, &key, GNUTLS_PSK_KEY_RAW), "key");
	check(gnutls_certificate_allocate_credentials(&certificates), "allocate");
	if (!with_psk)
		check(gnutls_certificate_set_x509_trust_file(certificates, ca_file, GNUTLS_X509_FMT_PEM), "authority");
}

/* again waits for a datagram or for GnuTLS' timer, if a call has to be repeated
 * for that. */
static void again(gnutls_session_t s, int fd, int result, const char *what)
{
	if (gnutls_error_is_fatal(result))
		fail("%s: %s", what, gnutls_strerror(result));
	int ms = (int)gnutls_dtls_get_timeout(s);
	wait_readable(fd, ms > 0 ? ms : 1000);
}

static void connect_once(int fd)
{
	gnutls_session_t s;
	check(gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_DATAGRAM | GNUTLS_NONBLOCK), "gnutls_init");
	const char *priority = with_psk ? "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+ECDHE-PSK:-CIPHER-ALL:+CHACHA20-POLY1305"
					: "NORMAL:-VERS-ALL:+VERS-DTLS1.2";
	check(gnutls_priority_set_direct(s, priority, NULL), "priority");
	if (with_psk) {
		check(gnutls_credentials_set(s, GNUTLS_CRD_PSK, psk), "credentials");
	} else {
		check(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, certificates), "credentials");
		gnutls_session_set_verify_cert(s, SERVER_NAME, 0);
	}
	check(gnutls_server_name_set(s, GNUTLS_NAME_DNS, SERVER_NAME, strlen(SERVER_NAME)), "server name");
	gnutls_transport_set_int(s, fd);
	gnutls_dtls_set_timeouts(s, 1000, (unsigned int)left());
	if (session_data.data)
		check(gnutls_session_set_data(s, session_data.data, session_data.size), "gnutls_session_set_data");
	int r;
	while ((r = gnutls_handshake(s)) < 0)
		again(s, fd, r, "handshake");
	while ((r = gnutls_record_send(s, message, strlen(message))) < 0)
		again(s, fd, r, "write");
	char answer[200];
	while ((r = gnutls_record_recv(s, answer, sizeof answer)) <= 0) {
		if (r == 0)
			fail("no answer: the server has closed");
		again(s, fd, r, "no answer");
	}
	answered(gnutls_session_is_resumed(s), answer, r);
	gnutls_free(session_data.data);
	check(gnutls_session_get_data2(s, &session_data), "gnutls_session_get_data2");
	gnutls_bye(s, GNUTLS_SHUT_WR);
	gnutls_deinit(s);
}
