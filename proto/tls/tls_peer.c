/*
 * Who is at the other end, taken from the session after every handshake.
 *
 * OpenSSL's own verification is switched off (tls_context.c): it would end the handshake before the peer could be told
 * why, and it doesn't run on a resumed session. Here the chain is built and its signatures are checked without looking
 * at dates; then the dates of every certificate in it are compared with the env's clock, so that "expired" and "not
 * from our CA" stay apart.
 *
 * No host names: a certificate's identity is its thumbprint.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

enum { CHAIN_DEPTH_MAX = 4, AUTH_LEVEL = 2 /* 112 bits */ };

enum status tls__thumbprint(const X509 *certificate, uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES]) {
    unsigned len = 0;
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (X509_digest(certificate, EVP_sha256(), digest, &len) != 1) {
        ERR_clear_error();
        return STATUS_NO_MEMORY;
    }
    CHECK(len == ENV_THUMBPRINT_BYTES);
    memcpy(ret_thumbprint, digest, len);
    return STATUS_OK;
}

/* The common name as printable text, cut to fit; empty if there is none. */
static void take_subject(const X509 *certificate, char out[LIMIT_NAME_BYTES]) {
    out[0] = '\0';
    const X509_NAME *name = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0) {
        return;
    }
    const ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    unsigned char *utf8 = NULL;
    int len = ASN1_STRING_to_UTF8(&utf8, text);
    size_t kept = 0;
    for (int i = 0; i < len && kept + 1 < LIMIT_NAME_BYTES; i++) {
        bool is_control = utf8[i] < 0x20 || utf8[i] == 0x7f;
        out[kept++] = (char)(is_control ? (unsigned char)'?' : utf8[i]);
    }
    out[kept] = '\0';
    OPENSSL_free(utf8);
    ERR_clear_error();
}

/* VALID, or the first certificate whose dates are wrong says which way. */
static enum env_certificate_state check_dates(const STACK_OF(X509) * chain, int64_t wall_ms, const char **ret_reason) {
    time_t now = (time_t)(wall_ms / 1000);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        const X509 *certificate = sk_X509_value(chain, i);
        int begins = X509_cmp_time(X509_get0_notBefore(certificate), &now); /* -1: before now; 0: not a date */
        int ends = X509_cmp_time(X509_get0_notAfter(certificate), &now);
        if (begins == 0 || ends == 0) {
            *ret_reason = "it has a malformed date";
            return ENV_CERTIFICATE_UNTRUSTED;
        }
        if (ends < 0) {
            *ret_reason = i == 0 ? "it has expired" : "the certificate that signed it has expired";
            return ENV_CERTIFICATE_EXPIRED;
        }
        if (begins > 0) {
            *ret_reason = i == 0 ? "it is not valid yet" : "the certificate that signed it is not valid yet";
            return ENV_CERTIFICATE_NOT_YET_VALID;
        }
    }
    *ret_reason = "it is valid";
    return ENV_CERTIFICATE_VALID;
}

enum status tls__peer_identify(const struct tls_context *context, SSL *ssl, bool as_server, struct env_peer *peer,
                               const char **ret_reason) {
    peer->certificate = ENV_CERTIFICATE_NONE;
    memset(peer->thumbprint, 0, sizeof peer->thumbprint);
    peer->subject[0] = '\0';
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    if (certificate == NULL) {
        *ret_reason = "it showed none";
        return STATUS_OK;
    }
    enum status status = STATUS_NO_MEMORY;
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    if (check == NULL || X509_STORE_CTX_init(check, context->store, certificate, SSL_get_peer_cert_chain(ssl)) != 1) {
        goto out;
    }
    X509_VERIFY_PARAM *rules = X509_STORE_CTX_get0_param(check);
    X509_VERIFY_PARAM_set_depth(rules, CHAIN_DEPTH_MAX);
    X509_VERIFY_PARAM_set_auth_level(rules, AUTH_LEVEL);
    if (X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN) != 1 ||
        (as_server && X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_SERVER) != 1)) {
        goto out;
    }
    status = tls__thumbprint(certificate, peer->thumbprint);
    if (status != STATUS_OK) {
        goto out;
    }
    take_subject(certificate, peer->subject);
    if (X509_verify_cert(check) == 1) {
        peer->certificate = check_dates(X509_STORE_CTX_get0_chain(check), env_wall_ms(context->env), ret_reason);
    } else {
        peer->certificate = ENV_CERTIFICATE_UNTRUSTED;
        *ret_reason = X509_verify_cert_error_string(X509_STORE_CTX_get_error(check));
    }
out:
    X509_STORE_CTX_free(check);
    X509_free(certificate);
    ERR_clear_error();
    return status;
}
