/* Answers a request from a kept hit, without the daemon and without Python. Included only by hpcc_win.c.
 *
 * The daemon keeps a hit in run\hits\ after it has answered one (cache/windows/kept_hits.py). Here each
 * input is read and compared again, as the daemon does: no time of a source is believed, because NTFS
 * sets it late, and not at all for a part that is mapped. At any doubt the daemon is asked, as if there
 * were no kept hit. While an object is put in place, hits.log is open, and a record in it names the hit:
 * the daemon waits for that before it stores a result, so that it never takes this object for one of a
 * compiler that runs at the same time.
 *
 * What must never happen: an object for other inputs, an object over a file that is not ours, half an
 * object. Not yet run on Windows. */
#ifndef HPCC_WIN_HIT_H
#define HPCC_WIN_HIT_H

#include <bcrypt.h>

#include "../native/kept_hit.h"

#define MAX_HITS_LOG_BYTES (1 << 16)
#define HIT_RECORD_BYTES 16
#define HIT_WITHDRAWN (1ull << 63) /* a record with this bit: the hit before it was not one */
#define EPOCH_TICKS 116444736000000000ull /* 1970, in 100 ns since 1601 */

static wchar_t hit_name[MAX_LONG_PATH], hit_aside[MAX_LONG_PATH];

static bool hit_widen(const char *path, wchar_t *to) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, to, MAX_LONG_PATH) > 0;
}

/* ---- SHA-256, by the system's own module ---- */

static struct {
    BCRYPT_HASH_HANDLE hash; /* is as new after each digest */
    NTSTATUS(WINAPI *add)(BCRYPT_HASH_HANDLE, PUCHAR, ULONG, ULONG);
    NTSTATUS(WINAPI *end)(BCRYPT_HASH_HANDLE, PUCHAR, ULONG, ULONG);
} hit_sha256;

#define SHA256_PROVIDER ((BCRYPT_ALG_HANDLE)0x41) /* BCRYPT_SHA256_ALG_HANDLE, which mingw-w64 lacks */
#define GET(library, to, name) ((to) = (__typeof__(to))(void (*)(void))GetProcAddress(library, name))

/* Loaded only here: a launcher that asks the daemon needs none of it. */
static bool hit_load_sha256(void) {
    NTSTATUS(WINAPI *create)(BCRYPT_ALG_HANDLE, BCRYPT_HASH_HANDLE *, PUCHAR, ULONG, PUCHAR, ULONG, ULONG);
    HMODULE library = LoadLibraryExW(L"bcrypt.dll", NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
    return library && GET(library, create, "BCryptCreateHash") && GET(library, hit_sha256.add, "BCryptHashData") &&
           GET(library, hit_sha256.end, "BCryptFinishHash") &&
           !create(SHA256_PROVIDER, &hit_sha256.hash, NULL, 0, NULL, 0, BCRYPT_HASH_REUSABLE_FLAG);
}

static bool hit_add(const void *data, size_t bytes) { return !hit_sha256.add(hit_sha256.hash, (PUCHAR)data, (ULONG)bytes, 0); }

/* Whether all that was added since the last time has this digest. */
static bool hit_ends_as(const unsigned char *expected) {
    unsigned char digest[HIT_DIGEST_BYTES];
    return !hit_sha256.end(hit_sha256.hash, digest, sizeof digest, 0) && !memcmp(digest, expected, sizeof digest);
}

/* ---- looking at files ---- */

static HANDLE hit_open(const char *path, DWORD access, DWORD flags) {
    if (!hit_widen(path, hit_name)) return INVALID_HANDLE_VALUE;
    return CreateFileW(hit_name, access, SHARE_ALL, NULL, OPEN_EXISTING, flags | SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS, NULL);
}

static bool hit_read_is(HANDLE file, uint64_t size, const unsigned char *expected) {
    static unsigned char data[1 << 18];
    uint64_t have = 0;
    DWORD n = 0;
    /* One byte more than there should be: a file that grows is another one. */
    while (have <= size) {
        uint64_t left = size - have + 1;
        if (!ReadFile(file, data, left < sizeof data ? (DWORD)left : (DWORD)sizeof data, &n, NULL)) return false;
        if (!n) break;
        if (!hit_add(data, n)) return false;
        have += n;
    }
    return have == size && hit_ends_as(expected);
}

/* `info` is what the system says of the file that was compared. */
static bool hit_has_content(const struct hit_check *check, BY_HANDLE_FILE_INFORMATION *info) {
    HANDLE file = hit_open(check->path, GENERIC_READ, 0);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_same = GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, info) &&
                   !(info->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) &&
                   ((uint64_t)info->nFileSizeHigh << 32 | info->nFileSizeLow) == check->values[0] &&
                   hit_read_is(file, check->values[0], check->digest);
    CloseHandle(file);
    return is_same;
}

static uint64_t hit_nanoseconds(int64_t ticks) { return ticks > (int64_t)EPOCH_TICKS ? ((uint64_t)ticks - EPOCH_TICKS) * 100 : 0; }

static bool hit_has_state(const struct hit_check *check) {
    const uint64_t *v = check->values;
    BY_HANDLE_FILE_INFORMATION info;
    FILE_BASIC_INFO basic;
    HANDLE file = hit_open(check->path, FILE_READ_ATTRIBUTES, FILE_FLAG_BACKUP_SEMANTICS);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_same = GetFileInformationByHandleEx(file, FileBasicInfo, &basic, sizeof basic) && GetFileInformationByHandle(file, &info) &&
                   v[0] == hit_nanoseconds(basic.LastWriteTime.QuadPart) && v[1] == hit_nanoseconds(basic.ChangeTime.QuadPart) &&
                   v[2] == ((uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow) && v[3] == info.dwVolumeSerialNumber &&
                   v[4] == ((uint64_t)info.nFileIndexHigh << 32 | info.nFileIndexLow);
    CloseHandle(file);
    return is_same;
}

static bool hit_has_kind(const struct hit_check *check) {
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE file = hit_open(check->path, FILE_READ_ATTRIBUTES, FILE_FLAG_BACKUP_SEMANTICS);
    if (file == INVALID_HANDLE_VALUE) {
        DWORD error = GetLastError();
        return check->entry == HIT_NOTHING && (error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND);
    }
    bool is_known = GetFileInformationByHandle(file, &info);
    CloseHandle(file);
    bool is_directory = is_known && info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
    return is_known && check->entry == (is_directory ? HIT_A_DIRECTORY : HIT_A_FILE);
}

/* As os.path.realpath: what is there, through links, 8.3 names and `subst`. */
static bool hit_is_real(const struct hit_check *check) {
    HANDLE file = hit_open(check->path, FILE_READ_ATTRIBUTES, FILE_FLAG_BACKUP_SEMANTICS);
    if (file == INVALID_HANDLE_VALUE) return false;
    DWORD units = GetFinalPathNameByHandleW(file, hit_aside, LENGTH(hit_aside), FILE_NAME_NORMALIZED | VOLUME_NAME_DOS);
    CloseHandle(file);
    return units && units < LENGTH(hit_aside) && !wcsncmp(hit_aside, L"\\\\?\\", 4) && hit_widen(check->text, hit_name) &&
           !wcscmp(hit_aside + 4, hit_name);
}

static bool hit_is_dots(const wchar_t *name) { return name[0] == L'.' && (!name[1] || (name[1] == L'.' && !name[2])); }

/* Links are followed, as Python's DirEntry.is_dir does; `hit_name` is the pattern of this length. */
static bool hit_is_directory(const WIN32_FIND_DATAW *entry, size_t length) {
    BY_HANDLE_FILE_INFORMATION info;
    if (!(entry->dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT)) return entry->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
    if (length + wcslen(entry->cFileName) + 1 > LENGTH(hit_aside)) return false;
    wmemcpy(hit_aside, hit_name, length);
    wcscpy(hit_aside + length, entry->cFileName);
    HANDLE file = CreateFileW(hit_aside, FILE_READ_ATTRIBUTES, SHARE_ALL, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_directory = GetFileInformationByHandle(file, &info) && info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY;
    CloseHandle(file);
    return is_directory;
}

typedef bool hit_entry_fn(const wchar_t *name, bool is_directory, void *context);

/* Calls `each` for every entry but . and .. until it says false; true if all were read. */
static bool hit_list(const char *directory, hit_entry_fn *each, void *context) {
    WIN32_FIND_DATAW entry;
    if (!hit_widen(directory, hit_name)) return false;
    size_t length = wcslen(hit_name);
    if (length + 5 > LENGTH(hit_name)) return false;
    if (hit_name[length - 1] != L'\\') hit_name[length++] = L'\\';
    wcscpy(hit_name + length, L"*.*");
    HANDLE found = FindFirstFileExW(hit_name, FindExInfoBasic, &entry, FindExSearchNameMatch, NULL, FIND_FIRST_EX_LARGE_FETCH);
    if (found == INVALID_HANDLE_VALUE) return false;
    bool is_good = true;
    do is_good = hit_is_dots(entry.cFileName) || each(entry.cFileName, hit_is_directory(&entry, length), context);
    while (is_good && FindNextFileW(found, &entry));
    bool is_end = !is_good || GetLastError() == ERROR_NO_MORE_FILES;
    FindClose(found);
    return is_good && is_end;
}

/* As `listing_digest` in cache/windows/hit_bytes.py: per entry its name, a zero, and whether it is a directory. */
static bool hit_add_entry(const wchar_t *name, bool is_directory, void *context) {
    uint16_t kind[2] = {0, is_directory};
    (void)context;
    return hit_add(name, wcslen(name) * sizeof *name) && hit_add(kind, sizeof kind);
}

static bool hit_has_listing(const struct hit_check *check) {
    return hit_list(check->path, hit_add_entry, NULL) && hit_ends_as(check->digest);
}

struct hit_names {
    const struct hit_check *check;
    uint32_t *starts;
};

static bool hit_is_other(const wchar_t *name, bool is_directory, void *context) {
    const struct hit_names *names = context;
    char key[MAX_PATH + 1];
    if (!hit_wide_key((const uint16_t *)name, key, sizeof key)) return false;
    return !(hit_bits_of(names->check, names->starts, key) & (is_directory ? HIT_NO_DIRECTORY : HIT_NO_FILE));
}

static bool hit_lacks(const struct hit_check *check) {
    struct hit_names names = {check, malloc((check->names + 1u) * sizeof(uint32_t))};
    if (!names.starts) return false;
    hit_find_starts(check, names.starts);
    bool is_lacking = hit_list(check->path, hit_is_other, &names);
    free(names.starts);
    return is_lacking;
}

/* `source` is what the system says of the first check's file. */
static bool hit_holds(const struct kept_hit *hit, BY_HANDLE_FILE_INFORMATION *source) {
    struct hit_reader r = hit->at_checks;
    struct hit_check check;
    BY_HANDLE_FILE_INFORMATION info;
    for (uint32_t i = 0; i < hit->checks; i++) {
        if (!hit_next_check(&r, &check)) return false;
        switch (check.kind) {
        case HIT_FILE:
            if (!hit_has_content(&check, i ? &info : source)) return false;
            break;
        case HIT_STATE:
            if (!hit_has_state(&check)) return false;
            break;
        case HIT_KIND:
            if (!hit_has_kind(&check)) return false;
            break;
        case HIT_LISTING:
            if (!hit_has_listing(&check)) return false;
            break;
        case HIT_REAL:
            if (!hit_is_real(&check)) return false;
            break;
        default:
            if (!hit_lacks(&check)) return false;
        }
    }
    return true;
}

/* ---- the object and the depfile ---- */

/* No link, nothing read-only, no second name, not the source. */
static bool hit_may_write(const wchar_t *path, const BY_HANDLE_FILE_INFORMATION *source) {
    const DWORD odd = FILE_ATTRIBUTE_READONLY | FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE | FILE_ATTRIBUTE_REPARSE_POINT;
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE file = CreateFileW(path, FILE_READ_ATTRIBUTES, SHARE_ALL, NULL, OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE) return GetLastError() == ERROR_FILE_NOT_FOUND;
    bool is_ours = GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, &info) && !(info.dwFileAttributes & odd) && info.nNumberOfLinks == 1;
    CloseHandle(file);
    return is_ours && !(info.dwVolumeSerialNumber == source->dwVolumeSerialNumber && info.nFileIndexHigh == source->nFileIndexHigh &&
                        info.nFileIndexLow == source->nFileIndexLow);
}

/* Beside its place, then renamed: nobody sees half of it. */
static bool hit_put(const char *path, const unsigned char *data, uint32_t bytes, const BY_HANDLE_FILE_INFORMATION *source) {
    char text[32];
    if (!hit_widen(path, hit_name) || !hit_may_write(hit_name, source)) return false;
    size_t length = wcslen(hit_name);
    if (length + 24 > LENGTH(hit_aside)) return false;
    wcscpy(hit_aside, hit_name);
    uint64_t unique = (uint64_t)GetCurrentProcessId() << 32 ^ (uint64_t)now_ms();
    memcpy(put_number(text, unique, 16, 16), ".hpcc", sizeof ".hpcc");
    hit_aside[length++] = L'.';
    for (size_t i = 0; i <= strlen(text); i++) hit_aside[length + i] = (wchar_t)text[i];
    HANDLE file = CreateFileW(hit_aside, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_written = write_all(file, data, bytes);
    is_written = CloseHandle(file) && is_written;
    if (is_written && MoveFileExW(hit_aside, hit_name, MOVEFILE_REPLACE_EXISTING)) return true;
    DeleteFileW(hit_aside);
    return false;
}

static bool hit_record(HANDLE log, uint64_t number) {
    unsigned char record[HIT_RECORD_BYTES];
    FILETIME now;
    DWORD written = 0;
    GetSystemTimeAsFileTime(&now);
    put64(put64(record, number), ticks(now));
    return WriteFile(log, record, sizeof record, &written, NULL) && written == sizeof record;
}

/* The object comes last: who waits for it finds its depfile. If it cannot be put in place, the compiler runs
 * and writes both. */
static bool hit_put_all(const struct kept_hit *hit, const BY_HANDLE_FILE_INFORMATION *source) {
    if (hit->depfile_path && !hit_put(hit->depfile_path, hit->depfile, hit->depfile_bytes, source)) return false;
    return hit_put(hit->path, hit->object, hit->object_bytes, source);
}

/* The object in place and the hit recorded; false if neither is, and the daemon is to be asked. */
static bool hit_replay(const struct kept_hit *hit, const BY_HANDLE_FILE_INFORMATION *source) {
    LARGE_INTEGER size;
    /* Not shared for deletion: the daemon, which takes the file, waits until nobody has it open. */
    HANDLE log = open_in_run(L"hits.log", FILE_APPEND_DATA | FILE_READ_ATTRIBUTES, FILE_SHARE_READ | FILE_SHARE_WRITE, OPEN_ALWAYS);
    if (log == INVALID_HANDLE_VALUE) return false;
    bool is_done = false;
    if (GetFileSizeEx(log, &size) && size.QuadPart < MAX_HITS_LOG_BYTES && hit_record(log, hit->number)) {
        is_done = hit_put_all(hit, source);
        if (!is_done) hit_record(log, hit->number | HIT_WITHDRAWN);
    }
    CloseHandle(log);
    return is_done;
}

/* ---- the kept hit ---- */

/* The daemon that keeps hits has this file open; no other program can open it then. */
static bool hit_is_daemon_alive(void) {
    HANDLE lock = open_in_run(L"hits.lock", GENERIC_READ, SHARE_ALL, OPEN_EXISTING);
    if (lock == INVALID_HANDLE_VALUE) return GetLastError() == ERROR_SHARING_VIOLATION;
    CloseHandle(lock);
    return false;
}

#define HIT_WRITES (FILE_WRITE_DATA | FILE_APPEND_DATA | WRITE_DAC | WRITE_OWNER | GENERIC_WRITE | GENERIC_ALL)

/* True if only this user, the system and administrators may write to the file. It says where an object is
 * written, and below a directory of HPCC_DIR others may change files of this user. */
static bool hit_is_closed(HANDLE file) {
    _Alignas(16) char descriptor[4096];
    DWORD size = sizeof descriptor;
    PACL list = NULL;
    BOOL is_there = FALSE, is_default;
    if (!GetKernelObjectSecurity(file, DACL_SECURITY_INFORMATION, descriptor, size, &size) ||
        !GetSecurityDescriptorDacl(descriptor, &is_there, &list, &is_default) || !is_there || !list)
        return false;
    for (DWORD i = 0; i < list->AceCount; i++) {
        ACCESS_ALLOWED_ACE *entry = NULL;
        if (!GetAce(list, i, (void **)&entry)) return false;
        if (entry->Header.AceType == ACCESS_DENIED_ACE_TYPE) continue;
        if (entry->Header.AceType != ACCESS_ALLOWED_ACE_TYPE) return false;
        PSID who = &entry->SidStart;
        bool is_trusted = EqualSid(who, SID_OF(own_user)) || IsWellKnownSid(who, WinLocalSystemSid) || IsWellKnownSid(who, WinBuiltinAdministratorsSid);
        if (!is_trusted && entry->Mask & HIT_WRITES) return false;
    }
    return true;
}

/* The bytes of a file that this user made and nobody else can change, without a second name; else NULL. */
static unsigned char *hit_read(const wchar_t *name, uint64_t *bytes) {
    BY_HANDLE_FILE_INFORMATION info;
    DWORD n = 0;
    unsigned char *data = NULL;
    HANDLE file = open_in_run(name, GENERIC_READ, SHARE_ALL, OPEN_EXISTING);
    if (file == INVALID_HANDLE_VALUE) return NULL;
    bool is_good = GetFileInformationByHandle(file, &info) && info.nNumberOfLinks == 1 && !info.nFileSizeHigh && info.nFileSizeLow <= MAX_HIT_BYTES && is_own_object(file) && hit_is_closed(file);
    if (is_good) data = malloc(info.nFileSizeLow + 1u);
    if (data && (!ReadFile(file, data, info.nFileSizeLow + 1, &n, NULL) || n != info.nFileSizeLow)) {
        free(data);
        data = NULL;
    }
    CloseHandle(file);
    *bytes = n;
    return data;
}

/* Compares the file's own digest: a crash of the system may leave zeros in it. */
static bool hit_is_whole(const unsigned char *data, uint64_t bytes) {
    if (bytes <= HIT_HEAD_BYTES) return false;
    return hit_add(data + HIT_HEAD_BYTES, bytes - HIT_HEAD_BYTES) && hit_ends_as(data + HIT_HEAD_BYTES - HIT_DIGEST_BYTES);
}

/* The machine's code pages are not compared: they are those of the boot, which no daemon outlives. This program's
 * own ones say nothing about them, because its manifest asks for UTF-8. */
static bool hit_is_for(const struct kept_hit *hit, const unsigned char *request, size_t bytes) {
    return hit->request_bytes == bytes && !memcmp(hit->request, request, bytes) && hit->language == GetUserDefaultUILanguage();
}

/* Ends the process if the request was answered. `frame` is the whole request. */
static void answer_from_kept_hit(const unsigned char *frame, size_t bytes) {
    wchar_t name[32] = L"hits\\";
    char hex[24];
    struct kept_hit hit;
    BY_HANDLE_FILE_INFORMATION source;
    uint64_t size = 0;
    /* Behind the header, the protocol's version and the build facts, as `split_request` in wire/launcher.py. */
    size_t start_at = HEADER_BYTES + 8 + get32(frame + HEADER_BYTES + 4);
    const unsigned char *request = frame + start_at;
    uint64_t hash = FNV_START;
    bytes -= start_at;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ request[i]) * 0x100000001b3u;
    put_number(hex, hash, 16, 16);
    for (size_t i = 0; i <= 16; i++) name[5 + i] = (wchar_t)hex[i];
    unsigned char *data = hit_is_daemon_alive() ? hit_read(name, &size) : NULL;
    if (!data) return;
    if (hit_load_sha256() && hit_is_whole(data, size) && hit_parse(data, size, &hit) && hit_is_for(&hit, request, bytes) && hit_holds(&hit, &source) && hit_replay(&hit, &source)) {
        write_all(GetStdHandle(STD_OUTPUT_HANDLE), hit.out, hit.out_bytes);
        write_all(GetStdHandle(STD_ERROR_HANDLE), hit.err, hit.err_bytes);
        ExitProcess(0);
    }
    free(data);
}

#endif
