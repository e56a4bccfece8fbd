/*
 * Certificates and keys from PEM files, read whole through the env and parsed in memory. Blocks.
 *
 * A file with an encrypted key is refused rather than asked for at a terminal. The bytes of a key are wiped.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/err.h>
#include <openssl/pem.h>

struct pem_file {
    struct alloc *alloc;
    uint8_t *data;
    size_t len;
    BIO *bio;
};

static void pem_close(struct pem_file *file) {
    BIO_free(file->bio);
    if (file->data != NULL) {
        OPENSSL_cleanse(file->data, file->len);
        mem_free(file->alloc, file->data);
    }
    ERR_clear_error();
}

static enum status pem_read(struct env *env, const char *path, struct pem_file *ret_file, struct error *err) {
    struct pem_file file = {.alloc = env->alloc};
    struct env_file *handle = NULL;
    uint64_t size = 0;
    size_t len = 0;
    enum status status = env_open(env, path, ENV_OPEN_READ, &handle, err);
    if (status == STATUS_OK) {
        status = env_size(handle, &size, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    if (size == 0 || size > TLS_FILE_BYTES_MAX) {
        status = error_set(err, STATUS_INVALID, "%s is %s", path, size == 0 ? "empty" : "too large for a PEM file");
        goto out;
    }
    file.data = mem_alloc(file.alloc, (size_t)size);
    if (file.data == NULL) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory to read %s", path);
        goto out;
    }
    file.len = (size_t)size;
    status = env_pread(handle, file.data, file.len, 0, &len, err);
    if (status != STATUS_OK) {
        goto out;
    }
    file.bio = BIO_new_mem_buf(file.data, (int)len);
    if (file.bio == NULL) {
        status = error_set(err, STATUS_NO_MEMORY, "no memory to read %s", path);
        goto out;
    }
    *ret_file = file;
    file.data = NULL;
    file.bio = NULL;
out:
    env_close(handle);
    pem_close(&file);
    return status;
}

static int no_password(char *out, int size, int writing, void *context) {
    (void)out;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

/* The next certificate of the file, owned; NULL with STATUS_OK at the end. */
static enum status next_certificate(struct pem_file *file, const char *path, X509 **ret_certificate,
                                    struct error *err) {
    X509 *certificate = PEM_read_bio_X509(file->bio, NULL, no_password, NULL);
    if (certificate == NULL) {
        unsigned long last = ERR_peek_last_error();
        if (ERR_GET_LIB(last) != ERR_LIB_PEM || ERR_GET_REASON(last) != PEM_R_NO_START_LINE) {
            enum status status = tls__error_set(err, STATUS_INVALID, "malformed certificate");
            error_prefix(err, "%s", path);
            return status;
        }
        ERR_clear_error();
    }
    *ret_certificate = certificate;
    return STATUS_OK;
}

static enum status no_certificate(const char *path, struct error *err) {
    return error_set(err, STATUS_INVALID, "%s has no certificate in PEM form", path);
}

enum status tls__load_ca(struct env *env, const char *path, X509_STORE *store, struct error *err) {
    struct pem_file file = {0};
    enum status status = pem_read(env, path, &file, err);
    if (status != STATUS_OK) {
        error_prefix(err, "CA certificates");
        return status;
    }
    unsigned count = 0;
    for (;;) {
        X509 *certificate;
        status = next_certificate(&file, path, &certificate, err);
        if (status != STATUS_OK || certificate == NULL) {
            break;
        }
        bool added = X509_STORE_add_cert(store, certificate) == 1;
        X509_free(certificate);
        if (!added) {
            status = tls__error_set(err, STATUS_INVALID, path);
            break;
        }
        count++;
    }
    if (status == STATUS_OK && count == 0) {
        status = no_certificate(path, err);
    }
    pem_close(&file);
    if (status != STATUS_OK) {
        error_prefix(err, "CA certificates");
    }
    return status;
}

/* The first certificate is ours, those behind it lead towards the CA. */
static enum status load_chain(struct env *env, const char *path, SSL_CTX *ssl_context, struct error *err) {
    struct pem_file file = {0};
    enum status status = pem_read(env, path, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    unsigned count = 0;
    for (;;) {
        X509 *certificate;
        status = next_certificate(&file, path, &certificate, err);
        if (status != STATUS_OK || certificate == NULL) {
            break;
        }
        int ok = count == 0 ? SSL_CTX_use_certificate(ssl_context, certificate)
                            : (int)SSL_CTX_add1_chain_cert(ssl_context, certificate);
        X509_free(certificate);
        if (ok != 1) {
            status = tls__error_set(err, STATUS_INVALID, path);
            break;
        }
        count++;
    }
    if (status == STATUS_OK && count == 0) {
        status = no_certificate(path, err);
    }
    pem_close(&file);
    return status;
}

static enum status load_key(struct env *env, const char *path, SSL_CTX *ssl_context, struct error *err) {
    struct pem_file file = {0};
    enum status status = pem_read(env, path, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file.bio, NULL, no_password, NULL);
    if (key == NULL) {
        ERR_clear_error();
        status = error_set(err, STATUS_INVALID, "%s has no unencrypted private key in PEM form", path);
    } else if (SSL_CTX_use_PrivateKey(ssl_context, key) != 1) {
        /* OpenSSL compares it with the certificate. */
        status = tls__error_set(err, STATUS_INVALID, path);
    }
    EVP_PKEY_free(key);
    pem_close(&file);
    return status;
}

enum status tls__load_identity(struct env *env, const char *cert_file, const char *key_file, SSL_CTX *ssl_context,
                               struct error *err) {
    CHECK(cert_file != NULL);
    if (key_file == NULL) {
        return error_set(err, STATUS_INVALID, "certificate %s without a key file", cert_file);
    }
    enum status status = load_chain(env, cert_file, ssl_context, err);
    if (status != STATUS_OK) {
        error_prefix(err, "certificate");
        return status;
    }
    status = load_key(env, key_file, ssl_context, err);
    if (status != STATUS_OK) {
        error_prefix(err, "key");
        return status;
    }
    if (SSL_CTX_check_private_key(ssl_context) != 1) {
        ERR_clear_error();
        return error_set(err, STATUS_INVALID, "key %s doesn't belong to certificate %s", key_file, cert_file);
    }
    return STATUS_OK;
}

enum status tls_thumbprint_of_file(struct env *env, const char *cert_file, uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES],
                                   struct error *err) {
    struct pem_file file = {0};
    enum status status = pem_read(env, cert_file, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    X509 *certificate;
    status = next_certificate(&file, cert_file, &certificate, err);
    if (status == STATUS_OK && certificate == NULL) {
        status = no_certificate(cert_file, err);
    } else if (status == STATUS_OK) {
        status = tls__thumbprint(certificate, ret_thumbprint);
        if (status != STATUS_OK) {
            (void)error_set(err, status, "no memory for the thumbprint of %s", cert_file);
        }
        X509_free(certificate);
    }
    pem_close(&file);
    return status;
}
