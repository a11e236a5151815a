/* A stand-in for an Android phone: the device side of adb, and a boot that takes as long as it is told to.
 *
 * It is the only program of the tests' container image. It is started as redroid's /init is, with boot arguments
 * `name=value`, and understands besides:
 *   androidboot.standin_adb_ms=N      adb listens after N ms [100]
 *   androidboot.standin_boot_ms=N     sys.boot_completed is 1 after N ms [300]
 *   androidboot.standin_never_boot=1  sys.boot_completed stays 0
 *   androidboot.standin_exit_ms=N     the program ends with code 3 after N ms
 *
 * The only shell command is `getprop NAME`; `androidboot.x=y` is property ro.boot.x, as on Android, and
 * standin.data_writable tells whether /data is a volume that can be written to.
 *
 * adb's protocol between server and device: AOSP, packages/modules/adb, protocol.txt. Little endian, no authentication.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define COMMAND(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
enum {
    CNXN = COMMAND('C', 'N', 'X', 'N'),
    OPEN = COMMAND('O', 'P', 'E', 'N'),
    OKAY = COMMAND('O', 'K', 'A', 'Y'),
    WRTE = COMMAND('W', 'R', 'T', 'E'),
    CLSE = COMMAND('C', 'L', 'S', 'E'),
    VERSION = 0x01000001, /* the first that ignores checksums */
    MAX_PAYLOAD = 4096,
};

struct message {
    uint32_t command, arg0, arg1, length, checksum, magic;
};

static char **arguments;
static int64_t started;

static int64_t milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The value of boot argument `name`; the last one wins. */
static const char *argument(const char *name) {
    const char *value = NULL;
    size_t length = strlen(name);
    for (char **word = arguments; *word; word++)
        if (!strncmp(*word, name, length) && (*word)[length] == '=') value = *word + length + 1;
    return value;
}

static long number(const char *name, long otherwise) {
    const char *value = argument(name);
    return value ? atol(value) : otherwise;
}

static int read_all(int peer, void *bytes, size_t count) {
    for (char *at = bytes; count;) {
        ssize_t got = read(peer, at, count);
        if (got <= 0) return -1;
        at += got, count -= (size_t)got;
    }
    return 0;
}

static int send_message(int peer, uint32_t command, uint32_t arg0, uint32_t arg1, const char *text) {
    char bytes[sizeof(struct message) + MAX_PAYLOAD];
    size_t length = text ? strlen(text) : 0;
    struct message header = {command, arg0, arg1, (uint32_t)length, 0, ~command};
    for (size_t i = 0; i < length; i++) header.checksum += (unsigned char)text[i];
    memcpy(bytes, &header, sizeof header);
    if (length) memcpy(bytes + sizeof header, text, length);
    return write(peer, bytes, sizeof header + length) == (ssize_t)(sizeof header + length) ? 0 : -1;
}

static void property(const char *name, char *value, size_t size) {
    char boot[512];
    value[0] = 0;
    if (!strcmp(name, "sys.boot_completed")) {
        int booted = !number("androidboot.standin_never_boot", 0) &&
                     milliseconds() - started >= number("androidboot.standin_boot_ms", 300);
        snprintf(value, size, "%d", booted);
    } else if (!strcmp(name, "standin.data_writable")) {
        int file = open("/data/standin", O_CREAT | O_WRONLY, 0600);
        snprintf(value, size, "%d", file >= 0);
        if (file >= 0) close(file);
    } else if (!strncmp(name, "ro.boot.", 8)) {
        snprintf(boot, sizeof boot, "androidboot.%s", name + 8);
        const char *text = argument(boot);
        if (text) snprintf(value, size, "%s", text);
    }
}

/* Runs `service` ("shell:getprop NAME") and puts what it prints into `output`. */
static void run(const char *service, char *output, size_t size) {
    char name[256], value[1024];
    if (sscanf(service, "shell:getprop %255s", name) == 1) {
        property(name, value, sizeof value);
        snprintf(output, size, "%s\n", value);
    } else {
        snprintf(output, size, "sh: not found\n");
    }
}

static void serve(int peer) {
    struct message header;
    char payload[MAX_PAYLOAD + 1], output[2048];
    uint32_t last_id = 0, closing = 0;
    while (!read_all(peer, &header, sizeof header)) {
        if (header.magic != ~header.command || header.length > MAX_PAYLOAD) return;
        if (read_all(peer, payload, header.length)) return;
        payload[header.length] = 0;
        switch (header.command) {
        case CNXN:
            if (send_message(
                    peer, CNXN, VERSION, MAX_PAYLOAD,
                    "device::ro.product.name=standin;ro.product.model=standin;ro.product.device=standin;features=cmd"))
                return;
            break;
        case OPEN: {
            uint32_t id = ++last_id;
            if (strncmp(payload, "shell:", 6)) {
                if (send_message(peer, CLSE, 0, header.arg0, NULL)) return;
                break;
            }
            run(payload, output, sizeof output);
            if (send_message(peer, OKAY, id, header.arg0, NULL)) return;
            if (send_message(peer, WRTE, id, header.arg0, output)) return;
            closing = id;
            break;
        }
        case OKAY: /* what was written has arrived */
            if (header.arg1 == closing && send_message(peer, CLSE, closing, header.arg0, NULL)) return;
            break;
        case WRTE:
            if (send_message(peer, OKAY, header.arg1, header.arg0, NULL)) return;
            break;
        default: /* CLSE, and what newer servers try */
            break;
        }
    }
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static void die(int signal) {
    (void)signal;
    _exit(3);
}

static void sleep_until(int64_t instant) {
    int64_t left = instant - milliseconds();
    if (left > 0) usleep((useconds_t)left * 1000);
}

int main(int count, char **words) {
    (void)count;
    arguments = words + 1;
    started = milliseconds();
    signal(SIGTERM, end); /* the first process of a container has no default action */
    signal(SIGINT, end);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    long life = number("androidboot.standin_exit_ms", 0);
    if (life > 0) {
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
        struct itimerspec once = {.it_value = {life / 1000, life % 1000 * 1000000 + 1}};
        signal(SIGALRM, die);
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &once, NULL)) return 1;
    }

    sleep_until(started + number("androidboot.standin_adb_ms", 100));
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(5555)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) return 1;
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        if (fork() == 0) {
            close(listener);
            signal(SIGTERM, SIG_DFL);
            serve(peer);
            _exit(0);
        }
        close(peer);
    }
}
