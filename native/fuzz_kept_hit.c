/* Feeds the parser of kept hits with any bytes: libFuzzer calls it (-fsanitize=fuzzer,address), and with
 * -DCORPUS_MAIN it prints what it makes of each file named on its command line, for the tests. */
#include <stdio.h>
#include <stdlib.h>

#include "kept_hit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void touch(const void *data, uint64_t bytes) {
    const unsigned char *p = data;
    for (uint64_t i = 0; i < bytes; i++) sink ^= p[i];
}

/* Each name is found with its bits, and a name that is none of them is not. */
static void search(const struct hit_check *check) {
    uint32_t *starts = malloc((check->names + 1u) * sizeof *starts);
    if (!starts) return;
    hit_find_starts(check, starts);
    for (uint32_t i = 0; i < check->names; i++) {
        const char *name = check->text + starts[i];
        if (hit_bits_of(check, starts, name + 1) != (unsigned char)*name) abort();
    }
    if (hit_bits_of(check, starts, "") || hit_bits_of(check, starts, "Not a Key")) abort();
    free(starts);
}

static bool look(const uint8_t *data, size_t size, struct kept_hit *hit) {
    struct hit_check check;
    if (!hit_parse(data, size, hit)) return false;
    struct hit_reader r = hit->at_checks;
    for (uint32_t i = 0; i < hit->checks; i++) {
        if (!hit_next_check(&r, &check)) abort();
        touch(check.path, strlen(check.path));
        if (check.digest) touch(check.digest, HIT_DIGEST_BYTES);
        if (check.kind == HIT_LACKS) search(&check);
        if (check.kind == HIT_REAL) touch(check.text, strlen(check.text));
    }
    if (r.at != r.end) abort();
    touch(hit->request, hit->request_bytes);
    touch(hit->path, strlen(hit->path));
    touch(hit->object, hit->object_bytes);
    if (hit->depfile_path) touch(hit->depfile_path, strlen(hit->depfile_path));
    touch(hit->depfile, hit->depfile_bytes);
    touch(hit->out, hit->out_bytes);
    touch(hit->err, hit->err_bytes);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kept_hit hit;
    uint16_t name[64] = {0};
    char key[64];
    look(data, size, &hit);
    memcpy(name, data, size < sizeof name - 2 ? size & ~(size_t)1 : sizeof name - 2);
    if (hit_wide_key(name, key, sizeof key) && strlen(key) >= sizeof key) abort();
    return 0;
}

#ifdef CORPUS_MAIN
static void print_check(const struct hit_check *check) {
    printf(" %u:%s", check->kind, check->path);
    for (unsigned i = 0; i < 5; i++) printf(":%llu", (unsigned long long)check->values[i]);
    printf(":%u:%u", check->entry, check->names);
    if (check->kind == HIT_REAL) printf(":%s", check->text);
}

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
        struct kept_hit hit;
        struct hit_check check;
        if (!look(copy, size, &hit)) {
            puts("malformed");
        } else {
            printf("%llu %u %u %u %.*s %s %.*s %.*s %.*s", (unsigned long long)hit.number, hit.code_page,
                   hit.console_page, hit.language, (int)hit.request_bytes, (const char *)hit.request, hit.path,
                   (int)hit.object_bytes, (const char *)hit.object, (int)hit.out_bytes, (const char *)hit.out,
                   (int)hit.err_bytes, (const char *)hit.err);
            printf(" %s:%.*s", hit.depfile_path ? hit.depfile_path : "-", (int)hit.depfile_bytes,
                   (const char *)hit.depfile);
            struct hit_reader r = hit.at_checks;
            for (uint32_t n = 0; n < hit.checks; n++) {
                hit_next_check(&r, &check);
                print_check(&check);
            }
            puts("");
        }
        free(copy);
    }
    return 0;
}
#endif
