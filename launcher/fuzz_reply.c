/* Feeds the launcher's reply parser with any bytes: libFuzzer calls it (-fsanitize=fuzzer,address),
 * and with -DCORPUS_MAIN it runs the files named on its command line once each, which is what the
 * tests do with the checked-in corpus and gcc's address sanitizer. An input is a whole frame. */
#include <stdio.h>
#include <stdlib.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void touch(const unsigned char *p, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) sink ^= p[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t type, bytes;
    size_t start = 0, half = 0;
    struct reply reply;
    /* In two pieces, as it may arrive: frames skipped in the first stay skipped. */
    enum split first = split_frames(data, size / 2, &half, &type, &bytes);
    enum split whole = split_frames(data, size, &start, &type, &bytes);
    if (start > size || half > size / 2 || (first == SPLIT_BAD && whole != SPLIT_BAD)) abort();
    if (whole != SPLIT_WHOLE) return 0;
    if (start + HEADER_BYTES + bytes != size) abort();
    data += start;
    unsigned char *body = malloc(bytes + 1u);
    if (!body) return 0;
    memcpy(body, data + HEADER_BYTES, bytes);
    if (!parse_reply(type, body, bytes, &reply)) {
        if (reply.out) touch(reply.out, reply.out_bytes);
        if (reply.err) touch(reply.err, reply.err_bytes);
        const char *arg = reply.argv;
        for (uint32_t i = 0; i < reply.argc; i++, arg += strlen(arg) + 1)
            touch((const unsigned char *)arg, (uint32_t)strlen(arg));
    }
    /* The same bytes as a compiler's stderr. */
    size_t kept = strip_headers((char *)body, bytes);
    if (kept > bytes) abort();
    free(body);
    return 0;
}

#ifdef CORPUS_MAIN
int main(int argc, char **argv) {
    static uint8_t data[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return 2;
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        /* An exact allocation, so that the sanitizer reports a read past the end. */
        uint8_t *copy = malloc(size ? size : 1);
        if (!copy) return 2;
        memcpy(copy, data, size);
        LLVMFuzzerTestOneInput(copy, size);
        free(copy);
    }
    return 0;
}
#endif
