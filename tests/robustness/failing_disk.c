/* A disk that fails: preloaded (LD_PRELOAD), the calls by which a process writes to files fail when told to.
 *
 * disk_arm(kind, first, error, once) lets the first-th call of a kind from now on, and unless `once` every later one,
 * fail with an error number. disk_seen(kind) counts the calls since. Only calls on regular files count, so that what a
 * command says on its pipes still arrives. (Not libfiu, which is made for this: torch and scipy do not load under it.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, PWRITE, WRITEV, FTRUNCATE, FSYNC, FDATASYNC, FALLOCATE, RENAME, CREATE, MKDIR, UNLINK, KINDS };

static atomic_int armed, armed_kind, armed_error, armed_once;
static atomic_long armed_first, seen[KINDS];

void disk_arm(int kind, long first, int error, int once)
{
    for (int other = 0; other < KINDS; other++)
        seen[other] = 0;
    armed_kind = kind;
    armed_first = first;
    armed_error = error;
    armed_once = once;
    armed = 1;
}

void disk_disarm(void) { armed = 0; }

long disk_seen(int kind) { return seen[kind]; }

/* The error number that this call of a kind is to fail with; 0: none. */
static int failure(int kind)
{
    if (!armed)
        return 0;
    long number = ++seen[kind];
    if (kind != armed_kind || number < armed_first || (armed_once && number > armed_first))
        return 0;
    return armed_error;
}

static int failure_on(int fd, int kind)
{
    struct stat status;
    return armed && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? failure(kind) : 0;
}

#define CALL(type, name, parameters, arguments, check)                                                                 \
    type name parameters                                                                                               \
    {                                                                                                                  \
        static type(*real) parameters;                                                                                 \
        if (!real)                                                                                                     \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                        \
        int error = check;                                                                                             \
        if (error) {                                                                                                   \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real arguments;                                                                                         \
    }

CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), failure_on(fd, WRITE))
CALL(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), failure_on(fd, PWRITE))
CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
     failure_on(fd, PWRITE))
CALL(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count), failure_on(fd, WRITEV))
CALL(int, ftruncate, (int fd, off_t size), (fd, size), failure_on(fd, FTRUNCATE))
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), failure_on(fd, FTRUNCATE))
CALL(int, fsync, (int fd), (fd), failure_on(fd, FSYNC))
CALL(int, fdatasync, (int fd), (fd), failure_on(fd, FDATASYNC))
CALL(int, rename, (const char *old, const char *new), (old, new), failure(RENAME))
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), failure(MKDIR))
CALL(int, unlink, (const char *path), (path), failure(UNLINK))

#define FALLOCATE_CALL(name, offset)                                                                                   \
    int name(int fd, offset from, offset size)                                                                         \
    {                                                                                                                  \
        static int (*real)(int, offset, offset);                                                                       \
        if (!real)                                                                                                     \
            real = (int (*)(int, offset, offset))dlsym(RTLD_NEXT, #name);                                              \
        int error = failure_on(fd, FALLOCATE); /* returned, not set */                                                 \
        return error ? error : real(fd, from, size);                                                                   \
    }

FALLOCATE_CALL(posix_fallocate, off_t)
FALLOCATE_CALL(posix_fallocate64, off64_t)

#define OPEN_CALL(name)                                                                                                \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        static int (*real)(const char *, int, ...);                                                                    \
        if (!real)                                                                                                     \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        int error = flags & O_CREAT ? failure(CREATE) : 0;                                                             \
        if (error) {                                                                                                   \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real(path, flags, mode);                                                                                \
    }

OPEN_CALL(open)
OPEN_CALL(open64)
