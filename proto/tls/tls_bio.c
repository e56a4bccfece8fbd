/*
 * The seam to OpenSSL: a BIO that reads a stream's input buffer and writes straight to its inner stream, which
 * coalesces what is written in one turn; and the conversion of OpenSSL's errors.
 *
 * Writing never says "try again": the inner stream takes everything or is at its end. Reading says so when the input is
 * empty.
 *
 * OpenSSL looks at its thread's error queue to judge a result, so the queue is empty between any two calls: every
 * failure passes through tls__error_set, which empties it.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pemerr.h>
#include <string.h>

static int bio_read(BIO *bio, char *out, int len) {
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t have = stream->input_end - stream->input_start;
    if (have == 0 || len <= 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t take = have < (size_t)len ? have : (size_t)len;
    memcpy(out, stream->input + stream->input_start, take);
    stream->input_start += take;
    return (int)take;
}

static int bio_write(BIO *bio, const char *data, int len) {
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (len <= 0) {
        return len;
    }
    if (stream->inner == NULL) {
        stream->write_status = STATUS_CLOSED;
    }
    if (stream->write_status == STATUS_OK) {
        struct slice part = slice_of(data, (size_t)len);
        stream->write_status = env_stream_write(stream->inner, &part, 1);
    }
    if (stream->write_status != STATUS_OK) {
        return -1;
    }
    stream->written_bytes += (size_t)len;
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *tls__bio_method_new(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "holdfast stream");
    if (method == NULL || BIO_meth_set_read(method, bio_read) != 1 || BIO_meth_set_write(method, bio_write) != 1 ||
        BIO_meth_set_ctrl(method, bio_ctrl) != 1) {
        BIO_meth_free(method);
        ERR_clear_error();
        return NULL;
    }
    return method;
}

enum status tls__bio_attach(struct tls_stream *stream) {
    BIO *bio = BIO_new(stream->context->bio_method);
    if (bio == NULL) {
        ERR_clear_error();
        return STATUS_NO_MEMORY;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio); /* owns it from now on */
    return STATUS_OK;
}

static const char *reason_text(unsigned long code) {
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    return reason != NULL ? reason : "no reason given";
}

enum status tls__error_set(struct error *err, enum status code, const char *what) {
    unsigned long oldest = ERR_peek_error();
    if (oldest != 0 && ERR_GET_REASON(oldest) == ERR_R_MALLOC_FAILURE) {
        code = STATUS_NO_MEMORY;
    }
    (void)error_set(err, code, "%s: %s", what, reason_text(oldest));
    ERR_clear_error();
    return code;
}

/* What a server sees when something else knocks, in words that help. */
static const struct {
    int reason;
    enum status code;
    const char *text;
} session_errors[] = {
    {SSL_R_HTTP_REQUEST, STATUS_UNSUPPORTED, "the peer speaks HTTP, not TLS 1.3"},
    {SSL_R_HTTPS_PROXY_REQUEST, STATUS_UNSUPPORTED, "the peer speaks HTTP, not TLS 1.3"},
    {SSL_R_WRONG_VERSION_NUMBER, STATUS_UNSUPPORTED, "the peer doesn't speak TLS"},
    {SSL_R_UNSUPPORTED_PROTOCOL, STATUS_UNSUPPORTED, "the peer offers no TLS 1.3"},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, STATUS_UNSUPPORTED, "the peer accepts no TLS 1.3"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, STATUS_CORRUPT, "a record was damaged on the way"},
};

enum status tls__error_set_session(struct error *err, const char *what) {
    unsigned long oldest = ERR_peek_error();
    int reason = ERR_GET_REASON(oldest);
    if (oldest != 0 && ERR_GET_LIB(oldest) == ERR_LIB_SSL) {
        for (size_t i = 0; i < sizeof session_errors / sizeof session_errors[0]; i++) {
            if (reason == session_errors[i].reason) {
                ERR_clear_error();
                return error_set(err, session_errors[i].code, "%s: %s", what, session_errors[i].text);
            }
        }
        if (reason >= SSL_AD_REASON_OFFSET) {
            (void)error_set(err, STATUS_CLOSED, "%s: the peer gave up: %s", what, reason_text(oldest));
            ERR_clear_error();
            return STATUS_CLOSED;
        }
    }
    return tls__error_set(err, STATUS_CORRUPT, what);
}
